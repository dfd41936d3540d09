"""Reflux: high-throughput ImageNet distillation."""
