"""Does `benchmarks gpu` say what it found, and what it could not find, whatever happens to a section?"""

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks._shared.benchmark import Benchmark, perform
from benchmarks.gpu import suite
from benchmarks.gpu.clock import covered
from benchmarks.gpu.findings import (
    Outcome,
    Part,
    Setting,
    check,
    measured,
    needs_cuda,
    run_part,
    run_parts,
    unproven,
)
from benchmarks.gpu.jobs import differing
from benchmarks.gpu.processes import Waiting
from benchmarks.gpu.sections import FULL_S, SECTIONS, Section, losses
from benchmarks.gpu.sections.hand_over import compared
from benchmarks.gpu.sections.precision import divergence_of
from benchmarks.gpu.sections.restart import verdict
from benchmarks.gpu.sections.sanitizer import judge
from benchmarks.gpu.suite import Result, conclude, failures, outcomes_of, run_suite, start_section, table_of
from benchmarks.gpu.workloads import WORKLOADS, config_of
from pipeline.config import RunConfig, check_config
from pipeline.core.errors import RefluxError

STACK = SECTIONS["stack"]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting("cpu", tmp_path, size="toy")


def raises(error: Exception) -> Callable[[], Outcome]:
    def run() -> Outcome:
        raise error

    return run


# --- parts


def test_an_exception_is_a_failure_with_its_traceback_and_too_little_memory_is_none() -> None:
    failed = run_part(Part("a", raises(ValueError("first\nsecond"))))
    assert (failed.verdict, failed.text) == ("failed", "ValueError: first")
    assert "raise error" in failed.figures["traceback"]
    small = run_part(Part("a", raises(torch.OutOfMemoryError("tried to allocate"))))
    assert (small.verdict, small.text) == ("unproven", "out of memory: tried to allocate")


def test_no_part_begins_after_the_end_and_each_says_so() -> None:
    begun: list[str] = []

    def slow() -> Outcome:
        begun.append("slow")
        time.sleep(0.2)
        return measured("done")

    parts = [Part("first", slow), Part("second", slow), Part("third", slow)]
    found = {name: outcome for name, outcome in run_parts(parts, time.monotonic() + 0.1) if outcome is not None}
    assert begun == ["slow"]
    assert found["first"].seconds >= 0.2
    assert [found[name].text for name in ("second", "third")] == ["no time left"] * 2
    assert found["third"].verdict == "unproven"


def test_what_needs_a_gpu_says_so_on_a_processor(setting: Setting) -> None:
    (part,) = needs_cuda(setting, [Part("kernel", raises(AssertionError()))])
    assert run_part(part).text == "needs a CUDA device"
    on_gpu = Setting("cuda:0", setting.work)
    assert needs_cuda(on_gpu, [part]) == [part]


def test_a_setting_is_the_same_from_its_json(setting: Setting) -> None:
    for one in (setting, Setting("cuda:0", Path("/w"), Path("/d"), "quick")):
        assert Setting.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert [Setting("cpu", Path(), None, size).pick(1, 2, 3) for size in ("full", "quick", "toy")] == [1, 2, 3]


# --- processes


def written(tmp_path: Path, *lines: dict[str, Any]) -> Path:
    path = tmp_path / "results"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


PARTS = {"parts": ["one", "two", "three"]}
ONE = [
    {"part": "one", "outcome": None},
    {"part": "one", "outcome": {"verdict": "passed", "text": "x", "figures": {}, "seconds": 1}},
]


@pytest.mark.parametrize(
    ("code", "ending"), [(-11, "died of SIGSEGV"), (None, "took too long"), (3, "exit code 3: last words")]
)
def test_a_process_that_dies_costs_the_part_it_was_in_and_those_behind(
    tmp_path: Path, code: int | None, ending: str
) -> None:
    results = written(tmp_path, PARTS, *ONE, {"part": "two", "outcome": None})
    found = outcomes_of(results, code, "noise\nlast words\n")
    assert [found[name].verdict for name in PARTS["parts"]] == ["passed", "failed", "unproven"]
    assert ending in found["two"].text
    assert found["three"].text == "not reached: the process had ended"


def test_a_part_that_the_end_of_all_cuts_short_had_no_time_and_has_not_failed(tmp_path: Path) -> None:
    results = written(tmp_path, PARTS, *ONE, {"part": "two", "outcome": None})
    found = outcomes_of(results, None, "", cut_short=True)
    assert (found["two"].verdict, found["two"].text) == ("unproven", "no time left")
    assert outcomes_of(results, -11, "", cut_short=True)["two"].verdict == "failed"


