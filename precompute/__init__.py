"""Fills a store with teacher outputs, one augmented view after the other (`python -m precompute`)."""
