"""Where measured pixels come from: a folder, FFCV's copy of it, the real loader over either."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks._shared.imagenet import POLICY
from benchmarks._shared.pairs import say
from pipeline.data.backend import Backend, BackendOptions, Source, resolve_backend
from pipeline.data.index import Index
from pipeline.data.loader import Batch, Fetch, Loader
from pipeline.data.order import Order
from pipeline.data.plan import Plan, PlanRows
from pipeline.data.policy import get_policy

WHOLE = 65500  # longest side of a copy that holds the bytes of the originals


def backend_of(name: str) -> type[Backend]:
    """The backend of a comparison: FFCV's of "ffcv-jpeg"."""
    return resolve_backend(name.partition("-")[0])


def installed(names: tuple[str, ...]) -> list[str]:
    """Those of these comparisons that can be made here."""
    return [name for name in names if backend_of(name).missing() is None]


def source_of(name: str, index: Index, work: Path, max_side: int = 500) -> Source:
    """What `name` reads: the files, or for "ffcv-jpeg" and "ffcv-raw" a copy of them that is made in `work` once."""
    if backend_of(name).reads != "beton":
        return Source(index)
    from pipeline.data.beton_writer import write_beton  # optional package

    encoding = name.partition("-")[2]
    path = work / f"{encoding}-{max_side}.beton"
    if not path.exists():
        say(f"writing {path} ({len(index):,} images)")
        write_beton(index, path, encoding=encoding, max_side=max_side, quality=90)  # type: ignore[arg-type]
    return Source(index, path)


def plan_rows(index: Index, at: np.ndarray, views: np.ndarray, policy: str = POLICY) -> PlanRows:
    """The given views of the images at these positions."""
    return Plan(get_policy(policy), plan_seed=0).rows(index.ids[at], views, index.widths[at], index.heights[at])


@contextmanager
def endless_batches(
    backend: type[Backend],
    source: Source,
    options: BackendOptions,
    device: torch.device,
    *,
    num_views: int | None = None,
    fetch: Fetch | None = None,
) -> Iterator[Iterator[Batch]]:
    """The real loader's batches in the order of training, without end; closed with the block."""
    opened = backend(source, options)
    loader = Loader(source.index, Plan(get_policy(POLICY), 0), opened, device, num_views=num_views, fetch=fetch)
    order = Order(source.index.ids, run_seed=0, micro_batch=options.max_batch, num_micro_batches=1)
    with closing(loader):
        batches = loader.training(order, rank=0, world_size=1, start_step=0, stop_step=10**9)
        with closing(batches):
            yield batches
