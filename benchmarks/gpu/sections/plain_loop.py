"""Our supervised step beside the loop that one writes without a framework, in pairs; and DALI's own pipeline."""

import itertools
from collections.abc import Callable
from contextlib import closing
from functools import partial

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from benchmarks._shared.pairs import alternate, window_rate
from benchmarks._shared.training import Training
from benchmarks.gpu.clock import images_rate
from benchmarks.gpu.findings import Outcome, Part, Setting, measured, needs_cuda, unproven
from benchmarks.gpu.images import decoding_of, image_index
from benchmarks.gpu.workloads import WARM_UPS, config_of, held_step, open_workload
from pipeline.config import Views
from pipeline.data.backend import BackendOptions, resolve_backend
from pipeline.models.families.demo import demo_student

SECTION = (10, "our step beside a plain loop", 60)


def parts(setting: Setting) -> list[Part]:
    """Our vanilla step over the plain loop at each batch; DALI's images/s."""
    batches: tuple[int, ...] = setting.pick((32, 256), (32,), (8,))
    return [
        *(Part(f"{batch} images", partial(_beside, batch, setting)) for batch in batches),
        *needs_cuda(setting, [Part("DALI's own pipeline, on the GPU", partial(_dali, setting))]),
    ]


def _beside(batch: int, setting: Setting) -> Outcome:
    device = torch.device(setting.device)
    with open_workload(config_of("vanilla", setting, batch=batch), setting) as training:
        network = demo_student if setting.size == "toy" else resnet18
        ours, plain = held_step(training), plain_step(training, network, device)
        for _ in range(WARM_UPS):
            plain()
        window_ms = setting.pick(400, 100, 1)
        ours_rate, plain_rate = (images_rate(device, step, batch, window_ms) for step in (ours, plain))
        pairs = alternate("ours / plain", "images/s", ours_rate, plain_rate, setting.pick(5, 3, 2))
    row = pairs.to_json()
    text = f"ours {row['median_a']:,.0f} images/s, plain {row['median_b']:,.0f}: {pairs.ratio:.3f} of it"
    return measured(text, **row)


def plain_step(training: Training, model: Callable[..., nn.Module], device: torch.device) -> Callable[[], None]:
    """The same model under autocast, cross-entropy, fused SGD; pixels normalised as timm's loader does it."""
    network = model(num_classes=training.config.running.synthetic_classes)
    network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    fused = device.type == "cuda"
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=fused)
    views = Views()
    mean, std = (torch.tensor(row, device=device).view(1, 3, 1, 1) * 255 for row in (views.mean, views.std))
    batches = itertools.cycle([training.next()[0] for _ in range(2)])

    def step() -> None:
        batch = next(batches)
        images = batch.images.permute(0, 3, 1, 2).float().sub_(mean).div_(std)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fused):
            loss = cross_entropy(network(images), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _dali(setting: Setting) -> Outcome:
    if resolve_backend("dali").missing() is not None:
        return unproven("DALI is not installed")
    from pipeline.data.backends.dali import native_random_crop  # optional package

    _, options = decoding_of("dali-mixed", BackendOptions(224, setting.threads, max_batch=64, device=setting.device))
    with closing(native_random_crop(image_index(setting), options, seed=0)) as batches:
        rate = window_rate(batches, skipped=20, counted=setting.pick(200, 40, 4))
    return measured(f"{rate:,.0f} images/s", images_per_s=rate)
