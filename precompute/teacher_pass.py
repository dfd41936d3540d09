"""The teacher on batches of one fixed size, in the kernels that give the same bits at every start."""

import torch
from torch import Tensor

from pipeline.devices.numerics import fix_compiler, set_kernels
from pipeline.engine.networks import preparation
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.models.spec import parse_spec
from pipeline.models.weights import fingerprint_of_weights
from pipeline.models.zoo import build_network
from pipeline.teachers.online import OnlineTeacher

WEIGHTS_SEED = 0  # of NAME@random, the default --run-seed of training runs


class TeacherPass:
    """Pixels to teacher outputs, a fixed number of images at a time.

    Convolution libraries choose algorithms by batch size, so a row's low bits depend on how many rows go with it,
    though not on what they are. A short batch is therefore filled up, with copies of its last image.

    Args:
        network: the teacher, on the CPU.
        device: where it runs.
        mean: per-channel mean of 0..1 pixels.
        std: per-channel deviation.
        precision: "fp32", "bf16" or "fp16" for the body; pooling and classifier run in float32.
        batch: images per forward pass.
        compiled: run it through torch.compile.
    """

    def __init__(
        self,
        network: Network,
        *,
        device: torch.device,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        precision: str,
        batch: int,
        compiled: bool = False,
    ) -> None:
        self.network, self.device, self.batch = network, device, batch
        self._teacher = OnlineTeacher(
            network, device=device, precision=precision, memory_format=torch.channels_last, compiled=compiled
        )
        self._prepare = preparation(mean, std, device, torch.channels_last)

    def outputs(self, images_BHWC: Tensor, *, batch: int | None = None) -> Outputs:
        """Logits (b, C) and embedding (b, D), float32, of (b, R, R, 3) uint8 pixels on the device, b <= batch.

        Args:
            images_BHWC: pixels; of any strides.
            batch: another fixed size than the pass's own, to find out what it changes.
        """
        count = len(images_BHWC)
        images = self._prepare(_filled_up(images_BHWC, batch or self.batch))
        outputs = self._teacher.outputs(images)
        assert outputs.embedding is not None, "a Network always gives its embedding"
        return Outputs(logits=outputs.logits.float()[:count], embedding=outputs.embedding[:count])

    def head(self) -> tuple[Tensor, Tensor]:
        """The classifier, weight (C, D) and bias (C,), float32 on the CPU; no bias is a bias of zeros."""
        weight, bias = self.network.head.weight.detach().float().cpu(), self.network.head.bias
        return weight, torch.zeros(len(weight)) if bias is None else bias.detach().float().cpu()


def build_teacher(text: str, *, num_classes: int) -> tuple[Network, str]:
    """The teacher that NAME@WEIGHTS stands for, on the CPU, and the sha256 of its weights.

    Raises:
        ConfigError: unknown name, weights that do not fit, no linear classifier.
    """
    network = build_network(parse_spec(text), num_classes=num_classes, seed=WEIGHTS_SEED, role="teacher")
    return network, fingerprint_of_weights(network.model)


def fix_numerics(device: torch.device) -> None:
    """Set the whole process to kernels that give the same bits at every start on one stack.

    Must come before the first CUDA kernel and the first compilation. On the CPU the teacher runs on one thread: one,
    two and three gave the same bits for ResNet, MobileNet, ViT and ConvNeXt with torch 2.15, but nobody promises that.
    """
    set_kernels(
        deterministic=True, precision="fp32", warn_only=True
    )  # a layer without such a kernel is worth a warning
    fix_compiler()
    if device.type == "cpu":
        torch.set_num_threads(1)


def _filled_up(images_BHWC: Tensor, size: int) -> Tensor:
    lacking = size - len(images_BHWC)
    if lacking < 0:
        raise ValueError(f"{len(images_BHWC)} images do not fit a batch of {size}")
    if lacking == 0:
        return images_BHWC
    return torch.cat((images_BHWC, images_BHWC[-1:].expand(lacking, -1, -1, -1)))
