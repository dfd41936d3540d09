"""The worker that runs these tests' jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from null_device.workers import Worker, fill_stores


@pytest.fixture(scope="session")
def worker(null_device: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A process that runs jobs on null devices."""
    with Worker(tmp_path_factory.mktemp("null")) as worker:
        yield worker


@pytest.fixture(scope="session")
def stores(worker: Worker) -> Path:
    """A folder with a store for each codec, precomputed on the null device."""
    return fill_stores(worker)
