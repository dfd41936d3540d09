"""`python -m stores`: what it shows, its exit codes, and its speed."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from store_files import NUM_CLASSES, flip, small_manifest, small_store, write_shard

import stores.show
from pipeline.core.command import run_command
from stores.__main__ import main
from stores.codecs.dense_f16 import DenseF16
from stores.index_file import create_store, read_manifest
from stores.layout import ShardKey, shard_keys
from stores.shard import read_shard
from stores.show import describe_store, view_states

_HELP_S = 2.0


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line in this process: starting Python costs a second."""

    def run_here(*arguments: object) -> Done:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["stores", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run_command(main)
        said = capsys.readouterr()
        return Done(end.value.code, said.out, said.err)  # type: ignore[arg-type]

    return run_here


def run_program(*arguments: object) -> Done:
    command = [sys.executable, "-m", "stores", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr)


def test_show_names_teacher_views_and_codecs(tmp_path: Path, run: Callable[..., Done]) -> None:
    store = tmp_path / "[store]"  # brackets are text
    manifest = small_store(store, views=(0, 1, 3))
    write_shard(store, ShardKey(5, 4, 8), manifest, (DenseF16(width=NUM_CLASSES),))
    done = run("show", store)
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0].strip(): line for line in done.stdout.splitlines()}
    assert lines[str(store)]
    assert "resnet18@random" in lines["teacher"]
    assert "abababababab" in lines["weights sha256"]
    assert "73.3" in lines["measured top-1"]
    assert "seed 3, version 1" in lines["plan"]
    assert "random_resized_crop" in lines["policy"]
    assert "torchvision" in lines["pixel recipe"]
    assert "dense_f16: 10 bytes a row, width 5" in lines["codec"]
    assert "max_abs 2e-05" in lines["noise floor"]
    assert "torch 2.9" in lines["made with"]
    assert lines["0-1, 3"].split()[2:] == ["complete", "3", "3", "of", "3", "10", f"{bytes_of(store, 0, 1, 3):,}"]
    assert lines["5"].split()[1:] == ["incomplete", "1", "1", "of", "3", "4", f"{bytes_of(store, 5):,}"]
    assert lines["all"].split()[1:] == ["4", "10", "in", "all", "34", "in", "all", f"{bytes_of(store, 0, 1, 3, 5):,}"]


def bytes_of(store: Path, *views: int) -> int:
    return sum(path.stat().st_size for view in views for path in (store / "views" / f"{view:04d}").iterdir())


def test_a_store_that_was_only_begun_can_be_shown(tmp_path: Path, run: Callable[..., Done]) -> None:
    create_store(tmp_path / "s", small_manifest(measured={}, made_with={}, teacher={}), None)
    facts = dict(describe_store(tmp_path / "s"))
    assert facts["measured top-1"] == facts["noise floor"] == "not measured"
    assert view_states(tmp_path / "s") == []
    assert run("show", tmp_path / "s").returncode == 0


def test_verify_ends_with_0_where_all_is_whole_and_1_where_not(tmp_path: Path, run: Callable[..., Done]) -> None:
    store = tmp_path / "s"
    small_store(store)
    done = run("verify", store)
    assert (done.returncode, done.stderr) == (0, "")
    assert "verify: 20 of 20 rows" in done.stdout
    assert f"{store}: whole" in done.stdout
    assert run_program("verify", store) == done
    path = ShardKey(1, 4, 8).path(store)
    place = read_shard(path).places["logits"]
    flip(path, place.offset + 2 * place.row_bytes)
    done = run("verify", store)
    assert run_program("verify", store) == done
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {store} has 1 problem(s):\n{path}: rows are not what was written")
    assert "(view 1, sample ids 6)" in done.stderr
    assert "Traceback" not in done.stderr


def test_notes_are_shown_and_cost_no_exit_code(tmp_path: Path, run: Callable[..., Done]) -> None:
    manifest = small_store(tmp_path / "s")
    write_shard(tmp_path / "s", shard_keys(2, 10, 4)[0], manifest, (DenseF16(width=NUM_CLASSES),))
    done = run("verify", tmp_path / "s")
    assert done.returncode == 0
    assert "note: " in done.stdout
    assert "view 2 is not complete: 2 of 3 shards are missing" in done.stdout


def test_index_makes_store_h5_again(tmp_path: Path, run: Callable[..., Done]) -> None:
    manifest = small_store(tmp_path / "s")
    (tmp_path / "s" / "store.h5").write_bytes(b"damaged")
    done = run("index", tmp_path / "s")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 's' / 'store.h5'}: 2 of 2 views are complete\n")
    assert read_manifest(tmp_path / "s") == manifest


def test_help_answers_at_once_and_imports_no_torch() -> None:
    script = (
        "import sys, runpy, time; begun = time.perf_counter(); sys.argv = ['stores', 'verify', '--help']\n"
        "try: runpy.run_module('stores', run_name='__main__')\n"
        "finally: print('torch' in sys.modules, time.perf_counter() - begun, file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - begun)
        assert done.stderr.startswith("False ")
        assert "STORE" in done.stdout
        if seconds[-1] <= _HELP_S:
            break
    assert min(seconds) <= _HELP_S, f"--help took {seconds} s"


def test_stores_imports_neither_torch_nor_pipeline_above_its_ground() -> None:
    names = sorted(path.stem for path in Path(stores.show.__file__).parent.glob("*.py") if path.stem != "__main__")
    script = f"import sys\nfor name in {names!r}: __import__('stores.' + name)\n"
    script += "others = [name for name in sys.modules if name.split('.')[0] in ('torch', 'pipeline', 'tyro', 'rich')]\n"
    script += "print([name for name in others if name != 'pipeline' and not name.startswith('pipeline.core')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
