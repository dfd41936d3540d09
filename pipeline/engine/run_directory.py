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
RUN/index/           dataset indexes, where none were prepared
"""

import json
from pathlib import Path
from typing import Any

from pipeline.core.config import RunConfig, first_difference
from pipeline.core.errors import CheckpointError, ConfigError, PeerFailure, RefluxError
from pipeline.engine.journal import read_state, write_state
from stores.atomic import publish_text

_STATE_FILES = {"state.json", "index", "launch.log"}


def read_saved_config(run: Path) -> RunConfig | None:
    """The configuration of the run that lives in `run`, or None for a folder that is new.

    Raises:
        ConfigError: the folder holds something else.
        CheckpointError: its config.json cannot be read.
    """
    path = run / "config.json"
    if path.exists():
        try:
            return RunConfig.from_json(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); restore it, or choose another --out") from error
    foreign = sorted(entry.name for entry in run.iterdir() if entry.name not in _STATE_FILES) if run.is_dir() else []
    if foreign:
        raise ConfigError(
            f"--out {run} exists and is not a run of Reflux (no config.json; it holds {foreign[:5]}).\n"
            "Nothing is overwritten: choose another folder."
        )
    return None


def check_same_run(saved: RunConfig, now: RunConfig, run: Path) -> None:
    """Refuse to go on with a run under another configuration, naming the first field that differs."""
    difference = first_difference(saved, now)
    if difference is None:
        return
    name, before, after = difference
    raise ConfigError(
        f"{run} holds a run with another configuration; first difference: {name}\n"
        f"  saved: {before}\n  now:   {after}\n"
        "Start the saved command again to go on with it, or choose another --out for a new run."
    )


def save_config(config: RunConfig, run: Path) -> None:
    """Write RUN/config.json."""
    publish_text(run / "config.json", json.dumps(config.to_json(), indent=1))


def begin_attempt(run: Path, rank: int) -> None:
    """Say in RUN/state.json that a start or restart has begun: what an earlier one left there is over."""
    if rank == 0:
        write_state(run, "running", "preparing")


def note_failure(run: Path, error: BaseException, rank: int) -> None:
    """Say in RUN/state.json how the run failed, unless another rank has: what follows from its failure is no news.

    Raises:
        PeerFailure: another rank failed first, and told it.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return
    told = read_state(run)
    if told.get("state") in ("failed", "usage") and told.get("rank") != rank:
        raise PeerFailure(f"rank {told.get('rank')} failed: {told['message']}") from error
    usage = isinstance(error, ConfigError)
    message = str(error) if isinstance(error, RefluxError) else f"{type(error).__name__}: {error}"
    write_state(run, "usage" if usage else "failed", message, rank=rank)


def check_fingerprints(state: dict[str, Any], *, train: str, val: str) -> None:
    """Refuse to go on with other data than the checkpoint's."""
    for split, found in (("train", train), ("val", val)):
        saved = state["fingerprints"][split]
        if saved != found:
            raise CheckpointError(
                f"the {split} data are not those that this run began with (index fingerprints differ).\n"
                f"  checkpoint: {saved}\n  now:        {found}\n"
                "Give the run its data again, or choose another --out for a new run."
            )
