"""Whether the device counts, is late and refuses as CUDA does: what the other tests here stand on."""

from typing import Any

import pytest

from null_device import device
from null_device.workers import Worker


class Run:
    """`device.run` in a fork, without the seconds of an import of torch."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __call__(self, source: str, *, late: bool = False, gpus: int = 1) -> Any:
        return self._worker.run("script", [source, late, gpus])


@pytest.fixture(scope="module")
def run(worker: Worker) -> Run:
    return Run(worker)


_NETWORK = """
from torch import nn
network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).cuda()
images = torch.zeros(2, 3, 8, 8, device="cuda", requires_grad=True)
"""


def test_operations_are_counted_by_kind(run: Run) -> None:
    seen = run(
        _NETWORK
        + """
with counting() as seen, torch.autocast("cuda", torch.bfloat16):
    network(images).sum().backward()
answer(seen)"""
    )
    assert seen["dnn"] >= 3  # the convolution, its gradients of images and weights
    assert seen["gemms"] == 3
    assert seen["launches"] > 10
    assert "syncs" not in seen


def test_what_is_read_is_true_and_finite(run: Run) -> None:
    found = run(
        """
x = torch.randn(4, device="cuda")
kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
read = [x.to(kind).cpu() for kind in kinds]
answer([bool(torch.allclose(x, x + 1)), [bool((r.isfinite() & (r > 0)).all()) for r in read], x.bool().tolist()])"""
    )
    assert found == [True, [True] * 4, [True] * 4]


def test_copies_and_waits_are_counted(run: Run) -> None:
    found = run(
        """
there = torch.empty(6, device="cuda")
here, pinned = torch.empty(6), torch.empty(6, pin_memory=True)
found = []
for act in (
    lambda: there.copy_(pinned, non_blocking=True),
    lambda: there.copy_(here, non_blocking=True),
    lambda: pinned.copy_(there, non_blocking=True),
    lambda: here.copy_(there),
    lambda: torch.cuda.synchronize(),
):
    with counting() as seen:
        act()
    found.append({name: number for name, number in seen.items() if name != "event_queries"})
answer(found)"""
    )
    assert found == [
        {"h2d": 1},
        {"h2d": 1, "pageable": 1},
        {"d2h": 1},
        {"d2h": 1, "pageable": 1, "syncs": 1},
        {"syncs": 1},
    ]


def test_what_was_just_sent_can_be_read_until_something_is_launched(run: Run) -> None:
    found = run(
        """
there = torch.arange(4).cuda()
first = there.tolist()
there + 1
answer([first, there.tolist()])"""
    )
    assert found == [[0, 1, 2, 3], [0x0101010101010101] * 4]


def test_streams_wait_for_streams_for_free(run: Run) -> None:
    seen = run(
        """
side, x = torch.cuda.Stream(), torch.zeros(4, device="cuda")
with counting() as seen:
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        x + 1
    torch.cuda.current_stream().wait_stream(side)
answer(seen)"""
    )
    assert seen["stream_waits"] == 2
    assert "syncs" not in seen


def test_a_graph_is_recorded_and_replayed(run: Run) -> None:
    recorded, replayed, num = run(
        _NETWORK
        + """
network.eval()
with torch.no_grad():
    network(images)
    graph = torch.cuda.CUDAGraph()
    with counting() as recorded, torch.cuda.graph(graph):
        network(images)
with counting() as replayed:
    graph.replay()
answer([recorded, replayed, operations(replayed)])"""
    )
    assert recorded["captured"] > 3
    assert replayed["graph_launches"] == 1
    assert replayed["replayed"] == recorded["captured"]
    assert num == 0


@pytest.mark.parametrize(
    "act",
    ["x.sum().item()", "torch.cuda.synchronize()", "torch.cuda.current_stream().query()", "side_work()"],
)
def test_a_capture_refuses_waits_and_streams_left_behind(act: str, run: Run) -> None:
    message, counted = run(
        f"""
