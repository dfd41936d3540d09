"""Where a run's teacher outputs come from: the store, the network, or view by view; decided before any work starts."""

from dataclasses import dataclass
from typing import Literal

from pipeline.config import RunConfig
from pipeline.core.command import Lines
from pipeline.core.errors import ConfigError, StoreError
from pipeline.data.index import Index
from pipeline.data.plan import PLAN_VERSION
from pipeline.data.policy import Policy
from pipeline.devices.world import World
from pipeline.losses._shared.record import Loss
from stores.manifest import Manifest
from stores.outputs import StoreOutputs, kept, pick_outputs
from stores.reader import StoreReader, open_store
from stores.show import as_ranges


@dataclass(frozen=True)
class StoredViews(StoreOutputs):
    """What a run reads from its store.

    Attributes:
        views: the views that it reads.
    """

    views: frozenset[int]


@dataclass(frozen=True)
class TeacherChoice:
    """The decision.

    Attributes:
        source: "stored", "online" or "hybrid"; "none" for a method that learns from labels alone.
        stored: what is read from the store; None for "online" and "none".
        teacher: the teacher's name: the store's own where nothing runs online.
        num_views: views in rotation; None for a new one every epoch.
        notes: lines for the person who started the run.
        warnings: those that should not be overlooked.
    """

    source: Literal["none", "stored", "online", "hybrid"]
    stored: StoredViews | None
    teacher: str | None
    num_views: int | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def store_fingerprint(self) -> str | None:
        """Of the store that is read."""
        return None if self.stored is None else self.stored.reader.manifest.fingerprint()


def choose_teacher(
    config: RunConfig, loss: Loss, policy: Policy, saved: RunConfig | None, index: Index, world: World
) -> TeacherChoice:
    """Open the store where one is given, check that it is of these views, decide, and say at once what was decided.

    The main rank says it here, before any network is built: where building fails, this is what explains it.

    Args:
        config: from the command line.
        loss: of the method.
        policy: of the training views.
        saved: the run's own, where it is continued: source and number of views stay what they were.
        index: the training data.
        world: the ranks; all decide alike, the main rank reads the shards' headers.

    Raises:
        StoreError: the store is of other data, views or format; both values are shown.
        ConfigError: `stored` or `hybrid` asked for and not possible.
    """
    choice = _choose(config, loss, policy, saved, index, world)
    lines = Lines(enabled=world.is_main)
    for note in choice.notes:
        lines.say(note)
    for warning in choice.warnings:
        lines.warn(warning)
    return choice


def _choose(
    config: RunConfig, loss: Loss, policy: Policy, saved: RunConfig | None, index: Index, world: World
) -> TeacherChoice:
    num_views = config.views.num_views
    if saved is not None and num_views is None:
        num_views = saved.views.num_views
    if not loss.needs.teacher:
        return TeacherChoice("none", None, None, num_views)
    asked = config.teaching.teacher_source
    if asked == "auto" and saved is not None:
        asked = saved.teaching.teacher_source
    if config.files.store is None or asked == "online":
        return TeacherChoice("online", None, config.teacher, num_views, _unread(config))
    reader = _open(config)
    _check_same_views(reader.manifest, policy, config.views.plan_seed, index)
    complete = world.main_first(reader.complete_views)  # a store may grow meanwhile
    picked = pick_outputs(reader, loss.needs.teacher, loss.refuses_topk)
    lacking = picked if isinstance(picked, str) else _lacking_views(reader, complete, num_views, asked)
    if lacking is not None:
        if asked == "auto":
            return TeacherChoice("online", None, config.teacher, num_views, (), _fallback(config, reader, lacking))
        raise ConfigError(f"--teacher-source {asked} is not possible with {reader.path}: {lacking}")
    assert not isinstance(picked, str)
    return _from_store(config, picked, complete, num_views, asked, world)


def _unread(config: RunConfig) -> tuple[str, ...]:
    """The line of a store that was given to a run whose teacher is online whatever the store holds."""
    if config.files.store is None:
        return ()
    asked = config.teaching.teacher_source == "online"
    reason = "--teacher-source online" if asked else "this run began with its teacher online"
    return (f"--store {config.files.store} is not read ({reason}): the teacher {config.teacher} runs on every batch",)


