"""A store's teacher pass on CUDA: outputs are copied to the host beside the next batch, never waited for at once."""

from pathlib import Path

import pytest

from null_device.checks import faults
from null_device.workers import Worker
from stores.codec_registry import codec_ids


@pytest.mark.parametrize("ranks", [1, 2])
def test_batches_wait_for_nothing(ranks: int, worker: Worker, tmp_path: Path) -> None:
    flags = ["--shard-rows", "256", "--views", "0:2"]
    arguments = [codec_ids(), str(tmp_path), flags]
    for result in worker.run("fill", arguments, ranks=ranks, num_ports=len(codec_ids())):
        # batches wait for the disk in pinned memory, up to a bound, and this device is faster than any disk
        assert faults(result, allowed=["host_allocs"]) == []