def test_a_process_that_never_began_is_a_failure(tmp_path: Path) -> None:
    (found,) = outcomes_of(tmp_path / "none", 1, "ImportError: no such module").values()
    assert found.verdict == "failed"
    assert found.text == "ended with exit code 1: ImportError: no such module"


def test_a_section_runs_in_a_process_of_its_own(setting: Setting) -> None:
    (result,) = run_suite([STACK], setting, 60 * FULL_S / STACK.limit_s)
    assert str(torch.__version__) in result.outcomes["versions"].text
    assert result.outcomes["Triton runs"].verdict == "unproven"
    assert failures([result]) == []


def test_a_section_without_a_file_is_a_failure_that_names_it(setting: Setting) -> None:
    (result,) = run_suite([Section("no_such", "nothing", FULL_S)], setting, 60)
    assert failures([result]) == ["no_such: start"]
    assert result.outcomes["start"].text.startswith("ended with exit code 1: ")


HANGS = """
import subprocess, sys
assert sys.stdin.readline() == "7\\n"
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def test_a_hang_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    assert Waiting(["-c", HANGS], tmp_path / "log").run("7", 2.0) is None
    ends = time.monotonic() + 5
    while runs(int((tmp_path / "log").read_text())):
        assert time.monotonic() < ends, "what it started goes on"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_process_that_was_not_needed_ends_without_a_result(setting: Setting) -> None:
    with ExitStack() as stack:
        start_section(STACK, setting, stack)
    assert sorted(path.suffix for path in setting.work.iterdir()) == [".log"]


def test_past_the_deadline_sections_are_listed_and_not_run(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run_suite(list(SECTIONS.values()), setting, 0.0)
    assert [result.section for result in results] == list(SECTIONS.values())
    assert {outcome.text for result in results for outcome in result.outcomes.values()} == {"no time left"}
    assert len(capsys.readouterr().out.splitlines()) == len(SECTIONS)


def test_the_checks_come_before_the_times_and_fit_in_eight_minutes() -> None:
    names = list(SECTIONS)
    assert names.index("steps") > max(names.index(name) for name in ("losses", "waits", "hand_over", "restart"))
    assert FULL_S + suite._GRACE_S <= 480
    assert names == [
        *("stack", "losses", "captured", "waits", "hand_over", "precision", "restart", "teacher_graph"),
        *("steps", "plain_loop", "price", "loaders", "ranks", "sanitizer"),
    ]


def test_every_section_is_imported_without_tyro() -> None:
    """The machine with a GPU may have torch and little else."""
    lines = ["import sys", "sys.modules['tyro'] = None", "import benchmarks.gpu.suite, benchmarks.gpu.train"]
    lines += ["from benchmarks.gpu.sections import SECTIONS", "for section in SECTIONS.values(): section.load()"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=120)


# --- report


@dataclass(frozen=True)
class Concluding(Benchmark):
    """A run of one section that has ended already."""

    found: dict[str, Outcome]

    def run(self) -> dict[str, Any]:
        return conclude([Result(STACK, self.found)], "a GPU", {"size": "toy"})


def test_a_failed_check_ends_with_1_after_the_file_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"good": check(True, "fine", error=0.5), "bad": check(False, "[3] differ"), "not": unproven("no DALI")}
    with pytest.raises(RefluxError, match=r"1 failed: stack: bad\n") as error:
        perform(Concluding(found, json=tmp_path / "x.json"))
    assert error.value.exit_code == 1
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["failed"] == ["stack: bad"]
    assert report["sections"]["stack"]["parts"]["good"]["figures"] == {"error": 0.5}
    assert report["machine"]["packages"]["torch"]
    shown = capsys.readouterr().out
    for words in ("[3] differ", "no DALI", "a GPU"):
        assert words in shown


def test_what_is_unproven_is_no_failure() -> None:
    found = {"good": check(True, "fine"), "not": unproven("needs 2 GPUs"), "time": measured("3 ms")}
    perform(Concluding(found))


def test_a_row_for_each_part_in_order() -> None:
    first, shown = Result(STACK, {"a": check(True, "[x]"), "b": check(False, "y")}), io.StringIO()
    Console(width=120, file=shown).print(table_of("title", [first]))
    rows = [line for line in shown.getvalue().splitlines() if "passed" in line or "failed" in line]
    assert len(rows) == 2
    assert STACK.title in rows[0]
    assert "[x]" in rows[0]


# --- what sections conclude


def test_covered_time_counts_what_runs_beside_each_other_once() -> None:
    assert covered([]) == 0
    assert covered([(5, 6), (0, 2), (1, 3), (1.5, 2)]) == 4


def test_crcs_are_compared_batch_for_batch_and_equal_batches_prove_nothing() -> None:
    assert compared([(1,), (2,), (3,)], [(1,), (2,), (3,)]) == (True, "3 batches, 0 with other bytes")
    assert compared([(1,), (2,), (3,)], [(1,), (3,), (3,)]) == (False, "3 batches, 1 with other bytes, the first at 1")
    assert compared([(0,), (0,)], [(0,), (0,)])[0] is False


def test_a_restart_is_held_to_bits_only_where_that_is_promised() -> None:
    half, end = {"/module/w": torch.zeros(2)}, {"/module/w": torch.ones(2)}
    off = {"/module/w": torch.ones(2) + 1e-7}
    assert verdict(half, end, end, promised=True).verdict == "passed"
    assert verdict(half, end, off, promised=True).verdict == "failed"
    assert verdict(half, end, off, promised=False).verdict == "measured"
    assert "computes nothing" in verdict(end, end, end, promised=True).text
    assert differing(end, {}) == ["/module/w"]


@pytest.mark.parametrize(
    ("summary", "losses", "found"),
    [
        ("========= ERROR SUMMARY: 0 errors", ["passed"], "passed"),
        ("========= ERROR SUMMARY: 2 errors", ["passed"], "failed"),
        ("========= ERROR SUMMARY: 0 errors", ["failed"], "failed"),
        ("========= ERROR SUMMARY: 0 errors", [], "unproven"),
        ("Device not supported", ["passed"], "unproven"),
    ],
)
def test_the_sanitizers_words_are_read(summary: str, losses: list[str], found: str) -> None:
    lines = [json.dumps({"part": "kl", "outcome": {"verdict": verdict}}) for verdict in losses]
    assert judge(summary, [json.dumps(PARTS), *lines]).verdict == found


def test_divergence_is_zero_for_equal_logits_and_grows_with_the_error() -> None:
    exact = torch.randn(8, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    assert divergence_of(exact, exact).most == divergence_of(exact, exact).kl_1 == 0
    far, near = (divergence_of(exact + error * exact.flip(1), exact) for error in (0.1, 0.01))
    assert far.kl_1 > far.kl_4 > 0
    assert far.kl_1 > 50 * near.kl_1


def test_workloads_are_runs_that_a_configuration_file_can_hold(setting: Setting) -> None:
    for name in WORKLOADS:
        for size in ("full", "quick", "toy"):
            config = config_of(name, Setting("cuda:0", setting.work, None, size), batch=32)
            check_config(config)
            assert RunConfig.from_json(config.to_json()) == config


# --- whole sections, as far as a processor goes


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Images are drawn and the store is filled once, as for the sections of one command."""
    return Setting("cpu", tmp_path_factory.mktemp("work"), size="toy")


