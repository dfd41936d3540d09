"""Before the first shard: measure the teacher, begin the store or join it."""

from dataclasses import asdict, replace
from typing import Any

from pipeline.core.errors import StoreError
from pipeline.jobs.signals import StopRequest
from precompute.config import check_store_named
from precompute.probe import (
    check_head,
    check_top1,
    codec_costs,
    measure_top1,
    noise_floor,
    probe_outputs,
    why_no_val,
)
from precompute.setting import Setting
from stores.index_file import create_store
from stores.manifest import Manifest
from stores.records import Difference, Measured, TeacherAccuracy


def begin_store(setting: Setting, stop: StopRequest) -> tuple[Setting, Measured] | None:
    """Measure what the store does not have yet, and begin it where it is new. A collective call.

    Returns:
        The setting with the manifest that stands in the store, and all that is measured of it by now; None when a
        signal came first.

    Raises:
        ConfigError: the teacher is not what --expect-top1 says, or its head is not linear.
        StoreError: the store is another one, or cannot be written.
    """
    world, measured = setting.world, setting.manifest.measured
    if measured.top1 is None:
        reason = why_no_val(setting.config)
        if reason is None:
            accuracy = measure_top1(setting, lambda: stop.raised)
            if accuracy is None:
                return None
            measured = measured.having(top1=TeacherAccuracy(**asdict(accuracy)))
        else:
            setting.say(f"the teacher's top-1 is not measured: {reason}")
    _say_top1(setting, measured)
    check_top1(setting.config, measured.percent)

    def begin() -> tuple[str, dict[str, Any]]:
        probed = _probe(setting, measured)
        return _create(setting, probed).to_text(), probed.to_json()

    text, probed = world.main_first(begin)
    manifest = Manifest.from_text(text, "the store's manifest")
    return replace(setting, manifest=manifest), Measured.from_json(probed)


def _probe(setting: Setting, measured: Measured) -> Measured:
    if measured.noise_floor is not None and not setting.keeps_embedding:
        return measured
    images, outputs = probe_outputs(setting)
    try:
        check_head(setting, outputs)
        if measured.noise_floor is not None:
            return measured
        floor, costs = noise_floor(setting, images, outputs), codec_costs(setting, outputs)
    except StoreError as error:
        raise StoreError(f"the outputs of {setting.config.teacher} cannot be kept: {error}") from error
    lines = [f"noise floor, batches of {floor.batches[0]} and {floor.batches[1]}: {_figures(floor)}"]
    lines += [f"{name}: {cost.row_bytes:,} bytes a row, {_figures(cost)}" for name, cost in costs.items()]
    setting.say("\n".join(lines))
    return measured.having(noise_floor=floor, codecs=measured.codecs or costs)


def _create(setting: Setting, measured: Measured) -> Manifest:
    affine = setting.teacher.head() if setting.keeps_embedding else None
    head = None if affine is None else (affine[0].numpy(), affine[1].numpy())
    return create_store(check_store_named(setting.config), replace(setting.manifest, measured=measured), head)


def _say_top1(setting: Setting, measured: Measured) -> None:
    top1 = measured.top1
    if top1 is not None:
        setting.say(f"teacher's top-1 {top1.top1:.2f} %, top-5 {top1.top5:.2f} %, {top1.num_samples:,} val images")


def _figures(cost: Difference) -> str:
    return f"mean KL {cost.kl:.3g}, greatest logit difference {cost.max_abs_logit:.3g}"
