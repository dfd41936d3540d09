"""Compute random rows of a store again, from images and teacher, and compare: what checksums cannot say.

A row's bits depend on the batch size, not on what else is in the batch, so rows go through the teacher in batches of
the store's size: on the software and hardware that made the store nothing but the codec's rounding is left. Pixels of
another backend move every logit, those of unlikely classes most: there the divergence says whether a row is the
teacher's, within what training allows such pixels.
"""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.config import Files, Reading
from pipeline.core.command import Lines, OnProgress, progress
from pipeline.core.errors import ConfigError, StoreError
from pipeline.core.fields import check_numbers
from pipeline.data.backend import Backend, BackendOptions, DaliDecoding, Source, missing, open_backend
from pipeline.data.dali_decoder import choose_decoder
from pipeline.data.datasets import open_train
from pipeline.data.index import Index
from pipeline.data.order import permutation
from pipeline.data.plan import PLAN_VERSION, Plan, PlanRows
from pipeline.data.policy import from_json
from pipeline.devices.streams import to_device
from pipeline.devices.world import World, start_world
from pipeline.engine.pixel_check import allowed_divergence
from pipeline.models.spec import resolve_model
from precompute.comparison import CodecFigures, Recomputed, compare_keys, compare_logits, join_figures, read_stored
from precompute.config import AuditConfig
from precompute.other_pixels import ONE_OF_MANY, compare_diverging, in_doubt, same_but_decoder
from precompute.teacher_pass import TeacherPass, build_teacher, fix_numerics
from stores.index_file import read_head
from stores.manifest import Manifest
from stores.problems import Problem, end_with
from stores.reader import StoreReader, open_store


@dataclass(frozen=True)
class AuditReport:
    """What was compared, and what is not as it was stored.

    Attributes:
        num_rows: rows that were computed again.
        figures: one entry per codec.
        problems: rows that differ by more than is allowed; a note where pixels were made in another way.
        allowed_kl: per codec, the mean divergence that is allowed on pixels made in another way; empty on the store's
            own, where each logit has its bound.
    """

    num_rows: int
    figures: tuple[CodecFigures, ...]
    problems: list[Problem]
    allowed_kl: tuple[float, ...] = ()

    def lines(self) -> list[str]:
        """The report for people."""
        within = "by divergence, since pixels differ" if self.allowed_kl else "within their bounds"
        head = f"{self.num_rows:,} rows computed again: labels and plan compared exactly, logits {within}"
        if self.allowed_kl:
            pairs = zip(self.figures, self.allowed_kl, strict=True)
            return [head] + [
                f"  {one.codec}: KL mean {one.kl_mean:.3g}, allowed {allowed:.3g};"
                f" greatest {one.kl_max:.3g}, allowed {ONE_OF_MANY * allowed:.3g}"
                for one, allowed in pairs
            ]
        return [head] + [
            f"  {one.codec}: nearest to its bound: off by {one.max_abs:.3g}, allowed {one.allowed:.3g};"
            f" KL mean {one.kl_mean:.3g}, greatest {one.kl_max:.3g}"
            for one in self.figures
        ]


@dataclass(frozen=True)
class Audit:
    """A store, the images and the teacher it was made of, opened and found to belong together.

    Attributes:
        reader: the store.
        rows: views and sample ids to compute again, (B,) int64 each.
        index: the data set.
        backend: what makes pixels here.
        teacher: the store's.
    """

    reader: StoreReader
    rows: tuple[np.ndarray, np.ndarray]
    index: Index
    backend: Backend
    teacher: TeacherPass

    def compare(self, on_progress: OnProgress) -> AuditReport:
        """Compute the rows again and compare label, plan_crc and logits with what is stored.

        A logit may differ by the codec's own bound and ten times the noise floor that precompute measured. On pixels
        made in another way, rows may diverge on average as far as training allows, one of them a hundred times as far.

        Raises:
            StoreError: the store cannot be read.
        """
        return _compare(self.reader, self.rows, self.index, self.backend, self.teacher, on_progress)


