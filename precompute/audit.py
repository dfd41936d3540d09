"""Compute random rows of a store again, from images and teacher, and compare: what checksums cannot say.

On the software and hardware that made the store nothing but the codec's rounding is left between them. Foreign pixels
move every logit, those of unlikely classes most: there the divergence says whether a row is the teacher's, within what
training allows such pixels.
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
from pipeline.data.backend import Backend, BackendOptions, DaliDecoding, Source, resolve_backend
from pipeline.data.dali_decoder import choose_decoder, is_dali
from pipeline.data.datasets import open_train
from pipeline.data.index import Index
from pipeline.data.order import permutation
from pipeline.data.plan import PLAN_VERSION
from pipeline.devices.numerics import fix_numerics
from pipeline.devices.world import World, start_world
from pipeline.models.spec import resolve_model
from pipeline.teachers.rebuild import check_same, rebuild
from pipeline.teachers.recompute import allowed_divergence, recipe_of, recompute
from pipeline.teachers.runner import TeacherRunner
from precompute.comparison import (
    ONE_OF_MANY,
    CodecFigures,
    Rows,
    bad_rows,
    beyond_bounds,
    compare_logits,
    join_figures,
    on_foreign_pixels,
    read_stored,
)
from precompute.config import AuditConfig
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
        lines = [f"{self.num_rows:,} rows computed again: labels and plan compared exactly, logits {within}"]
        if not self.allowed_kl:
            return lines + [
                f"  {one.codec}: nearest to its bound: off by {one.max_abs:.3g}, allowed {one.allowed:.3g};"
                f" KL mean {one.kl_mean:.3g}, greatest {one.kl_max:.3g}"
                for one in self.figures
            ]
        return lines + [
            f"  {one.codec}: KL mean {one.kl_mean:.3g}, allowed {allowed:.3g};"
            f" greatest {one.kl_max:.3g}, allowed {ONE_OF_MANY * allowed:.3g}"
            for one, allowed in zip(self.figures, self.allowed_kl, strict=True)
        ]


@dataclass(frozen=True)
class Audit:
    """A store, the images and the teacher it was made of, opened and found to belong together.

    Attributes:
        reader: the store.
        rows: what to compute again.
        index: the data set.
        backend: what makes pixels here.
        teacher: the store's.
    """

    reader: StoreReader
    rows: Rows
    index: Index
    backend: Backend
    teacher: TeacherRunner

    def compare(self, on_progress: OnProgress) -> AuditReport:
        """Compute the rows again and compare label, plan_crc and logits with what is stored.

        A logit may differ by the codec's own bound and ten times the noise floor that precompute measured. On pixels
        made in another way, rows may diverge on average as far as training allows, one of them a hundred times as far.

        Raises:
            StoreError: the store cannot be read.
        """
        reader, rows, here = self.reader, self.rows, recipe_of(self.backend)
        manifest, codecs, head = reader.manifest, reader.codecs, read_head(reader.path)
        is_foreign = here != manifest.pixel_recipe
        limits = tuple(allowed_divergence(manifest, [codec.id]) for codec in codecs) if is_foreign else ()
        keys, parts, done = list[list[np.ndarray]](), list[list[CodecFigures]](), 0
        for now in recompute(manifest, rows, self.index, self.backend, self.teacher):
            stored = read_stored(reader, (now.views, now.ids))
            keys.append([stored["label"] != now.labels, stored["plan_crc"] != now.plan_crcs])
            parts.append([compare_logits(manifest, codec, head, stored, now.logits) for codec in codecs])
            done += len(now.ids)
            on_progress(done, len(rows[1]))
        labels, plans = (np.concatenate(column) for column in zip(*keys, strict=True))
        problems = bad_rows(reader, rows, labels, "the label is not the data set's")
        problems += bad_rows(reader, rows, plans, "the view is not the plan's (plan_crc)")
        figures = tuple(join_figures(column) for column in zip(*parts, strict=True))
        if is_foreign:
            problems += on_foreign_pixels(reader, here, rows, figures, limits)
        else:
            problems += [problem for one in figures for problem in beyond_bounds(reader, rows, one)]
        return AuditReport(done, figures, problems, limits)


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
    check_same("version of the plan", reader.manifest.plan_version, PLAN_VERSION)
    rows = draw_rows(reader, num_rows=settings.rows, seed=settings.seed)
    backend = _backend_name(settings, reader.manifest)
    world = start_world(settings.device, settings.threads)
    fix_numerics(world.device)
    with tempfile.TemporaryDirectory() as folder:
        teacher = rebuild(reader.manifest, world.device, name=settings.teacher)
        source, kind = open_train(*_data(settings, backend, reader.manifest, Path(folder)), world)
        check_same("data set", reader.manifest.index_fingerprint, source.index.fingerprint)
        decoding = _decoding(settings, reader.manifest, source.index, world) if is_dali(kind) else DaliDecoding()
        with closing(_open_backend(settings, kind, source, reader.manifest, world, decoding)) as opened:
            yield Audit(reader, rows, source.index, opened, teacher)


def _check_settings(settings: AuditConfig) -> None:
    check_numbers(settings)
    resolve_model(settings.teacher, role="teacher")
    reason = None if settings.backend == "auto" else resolve_backend(settings.backend).missing()
    if reason is not None:
        raise ConfigError(reason)


def _backend_name(settings: AuditConfig, manifest: Manifest) -> str:
    """What makes pixels: the named backend, or the one that made the store's."""
    if settings.backend != "auto":
        return settings.backend
    recorded = str(manifest.pixel_recipe.backend)
    reason = resolve_backend(recorded).missing()
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
    recorded = DaliDecoding.from_recipe(manifest.pixel_recipe) or DaliDecoding()
    decoder = settings.dali_decoder
    if decoder == "auto" and world.device.type == "cuda":
        decoder = recorded.decoder
    reading = Reading(dali_decoder=decoder, dali_hw_decoder_load=recorded.hw_load)
    return DaliDecoding.of(replace(reading, dali_decoder=choose_decoder(reading, index, world)))


def _open_backend(
    settings: AuditConfig, kind: type[Backend], source: Source, manifest: Manifest, world: World, decoding: DaliDecoding
) -> Backend:
    teacher = manifest.teacher
    options = BackendOptions(teacher.resolution, world.threads, teacher.batch, str(world.device), dali=decoding)
    backend = kind(source, options)
    here = recipe_of(backend)
    if settings.backend == "auto" and not here.same_but_decoder(manifest.pixel_recipe):
        backend.close()
        raise StoreError(
            "the store's pixels were made in another way than this machine's. Name the --backend to compare all the"
            f" same.\n  store: {manifest.pixel_recipe}\n  here:  {here}"
        )
    return backend


def draw_rows(reader: StoreReader, *, num_rows: int, seed: int) -> Rows:
    """Random rows, as many of each complete view, in the order of the store."""
    views, per_view = reader.complete_views(), reader.manifest.num_rows
    if not views:
        raise StoreError(f"{reader.path} has no complete view yet: let the store's precompute command end first")
    drawn = permutation(len(views), seed, 0)
    shares = np.diff(np.linspace(0, num_rows, len(views) + 1).astype(np.int64))
    counts = {views[place]: min(int(share), per_view) for place, share in zip(drawn, shares, strict=True)}
    ids = [np.sort(permutation(per_view, seed, view)[: counts[view]]) for view in views]
    return np.repeat(views, [len(part) for part in ids]).astype(np.int64), np.concatenate(ids)
