"""May a run use stored rows whose pixels were made in another way? Measured by the teacher itself, on a few rows."""

import numpy as np
import torch

from pipeline.config import RunConfig
from pipeline.core.errors import ConfigError, RefluxError, StoreError
from pipeline.data.backend import BackendOptions, DaliDecoding, Source, open_backend
from pipeline.data.loader import Loader, Request
from pipeline.data.order import MicroBatch
from pipeline.devices.streams import to_device
from pipeline.devices.world import World
from pipeline.engine.networks import preparation, stored_teacher
from pipeline.engine.teacher_choice import StoredOutputs
from pipeline.kernels.kl import kl
from pipeline.models.spec import parse_spec
from pipeline.models.weights import fingerprint_of_weights
from pipeline.models.zoo import build_network
from pipeline.teachers.online import OnlineTeacher
from pipeline.teachers.stored import read_rows
from stores.manifest import Manifest

# Nats of mean KL that no student can tell from nothing: a trained one is 1e-2 and more away from its teacher, a
# thousand times as much. Measured figures alone would not do: in float32 on a CPU the noise floor is 0, and the better
# a codec, the less another backend could differ.
NEGLIGIBLE = 1e-5
_NUM_ROWS = 64
_FLOORS = 10.0


def check_pixels(config: RunConfig, stored: StoredOutputs, source: Source, loader: Loader, world: World) -> None:
    """Compare pixel recipes; where they differ, measure what the difference does to the teacher's outputs.

    The same recipe passes. Another one passes while the mean KL(stored rows || teacher on this run's pixels) stays
    within --max-divergence, by default `allowed_divergence`. A collective call; the main rank measures.

    Raises:
        StoreError: the divergence is too great; the message has the figure.
        ConfigError: it cannot be measured here, since the store's teacher cannot be run.
    """
    recorded, own = stored.reader.manifest.pixel_recipe, loader.backend.pixel_recipe()
    limit = _limit(config, stored)
    if recorded == own or limit == float("inf") or not stored.views:
        return

    def measure() -> None:
        divergence = _divergence(config, stored, source, loader, world)
        sides = f"  store: {recorded}\n  run:   {own}"
        if not divergence <= limit:  # nor NaN
            raise StoreError(
                "the store's pixels were made in another way, and the teacher tells them apart:"
                f"\nmean KL {divergence:.3g} over {_NUM_ROWS} rows, {limit:.3g} is allowed.\n{sides}\n"
                f"Train with the store's backend, or accept the difference: --max-divergence {2 * divergence:.0e}"
            )
        print(
            f"pixels are made in another way than the store's: mean KL {divergence:.3g}, allowed {limit:.3g}\n{sides}"
        )

    world.main_first(measure)


def allowed_divergence(manifest: Manifest, codecs: list[str]) -> float:
    """Mean KL, in nats, up to which pixels made in another way count as the store's own.

    Ten times what precompute measured of another batch size and of the worst of the `codecs`, and never less than
    NEGLIGIBLE.
    """
    measured = manifest.measured
    rounding = max(float(measured.get("codecs", {}).get(name, {}).get("kl", 0.0)) for name in codecs)
    floor = float(measured.get("noise_floor", {}).get("kl", 0.0))
    return max(NEGLIGIBLE, _FLOORS * (floor + rounding))


def _limit(config: RunConfig, stored: StoredOutputs) -> float:
    if config.teaching.max_divergence is not None:
        return config.teaching.max_divergence
    read = [codec.id for codec in (stored.logits, stored.embedding) if codec is not None]
    return allowed_divergence(stored.reader.manifest, read)


def _divergence(config: RunConfig, stored: StoredOutputs, source: Source, loader: Loader, world: World) -> float:
    teacher = stored.reader.manifest.teacher
    online = _teacher(config, stored, len(source.index.classes), world)
    request = _request(loader, min(stored.views))
    options = BackendOptions(
        int(teacher["resolution"]),
        world.threads,
        _NUM_ROWS,
        str(world.device),
        dali=DaliDecoding.of(config.running),
    )
    backend = open_backend(config.running.backend, source, options)
    try:
        images = to_device(next(iter(backend.stream([request.rows]))).images, world.device)
    finally:
        backend.close()
    prepare = preparation(tuple(teacher["mean"]), tuple(teacher["std"]), world.device, torch.channels_last)
    decoder = stored_teacher(stored, world.device)
    fetched = read_rows(stored.reader, stored.fields, request, pinned=False)
    rows = {name: column.to(world.device) for name, column in fetched.items()}
    recomputed = online.outputs(prepare(images)).logits
    return float(kl(recomputed.double(), decoder.decode(rows).logits.double(), 1.0))


def _request(loader: Loader, view: int) -> Request:
    """Rows spread evenly over the data set, of one view."""
    ids = loader.index.ids
    count = min(_NUM_ROWS, len(ids))
    spread = ids[np.arange(count) * len(ids) // count]
    return loader.request(MicroBatch(step=0, epoch=0, index=0, ids=spread), view=view)


def _teacher(config: RunConfig, stored: StoredOutputs, num_classes: int, world: World) -> OnlineTeacher:
    recorded = stored.reader.manifest.teacher
    try:
        network = build_network(
            parse_spec(recorded["name"]),
            num_classes=num_classes,
            seed=int(recorded.get("seed", 0)),
            role="teacher",
        )
    except RefluxError as error:
        raise _cannot_measure(config, str(error)) from error
    if fingerprint_of_weights(network.model) != recorded["weights_sha256"]:
        raise _cannot_measure(config, f"{recorded['name']} has other weights here than in the store")
    return OnlineTeacher(
        network,
        device=world.device,
        precision=recorded["precision"],
        memory_format=torch.channels_last,
        compiled=False,
    )


def _cannot_measure(config: RunConfig, reason: str) -> ConfigError:
    return ConfigError(
        f"the store's pixels were made in another way than --backend {config.running.backend} makes them, and what that"
        f" changes\ncannot be measured, since its teacher cannot be run here: {reason}\n"
        "Train with the store's backend, or accept the difference unmeasured with --max-divergence inf."
    )