def audit(store: Path, settings: AuditConfig) -> None:
    """Compute rows of complete views again, compare them, and say what was found.

    Raises:
        RefluxError: what `open_audit` and `compare` raise; or rows are not the teacher's.
    """
    with open_audit(store, settings) as opened, progress("compute again", "rows") as on_progress:
        report = opened.compare(on_progress)
    lines = Lines(enabled=True)
    for line in report.lines():
        lines.say(line)
    end_with(store, report.problems, lines.say, whole="as its teacher makes it, in the rows compared")


@contextmanager
def open_audit(store: Path, settings: AuditConfig) -> Iterator[Audit]:
    """Open all that computing rows again needs, and refuse what does not belong to the store; reads no rows.

    Raises:
        ConfigError: values, names, data not named, a teacher that cannot be built.
        DataError: folders, files.
        StoreError: the store is of other data, pixels or weights (both values are shown), or cannot be read.
    """
    _check_settings(settings)
    reader = open_store(store)
    _check_same("version of the plan", reader.manifest.plan_version, PLAN_VERSION)
    rows = draw_rows(reader, num_rows=settings.rows, seed=settings.seed)
    backend = _backend_name(settings, reader.manifest)
    world = start_world(settings.device, settings.threads)
    fix_numerics(world.device)
    with tempfile.TemporaryDirectory() as folder:
        teacher = _teacher(settings, reader.manifest, world)
        source, name = open_train(*_data(settings, backend, reader.manifest, Path(folder)), world)
        _check_same("data set", reader.manifest.index_fingerprint, source.index.fingerprint)
        decoding = _decoding(settings, reader.manifest, source.index, world) if name == "dali" else DaliDecoding()
        with closing(_open_backend(settings, name, source, reader.manifest, world, decoding)) as opened:
            yield Audit(reader, rows, source.index, opened, teacher)


def _check_settings(settings: AuditConfig) -> None:
    check_numbers(settings)
    resolve_model(settings.teacher, role="teacher")
    reason = None if settings.backend == "auto" else missing(settings.backend)
    if reason is not None:
        raise ConfigError(reason)


def _backend_name(settings: AuditConfig, manifest: Manifest) -> str:
    """What makes pixels: the named backend, or the one that made the store's."""
    if settings.backend != "auto":
        return settings.backend
    recorded = str(manifest.pixel_recipe.get("backend"))
    reason = missing(recorded)
    if reason is not None:
        raise ConfigError(
            f"the store's pixels were made by {recorded}. {reason}\n"
            "Or give another --backend, such as torchvision: its rows are compared by their divergence."
        )
    return recorded


def _data(settings: AuditConfig, backend: str, manifest: Manifest, folder: Path) -> tuple[Files, Reading]:
    """Where images come from; an index that has to be made goes to `folder`."""
    files = Files(out=folder, train_index=settings.index, **vars(settings.images))
    return files, Reading(backend=backend, synthetic_samples=manifest.num_rows, synthetic_classes=len(manifest.classes))


def _decoding(settings: AuditConfig, manifest: Manifest, index: Index, world: World) -> DaliDecoding:
    """How DALI decodes here: as the store's pixels were where nothing else is asked, and there is a device."""
    recorded, decoder = DaliDecoding.from_recipe(manifest.pixel_recipe) or DaliDecoding(), settings.dali_decoder
    if decoder == "auto" and world.device.type == "cuda":
        decoder = recorded.decoder
    reading = Reading(dali_decoder=decoder, dali_hw_decoder_load=recorded.hw_load)
    return DaliDecoding.of(replace(reading, dali_decoder=choose_decoder(reading, index, world)))


def _teacher(settings: AuditConfig, manifest: Manifest, world: World) -> TeacherPass:
    recorded = manifest.teacher
    network, weights_sha256 = build_teacher(settings.teacher, num_classes=len(manifest.classes))
    _check_same(f"weights of {settings.teacher}", recorded["weights_sha256"], weights_sha256)
    return TeacherPass(
        network,
        device=world.device,
        mean=tuple(recorded["mean"]),
        std=tuple(recorded["std"]),
        precision=recorded["precision"],
        batch=int(recorded["batch"]),
        compiled=bool(recorded.get("compile", False)),
    )