def _fallback(config: RunConfig, reader: StoreReader, lacking: str) -> tuple[str, ...]:
    name = reader.manifest.teacher.name
    unread = f"the store {reader.path} is not read, and the teacher {config.teacher} runs online: {lacking}"
    if config.teacher == name:
        return (unread,)
    return (
        unread,
        f"the online teacher is not the store's.\n  store:  {name}\n  online: {config.teacher}\n"
        f"Give --teacher {name} to learn from the store's network.",
    )


def _open(config: RunConfig) -> StoreReader:
    assert config.files.store is not None
    try:
        return open_store(config.files.store, io=config.teaching.store_io, check_rows=config.teaching.check_rows)
    except (StoreError, OSError) as error:
        raise StoreError(f"the store {config.files.store} cannot be opened: {error}") from error


def _check_same_views(manifest: Manifest, policy: Policy, plan_seed: int, index: Index) -> None:
    """Refuse a store whose rows belong to other images, crops or classes."""
    pairs = (
        ("data set (index fingerprint)", manifest.index_fingerprint, index.fingerprint),
        ("number of samples", manifest.num_rows, index.num_parent),
        ("classes", *_first_other_class(manifest.classes, index.classes)),
        ("policy", manifest.policy, policy.to_json()),
        ("plan seed", manifest.plan_seed, plan_seed),
        ("plan version", manifest.plan_version, PLAN_VERSION),
    )
    for name, stored, own in pairs:
        if stored != own:
            raise StoreError(
                f"the store must hold this run's views, and its {name} is another one.\n"
                f"  store: {stored}\n  run:   {own}\n"
                "Give the store of these data and this --policy and --plan-seed, or fill another with"
                " python -m precompute."
            )


def _first_other_class(stored: tuple[str, ...], own: tuple[str, ...]) -> tuple[object, object]:
    if len(stored) != len(own):
        return f"{len(stored)} classes", f"{len(own)} classes"
    different = [pair for pair in zip(stored, own, strict=True) if pair[0] != pair[1]]
    return different[0] if different else (None, None)


def _lacking_views(reader: StoreReader, complete: list[int], num_views: int | None, asked: str) -> str | None:
    """Why the views that the run needs are not all there."""
    if asked == "hybrid":
        return None
    wanted = range(num_views) if num_views is not None else range(1)
    for view in wanted:
        if view not in complete:
            missing = len(reader.missing(view))
            return (
                f"view {view} is not complete ({missing} shard(s) missing; complete: {as_ranges(complete)}).\n"
                "Go on with the same precompute command, or lower --num-views"
                " (--teacher-source hybrid runs missing views online)"
            )
    return None


def _from_store(
    config: RunConfig,
    picked: StoreOutputs,
    complete: list[int],
    num_views: int | None,
    asked: str,
    world: World,
) -> TeacherChoice:
    reader, name = picked.reader, picked.reader.manifest.teacher.name
    source: Literal["stored", "hybrid"] = "hybrid" if asked == "hybrid" else "stored"
    if source == "stored" and num_views is None:
        num_views = next(view for view in range(len(complete) + 1) if view not in set(complete))
    views = frozenset(complete if num_views is None else [view for view in complete if view < num_views])
    world.main_first(lambda: _check_headers(reader, sorted(views)))
    note = f"teacher outputs: {source}, {reader.path}, views {as_ranges(sorted(views))}, {_describe(reader)}"
    other = source == "stored" and config.teacher not in (None, name)
    warnings = (f"--teacher {config.teacher} is not run: the store's teacher is {name}",) if other else ()
    teacher = name if source == "stored" else config.teacher
    stored = StoredViews(reader, picked.logits_codec, picked.embedding_codec, picked.head, views)
    return TeacherChoice(source, stored, teacher, num_views, (note,), warnings)


def _check_headers(reader: StoreReader, views: list[int]) -> None:
    for view in views:
        reader.open_view(view)


def _describe(reader: StoreReader) -> str:
    top1, teacher = reader.manifest.measured.percent, reader.manifest.teacher
    measured = "" if top1 is None else f", top-1 {top1:.2f} %"
    return f"{teacher.name} at {teacher.resolution} px{measured}, {kept(reader)}"
