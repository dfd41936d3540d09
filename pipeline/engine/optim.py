"""Optimisers, and the learning rate as a function of the step."""

import math

import torch
from torch import nn

from pipeline.config import Optimisation


def build_optimizer(module: nn.Module, config: Optimisation, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser over every trainable parameter of `module`.

    On CUDA the fused forms are used: one launch, and a gradient scaler's check needs no wait for the device.
    """
    groups = _parameter_groups(module, config)
    fused = True if device.type == "cuda" else None
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=config.betas, fused=fused)


def learning_rate(config: Optimisation, step: int, steps_per_epoch: int) -> float:
    """The rate of global step `step` (from 0).

    `step`: times gamma from the first step of each milestone epoch (from 0) on, which is "epoch > milestone" of code
    that counts epochs from 1. `cosine`: lr (1 + cos(pi t)) / 2 over all epochs, step by step. Warm-up multiplies by
    (step + 1) / its steps.
    """
    epoch, total = step // steps_per_epoch, config.epochs * steps_per_epoch
    factor = 1.0
    if config.schedule == "step":
        factor = config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    elif config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * min(step, total) / total))
    warmup_steps = config.warmup_epochs * steps_per_epoch
    if step + 1 < warmup_steps:
        factor *= (step + 1) / warmup_steps
    return config.lr * factor


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _parameter_groups(module: nn.Module, config: Optimisation) -> list[dict[str, object]]:
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if config.decay == "all":
        return [{"params": trainable, "weight_decay": config.weight_decay}]
    # BN scales, biases, temperatures and log-scales are vectors or scalars; weights have two dimensions or more
    decayed = [parameter for parameter in trainable if parameter.ndim > 1]
    exempt = [parameter for parameter in trainable if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
