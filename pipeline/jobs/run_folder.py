"""A run's folder: new, or one to go on with; never somebody else's.

RUN/config.json      the resolved configuration
RUN/state.json       running | done | failed | usage | preempted, with a message
RUN/metrics.jsonl    one line per logged step and evaluation
RUN/summary.json     the result
RUN/curves.png       losses, accuracies, learning rate
RUN/student.pt       the trained student's weights (and student_ema.pt)
RUN/best.pt          the checkpoint with the best validation top-1
RUN/checkpoints/     what a restart continues from
RUN/tensorboard/     the same metrics for TensorBoard
RUN/lock             who trains here now; empty between starts
RUN/index/           dataset indexes, where none were prepared
"""

import json
import shutil
from pathlib import Path

from pipeline.config import RunConfig, first_difference
from pipeline.core.atomic import is_temporary, publish_text
from pipeline.core.errors import CheckpointError, ConfigError
from pipeline.devices.world import World
from pipeline.jobs.lock import LOCK_FILE
from pipeline.jobs.state import STATE_FILE

_STATE_FILES = {STATE_FILE, LOCK_FILE, "index", "launch.log"}


def read_saved_config(run: Path) -> RunConfig | None:
    """The configuration of the run that lives in `run`, or None for a folder that is new.

    Raises:
        ConfigError: the folder holds something else.
        CheckpointError: its config.json cannot be read.
    """
    if run.exists() and not run.is_dir():
        raise ConfigError(f"--out {run} is a file: name a folder")
    path = run / "config.json"
    if path.exists():
        try:
            return RunConfig.from_json(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); restore it, or choose another --out") from error
    entries = [entry for entry in run.iterdir() if not is_temporary(entry)] if run.is_dir() else []
    foreign = sorted(entry.name for entry in entries if entry.name not in _STATE_FILES)
    if foreign:
        raise ConfigError(
            f"--out {run} exists and is not a run of Reflux (no config.json; it holds {foreign[:5]}).\n"
            "Nothing is overwritten: choose another folder."
        )
    return None


def is_same_run(saved: RunConfig, now: RunConfig, run: Path, world: World) -> bool:
    """Whether `now` goes on with the run; false where it begins anew what failed before its first checkpoint.

    A collective call.

    Raises:
        ConfigError: another configuration, and there are results to lose; names the first field that differs.
    """
    difference = first_difference(saved, now)
    if difference is None:
        return True
    name, before, after = difference
    if world.gather(_has_results(run))[0]:
        raise ConfigError(
            f"{run} holds a run with another configuration; first difference: {name}\n"
            f"  saved: {before}\n  now:   {after}\n"
            "Start the saved command again to go on with it, or choose another --out for a new run."
        )
    if world.is_main:
        print(f"{run} has no checkpoint: begun anew with another configuration ({name}: {before}, now {after})")
    return False


def _has_results(run: Path) -> bool:
    exported = ("best.pt", "student.pt", "student_ema.pt", "summary.json")
    checkpoints = (run / "checkpoints").glob("step-*.json")
    return any(checkpoints) or any((run / name).exists() for name in exported)


def begin_run(config: RunConfig, *, anew: bool) -> None:
    """Write RUN/config.json; `anew` first removes what a start left that ended before its first checkpoint. Main rank
    only.
    """
    run = config.files.out
    if anew:
        for name in ("metrics.jsonl", "curves.png"):
            (run / name).unlink(missing_ok=True)
        for name in ("tensorboard", "checkpoints"):
            if (run / name).exists():
                shutil.rmtree(run / name)
    publish_text(run / "config.json", json.dumps(config.to_json(), indent=1))