x = torch.zeros(4, device="cuda")
def side_work():
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        x + 1
message = None
try:
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        {act}
except RuntimeError as error:
    message = str(error)
assert not torch.cuda.is_current_stream_capturing()
answer([message, counts()["refused"]])"""
    )
    assert "captur" in message
    assert counted >= 1


def test_a_capture_forbids_waits_of_other_threads_unless_it_is_told_not_to(run: Run) -> None:
    broken = """
import threading
x, event = torch.zeros(4, device="cuda"), torch.cuda.Event()
event.record()
def wait():
    try:
        event.synchronize()
    except RuntimeError:
        pass
message = None
try:
    with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="{mode}"):
        x + 1
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
except RuntimeError as error:
    message = str(error)
answer(message)"""
    assert "captur" in run(broken.format(mode="global"))
    assert run(broken.format(mode="thread_local")) is None


_TOO_EARLY = """
there, side = torch.arange(6.0, device="cuda"), torch.cuda.Stream()
torch.cuda.synchronize()
early = torch.cuda.Event()
early.record()
here = torch.empty(6, pin_memory=True).copy_(there, non_blocking=True)
found = [bool(here.isnan().all())]
early.synchronize()  # recorded before the copy
found.append(bool(here.isnan().all()))
side.synchronize()  # another stream
found.append(bool(here.isnan().all()))
side.wait_stream(torch.cuda.current_stream())
side.synchronize()  # which now comes after the copy
answer([*found, bool(here.isnan().any())])"""


def test_late_a_copy_arrives_when_something_after_it_was_waited_for(run: Run) -> None:
    assert run(_TOO_EARLY, late=True) == [True, True, True, False]


def test_on_time_a_copy_arrives_at_once(run: Run) -> None:
    assert run(_TOO_EARLY) == [False] * 4


def test_late_polls_come_true_in_the_end(run: Run) -> None:
    assert run(
        """
event, x = torch.cuda.Event(), torch.zeros(4, device="cuda")
torch.empty(4, pin_memory=True).copy_(x, non_blocking=True)
event.record()
first = event.query()
while not event.query():
    pass
answer(first)""",
        late=True,
    ) in (False,)


@pytest.mark.parametrize(("wait", "expected"), [("torch.cuda.synchronize()", 0), ("pass", 1)])
def test_late_a_source_must_stay_until_its_copy_was_waited_for(wait: str, expected: int, run: Run) -> None:
    found = run(
        f"""
source = torch.zeros(6, pin_memory=True)
there = source.to("cuda", non_blocking=True)
{wait}
source.fill_(1)
torch.cuda.synchronize()
answer(counts()["overwritten"])""",
        late=True,
    )
    assert found == expected


def test_devices_are_apart(run: Run) -> None:
    assert run(
        """
x = torch.zeros(2, device="cuda:1")
answer([torch.cuda.device_count(), torch.cuda.current_device(), x.device.index, torch.cuda.is_available()])""",
        gpus=2,
    ) == [2, 0, 1, True]


def test_without_devices_torch_sees_none(run: Run) -> None:
    assert run("answer(torch.cuda.is_available())", gpus=0) is False


@pytest.mark.usefixtures("null_device")
def test_a_process_of_its_own() -> None:
    script = "import os; answer([counts()['launches'], torch.cuda.device_count(), os.environ['MINE']])"
    assert device.run(script, late=True, gpus=3, env={"MINE": "1"}) == [0, 3, "1"]


@pytest.mark.usefixtures("null_device")
def test_a_failed_script_says_what_it_printed_and_a_trace_what_waited() -> None:
    script = "torch.zeros(2, device='cuda').tolist(); raise ValueError('one two')"
    with pytest.raises(AssertionError, match=r"(?s)copy of memory that is not pinned.*one two"):
        device.run(script, env={"NULL_DEVICE_TRACE": "1"})