def _open_backend(
    settings: AuditConfig, name: str, source: Source, manifest: Manifest, world: World, decoding: DaliDecoding
) -> Backend:
    resolution, batch = (int(manifest.teacher[entry]) for entry in ("resolution", "batch"))
    options = BackendOptions(resolution, world.threads, batch, str(world.device), dali=decoding)
    backend = open_backend(name, source, options)
    if settings.backend == "auto" and not same_but_decoder(backend.pixel_recipe(), manifest.pixel_recipe):
        backend.close()
        raise StoreError(
            "the store's pixels were made in another way than this machine's. Name the --backend to compare all the"
            f" same.\n  store: {manifest.pixel_recipe}\n  here:  {backend.pixel_recipe()}"
        )
    return backend


def draw_rows(reader: StoreReader, *, num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Views and sample ids, (B,) int64 each: as many of each complete view, in the order of the store."""
    views, per_view = reader.complete_views(), reader.manifest.num_rows
    if not views:
        raise StoreError(f"{reader.path} has no complete view yet: let the store's precompute command end first")
    drawn = permutation(len(views), seed, 0)
    shares = np.diff(np.linspace(0, num_rows, len(views) + 1).astype(np.int64))
    counts = {views[place]: min(int(share), per_view) for place, share in zip(drawn, shares, strict=True)}
    ids = [np.sort(permutation(per_view, seed, view)[: counts[view]]) for view in views]
    return np.repeat(views, [len(part) for part in ids]).astype(np.int64), np.concatenate(ids)


def _compare(
    reader: StoreReader,
    rows: tuple[np.ndarray, np.ndarray],
    index: Index,
    backend: Backend,
    teacher: TeacherPass,
    on_progress: OnProgress,
) -> AuditReport:
    here = backend.pixel_recipe()
    is_other = here != reader.manifest.pixel_recipe
    allowed = tuple(allowed_divergence(reader.manifest, [codec.id]) for codec in reader.codecs) if is_other else ()
    head, figures, sizes, keys, logits = read_head(reader.path), [], [], [], []
    for now in _recompute(reader.manifest, rows, index, backend, teacher):
        stored = read_stored(reader, now.views, now.ids)
        keys += compare_keys(reader.path, reader, stored, now)
        if is_other:
            limits = zip(reader.codecs, allowed, strict=True)
            compared = [compare_diverging(reader, codec, head, stored, now, limit) for codec, limit in limits]
        else:
            compared = [compare_logits(reader.path, reader, codec, head, stored, now) for codec in reader.codecs]
        figures.append([figure for figure, _ in compared])
        logits += [problem for _, found in compared for problem in found]
        sizes.append(len(now.ids))
        on_progress(sum(sizes), len(rows[1]))
    joined = tuple(join_figures(parts, sizes) for parts in zip(*figures, strict=True))
    if is_other:
        logits = in_doubt(reader, here, joined, allowed, logits)
    return AuditReport(len(rows[1]), joined, keys + logits, allowed)


def _recompute(
    manifest: Manifest, rows: tuple[np.ndarray, np.ndarray], index: Index, backend: Backend, teacher: TeacherPass
) -> Iterator[Recomputed]:
    plan, (views, ids) = Plan(from_json(manifest.policy), manifest.plan_seed), rows
    at = index.rows_of(ids)
    planned = plan.rows(ids, views, index.widths[at], index.heights[at])
    parts = [slice(start, start + teacher.batch) for start in range(0, len(ids), teacher.batch)]
    requests: list[PlanRows] = [planned.part(part) for part in parts]
    for part, request, pixels in zip(parts, requests, backend.stream(iter(requests)), strict=True):
        logits = teacher.outputs(to_device(pixels.images, teacher.device)).logits.cpu().numpy()
        yield Recomputed(request.views, request.ids, index.labels[at[part]], request.crc(), logits)


def _check_same(what: str, stored: object, here: object) -> None:
    if stored != here:
        raise StoreError(
            f"the {what} must be the store's, to compute its rows again.\n  store: {stored}\n  here:  {here}"
        )
