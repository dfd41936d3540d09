"""Everything a job works with, opened and checked before anything is computed: data, teacher, codecs, manifest."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pipeline.core.command import Lines, said_once
from pipeline.core.errors import ConfigError, StoreError
from pipeline.data.backend import BackendOptions, DaliDecoding, Source, check_backend
from pipeline.data.dali_decoder import as_begun, check_decoder_is_used, choose_decoder, is_dali
from pipeline.data.datasets import open_train
from pipeline.data.loader import Loader
from pipeline.data.plan import PLAN_VERSION, Plan
from pipeline.data.policy import Policy, get_policy
from pipeline.devices.numerics import fix_numerics, teacher_precision
from pipeline.devices.world import World
from pipeline.models.network import Network
from pipeline.models.spec import resolve_model
from pipeline.teachers.rebuild import WEIGHTS_SEED, build_teacher, run_as_recorded
from pipeline.teachers.recompute import recipe_of
from pipeline.teachers.runner import TeacherRunner
from precompute.config import PrecomputeConfig
from stores.codec import Codec
from stores.codec_registry import parse_codecs
from stores.index_file import check_same_store, read_manifest
from stores.layout import STORE_FILE, VIEWS_FOLDER
from stores.manifest import Manifest
from stores.records import TeacherRecord

_ANY_WIDTH = 1 << 30


@dataclass(frozen=True)
class Setting:
    """What a rank works with.

    Attributes:
        config: the job.
        world: the ranks.
        folder: where the job writes besides the store's own files: its state, indexes that had to be made.
        source: the images.
        loader: their views, on the device.
        teacher: pixels to outputs.
        codecs: what is kept of them.
        manifest: the store's; until the store exists, a draft without measurements.
    """

    config: PrecomputeConfig
    world: World
    folder: Path
    source: Source
    loader: Loader
    teacher: TeacherRunner
    codecs: tuple[Codec, ...]
    manifest: Manifest

    @property
    def row_bytes(self) -> int:
        """Bytes of a row without label and checksums."""
        return sum(codec.row_bytes for codec in self.codecs)

    @property
    def keeps_embedding(self) -> bool:
        """Whether logits may have to be rebuilt from the store."""
        return any(codec.source == "embedding" for codec in self.codecs)

    def say(self, text: str) -> None:
        """One line for a person, from the main rank."""
        Lines(enabled=self.world.is_main).say(text)


def check_names(config: PrecomputeConfig) -> Policy:
    """Refuse unknown models, weights, policies, backends and codecs before any data are looked at.

    Returns:
        The policy of the views.

    Raises:
        ConfigError: with what is known.
    """
    resolve_model(config.teacher, role="teacher")
    policy = get_policy(config.pixels.policy)
    check_backend(config.reading.backend, has_beton=config.images.beton is not None)
    _check_keep(config.keep)
    return policy


@contextmanager
def open_setting(config: PrecomputeConfig, policy: Policy, world: World, folder: Path) -> Iterator[Setting]:
    """Open data and teacher, and compare with the store where there is one; closed at the end of the block.

    Raises:
        ConfigError: names, values, weights.
        DataError: folders, files, indexes.
        StoreError: the store is one of other data, views or teacher; both values are shown.
    """
    fix_numerics(world.device)
    config = _as_begun(config, world)
    source, kind = open_train(config.files(folder), config.reading, world)
    with said_once():
        if len(source.index) != source.index.num_parent:
            raise ConfigError("a store holds all samples of a data set: give the whole index, not a subset's")
        network, weights_sha256 = build_teacher(config.teacher, num_classes=len(source.index.classes))
        codecs = _parse_codecs(config.keep, num_classes=network.num_classes, embedding_dim=network.embedding_dim)
    record = _record(config, network, weights_sha256, world)
    check_decoder_is_used(config.reading, kind)
    if is_dali(kind):
        decoder = choose_decoder(config.reading, source.index, world)
        config = replace(config, reading=replace(config.reading, dali_decoder=decoder))
    backend = kind(source, _backend_options(config, world))
    try:
        plan = Plan(policy, config.pixels.plan_seed)
        loader = Loader(source.index, plan, backend, world.device)
        manifest = _checked(config, _draft(config, world, loader, codecs, record))
        teacher = run_as_recorded(network, record, world.device)
        yield Setting(config, world, folder, source, loader, teacher, codecs, manifest)
    finally:
        backend.close()


def describe_software(world: World) -> dict[str, Any]:
    """What decides the low bits, for the record."""
    on_cuda = world.device.type == "cuda"
    return {
        "reflux": _own_version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if on_cuda else None,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,
        "device": torch.cuda.get_device_name(world.device) if on_cuda else platform.machine(),
    }


def _own_version() -> str | None:
    """None in a checkout that was not installed, which runs all the same."""
    try:
        return version("reflux")
    except PackageNotFoundError:
        return None


def _backend_options(config: PrecomputeConfig, world: World) -> BackendOptions:
    return BackendOptions(
        resolution=config.pixels.resolution,
        num_threads=world.threads,
        max_batch=config.batch * config.views_per_decode,
        device=str(world.device),
        on_bad_image=config.reading.on_bad_image,
        dali=DaliDecoding.of(config.reading),
        prefetch=3 if config.views_per_decode == 1 else 1,  # several views make one request large enough for all cores
    )


def _check_keep(keep: str) -> None:
    """The codecs before the number of classes is known."""
    for word in keep.split(","):
        name, _, number = word.strip().partition(":")
        if name == "topk" and number.isdecimal() and not 1 <= int(number) < _ANY_WIDTH:
            raise ConfigError(f"--keep: k must be 1 or more, and below the number of classes; got '{word.strip()}'")
    _parse_codecs(keep, num_classes=_ANY_WIDTH, embedding_dim=_ANY_WIDTH)


def _parse_codecs(keep: str, *, num_classes: int, embedding_dim: int) -> tuple[Codec, ...]:
    try:
        return parse_codecs(keep, num_classes=num_classes, embedding_dim=embedding_dim)
    except StoreError as error:
        raise ConfigError(f"--keep: {error}") from error


def _record(config: PrecomputeConfig, network: Network, weights_sha256: str, world: World) -> TeacherRecord:
    return TeacherRecord(
        name=config.teacher,
        weights_sha256=weights_sha256,
        seed=WEIGHTS_SEED,
        resolution=config.pixels.resolution,
        mean=config.pixels.mean,
        std=config.pixels.std,
        precision=teacher_precision(config.precision, world.device),
        batch=config.batch,
        channels_last=True,
        compile=config.compile,
        num_classes=network.num_classes,
        embedding_dim=network.embedding_dim,
    )


def _draft(
    config: PrecomputeConfig, world: World, loader: Loader, codecs: tuple[Codec, ...], teacher: TeacherRecord
) -> Manifest:
    index, plan = loader.index, loader.plan
    return Manifest(
        index_fingerprint=index.fingerprint,
        num_rows=len(index),
        classes=index.classes,
        policy=plan.policy.to_json(),
        plan_seed=plan.plan_seed,
        plan_version=PLAN_VERSION,
        pixel_recipe=recipe_of(loader.backend),
        teacher=teacher,
        codecs=tuple(codec.to_json() for codec in codecs),
        shard_rows=config.shard_rows,
        made_with=describe_software(world),
    )


def _as_begun(config: PrecomputeConfig, world: World) -> PrecomputeConfig:
    there = _manifest_in(config.store)
    decoding = None if there is None else DaliDecoding.from_recipe(there.pixel_recipe)
    if decoding is None or config.images.beton is not None or world.device.type != "cuda":
        return config
    return replace(config, reading=as_begun(config.reading, reads_by_dali=True, decoder=decoding.decoder))


def _manifest_in(store: Path | None) -> Manifest | None:
    if store is None or not any((store / name).exists() for name in (STORE_FILE, VIEWS_FOLDER)):
        return None
    try:
        return read_manifest(store)
    except StoreError:
        if (store / STORE_FILE).exists():
            raise
        return None  # killed before its first file


def _checked(config: PrecomputeConfig, draft: Manifest) -> Manifest:
    """The manifest that stands in the store, or the draft where there is no store yet."""
    there = _manifest_in(config.store)
    if there is None or config.store is None:
        return draft
    check_same_store(config.store, there, _alike(draft, there))
    return there


def _alike(draft: Manifest, there: Manifest) -> Manifest:
    """The draft with what may differ: the same weights under another name, such as a file that was moved; and another
    decoder, of which `going_on` measures that it makes the same pixels, before a row is added.
    """
    teacher, pixels = draft.teacher, draft.pixel_recipe
    if teacher.weights_sha256 == there.teacher.weights_sha256:
        teacher = replace(teacher, name=there.teacher.name)
    if pixels.same_but_decoder(there.pixel_recipe):
        pixels = there.pixel_recipe
    return replace(draft, teacher=teacher, pixel_recipe=pixels)