def outcomes(name: str, setting: Setting) -> dict[str, Outcome]:
    return {part.name: run_part(part) for part in SECTIONS[name].parts(setting)}


def test_fused_losses_keep_their_bounds(shared: Setting) -> None:
    assert {outcome.verdict for outcome in outcomes("losses", shared).values()} == {"passed"}


def test_wrong_values_are_found(shared: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    case = losses.CASES["kl"]
    monkeypatch.setitem(losses.CASES, "kl", losses.Case(lambda i: case.ours(i) * 1.001, case.exact))
    assert outcomes("losses", shared)["kl"].verdict == "failed"


def test_fp32_is_float32_and_the_halves_are_not(shared: Setting) -> None:
    found = outcomes("precision", shared)
    assert found["fp32"].verdict == "passed", found["fp32"].text
    assert found["fp32"].figures["kl_1"] < found["fp16"].figures["kl_1"] < found["bf16"].figures["kl_1"]


@pytest.mark.parametrize("name", ["waits", "steps", "plain_loop", "price", "hand_over", "loaders"])
def test_sections_run_to_their_end_at_toy_sizes(name: str, shared: Setting) -> None:
    found = outcomes(name, shared)
    assert found
    assert {part: outcome.text for part, outcome in found.items() if outcome.verdict == "failed"} == {}


def test_a_restarted_run_is_the_same_run(shared: Setting) -> None:
    promised, *_ = SECTIONS["restart"].parts(shared)
    outcome = run_part(promised)
    assert outcome.verdict == "passed", outcome.text
