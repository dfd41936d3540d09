"""The end of a classifier, found by structure and run in float32: global pooling and the last linear layer."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pipeline.core.errors import ConfigError


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32, under autocast too: a bfloat16 logit near 12 has steps of 0.06."""

    @classmethod
    def sharing(cls, layer: nn.Linear) -> "Float32Linear":
        """A float32 layer with the very parameters of `layer`."""
        shared = cls(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        shared.weight, shared.bias = layer.weight, layer.bias
        return shared.train(layer.training)

    def forward(self, embedding: Tensor) -> Tensor:
        """(..., D) of any floating dtype -> (..., C) float32."""
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(device_type=embedding.device.type, enabled=False):
            return linear(embedding.float(), self.weight.float(), bias)


class Float32Pool(nn.Module):
    """The average of each map, in float32 under autocast too; one kernel."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) of any floating dtype -> (B, C, 1, 1) float32."""
        return maps.mean(dim=(-1, -2), keepdim=True, dtype=torch.promote_types(maps.dtype, torch.float32))


def install_head(model: nn.Module) -> str:
    """Replace the model's classifier by a `Float32Linear` with the same parameters; returns its path in the model.

    The state_dict keeps its keys, so checkpoints interchange with the plain model.

    Raises:
        ConfigError: the model does not end in a linear layer.
    """
    leaves = [(name, module) for name, module in model.named_modules() if _has_own_parameters(module)]
    linears = [(name, module) for name, module in leaves if isinstance(module, nn.Linear)]
    if not linears or not linears[-1][0]:
        last = type(leaves[-1][1]).__name__ if leaves else "no layer with parameters"
        raise ConfigError(
            f"the classifier must be a linear layer inside the model: {type(model).__name__} has none, "
            f"its last layer is {last}."
        )
    path, head = linears[-1]
    model.set_submodule(path, Float32Linear.sharing(head))
    return path


def install_pooling(model: nn.Module) -> None:
    """Make global pooling give float32: an average in half precision would be rounded before W f + b.

    That is the last adaptive pooling; those before it (squeeze and excitation) belong to the body. One with a forward
    of its own (it flattens, say) keeps it, and gets its maps in float32.
    """
    pools = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    for path, pool in pools[-1:]:
        if pool.output_size in (1, (1, 1)) and type(pool).forward is nn.AdaptiveAvgPool2d.forward:
            model.set_submodule(path, Float32Pool())
        else:
            pool.register_forward_pre_hook(lambda _, inputs: tuple(value.float() for value in inputs))


def _has_own_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None
