"""What is measured before a store is begun: the teacher's accuracy, its noise floor, what each codec costs."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.command import progress
from pipeline.core.errors import ConfigError
from pipeline.data.backend import BackendOptions, DaliDecoding, open_backend
from pipeline.data.datasets import open_val
from pipeline.data.index import check_same_classes
from pipeline.data.loader import Loader
from pipeline.data.plan import Plan
from pipeline.data.policy import get_policy
from pipeline.devices.world import AgreedFlag
from pipeline.engine.evaluate import Accuracy, evaluate
from pipeline.models.outputs import Outputs
from precompute.config import PrecomputeConfig
from precompute.requests import view_request
from precompute.setting import Setting
from stores.codec import Codec
from stores.outputs import as_logits
from stores.records import CodecCost, NoiseFloor

TOLERATED_POINTS = 0.5
_VAL_POLICY = "imagenet_eval"


def why_no_val(config: PrecomputeConfig) -> str | None:
    """Why the teacher's accuracy cannot be measured; None where it can."""
    if config.reading.backend == "synthetic":
        return "synthetic images show nothing"
    images = config.images
    if images.val_dir is None and images.val_beton is None and not (images.data and (images.data / "val").is_dir()):
        return "no validation images (--val-dir, or DATA/val)"
    return None


def measure_top1(setting: Setting, is_stopped: Callable[[], bool]) -> Accuracy | None:
    """The teacher on the validation images, over all ranks; None if it was stopped (on all ranks alike)."""
    config, world = setting.config, setting.world
    source, name = open_val(config.files(setting.folder), config.reading, world)
    check_same_classes(setting.source.index, source.index)
    options = BackendOptions(
        config.pixels.resolution,
        world.threads,
        config.batch,
        str(world.device),
        config.reading.on_bad_image,
        dali=DaliDecoding.of(config.reading),
    )
    plan, agreed = Plan(get_policy(_VAL_POLICY), plan_seed=0), AgreedFlag(world)
    share = world.size * config.batch
    with (
        closing(open_backend(name, source, options)) as backend,
        closing(Loader(source.index, plan, backend, world.device)) as loader,
        closing(loader.evaluation(config.batch, rank=world.rank, world_size=world.size)) as batches,
        progress("teacher's top-1", "images") as show,
    ):

        def on_batch(done: int) -> bool:
            if world.is_main and done:
                show(min(done * share, len(source.index)), len(source.index))
            return agreed.update(is_stopped())

        num_rounds = -(-len(source.index) // share)
        accuracy = evaluate(
            setting.teacher.of_pixels,
            batches,
            prepare=lambda images: images,
            world=world,
            on_batch=on_batch,
            num_rounds=num_rounds,
        )
        agreed.drain()
    return accuracy


def check_top1(config: PrecomputeConfig, top1: float | None) -> None:
    """Compare with --expect-top1.

    Raises:
        ConfigError: further off than weights and preprocessing that belong together can be, or not measured.
    """
    expected = config.expect_top1
    if expected is None:
        return
    if top1 is None:
        raise ConfigError(f"--expect-top1 {expected} cannot be checked: {why_no_val(config)}")
    if abs(top1 - expected) > TOLERATED_POINTS:
        raise ConfigError(
            f"the teacher's top-1 must be within {TOLERATED_POINTS} points of --expect-top1.\n"
            f"  expected: {expected:.2f} %\n  measured: {top1:.2f} %\n"
            "Wrong normalisation (--mean, --std), --resolution, or the order of the classes?"
        )


def probe_outputs(setting: Setting) -> tuple[Tensor, Outputs]:
    """Pixels and teacher outputs of a batch of samples spread over the data set, in the first view."""
    index, config = setting.source.index, setting.config
    count = min(config.batch, len(index))
    ids = index.ids[np.arange(count) * len(index) // count]
    request = view_request((config.all_views[0],), ids, setting.loader, step=0, first=0)
    with closing(setting.loader.load(iter([request]))) as batches:
        images = next(batches).images
    return images, setting.teacher.of_pixels(images)


def check_head(setting: Setting, outputs: Outputs) -> None:
    """Rebuild logits from the kept embedding, and compare them with the teacher's own.

    Raises:
        ConfigError: they differ by more than the codec's rounding explains.
    """
    weight, bias = (part.numpy() for part in setting.teacher.head())
    assert outputs.embedding is not None
    embedding, logits = outputs.embedding.cpu().numpy(), outputs.logits.cpu().numpy()
    float32_steps = 1e-5 * (np.abs(embedding) @ np.abs(weight).T + np.abs(bias) + 1)
    for codec in setting.codecs:
        if codec.source == "embedding":
            rebuilt = as_logits(codec, codec.decode(codec.encode(embedding)), (weight, bias))
            excess = np.abs(rebuilt - logits) - codec.bound(embedding) @ np.abs(weight).T - float32_steps
            if excess.max() > 0:
                raise ConfigError(
                    f"logits rebuilt from {codec.id} must be those of the teacher, and for {setting.config.teacher}"
                    f" they are off by {np.abs(rebuilt - logits).max():.3g}:\nits head is not W f + b of the embedding."
                    " Keep logits instead: --keep dense_f16"
                )


def noise_floor(setting: Setting, images: Tensor, outputs: Outputs) -> NoiseFloor:
    """What another batch size changes on this machine: mean and greatest KL (nats), greatest logit difference."""
    batch = setting.config.batch
    other = (batch + 1) // 2 if batch > 1 else 2
    parts = [setting.teacher.of_pixels(part, batch=other).logits for part in images.split(other)]
    return NoiseFloor(batches=(batch, other), rows=len(images), **_difference(outputs.logits, torch.cat(parts)))


def codec_costs(setting: Setting, outputs: Outputs) -> dict[str, CodecCost]:
    """What each codec changes in the probe: the same figures, and bytes per row."""
    logits = outputs.logits.cpu()
    return {
        codec.id: CodecCost(row_bytes=codec.row_bytes, **_difference(logits, _decoded(setting, codec, outputs)))
        for codec in setting.codecs
    }


def _decoded(setting: Setting, codec: Codec, outputs: Outputs) -> Tensor:
    if codec.source == "logits":
        return torch.from_numpy(codec.decode(codec.encode(outputs.logits.cpu().numpy())))
    assert outputs.embedding is not None
    weight, bias = setting.teacher.head()
    return torch.from_numpy(codec.decode(codec.encode(outputs.embedding.cpu().numpy()))) @ weight.T + bias


def _difference(logits_BC: Tensor, other_BC: Tensor) -> dict[str, Any]:
    p, q = (torch.log_softmax(value.double(), dim=1) for value in (logits_BC, other_BC))
    kl = (p.exp() * (p - q)).sum(dim=1).clamp(min=0)
    difference = (logits_BC - other_BC).abs().max()
    return {"kl": float(kl.mean()), "kl_max": float(kl.max()), "max_abs_logit": float(difference)}
