"""Does every method teach? Three epochs on the demo's images, with a teacher that eight epochs have trained.

Weights are the published ones where these suit 279 steps on maps of 16 to 2 pixels, and said here where they do not.
Students see the centre of each image: with random crops, three epochs end before most losses have begun to fall.
"""

import json
import math
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from jobs import ForkedJob, lines_of, run_to_end

from launch.imagenet import all_recipes, parse_config
from pipeline.config import Files
from pipeline.data.demo_images import DemoSpec, write_demo
from pipeline.data.scan import scan_folder
from pipeline.fit import fit
from pipeline.methods._shared.registry import method_names

# label: recipe and flags, the slowest first
STUDENTS = {
    "semckd": "semckd_r34_r18 --stages stage3 stage4",  # two stages for speed: the others cost a minute
    "reviewkd": "reviewkd_r34_r18 --mid-channels 64",  # 512 are ImageNet's
    "vid": "vid_r34_r18",
    "crd": "crd_kd_r34_r18 --num-negatives 64",  # of 3,000 images; 16384 are ImageNet's
    "ofd": "ofd_r34_r18",
    "at": "at_r34_r18 --weight 20 --kd 1",  # its term falls as one over a map's pixels: 1000 is for maps of 56 to 7
    "simkd": "simkd_r50_r18 --weight 10 --kd 1",  # a mean over all elements, alone: it needs tens of epochs
    "sp": "sp_r34_r18",
    "fitnet": "fitnet_r34_r18",
    "kd": "kd_r34_r18",
    "dkd": "dkd_r34_r18 --temperature 4 --beta 8",  # mdistiller's for small images
    "nkd": "nkd_r34_r18",
    "dist": "dist_r34_r18",
    "lskd": "lskd_r34_r18",
    "ctkd": "ctkd_r34_r18",
    "ctkd, instances": "ctkd_instance_r34_r18",
    "pkt": "pkt_r34_r18",
    "srrl": "srrl_r34_r18",
    "supervised": "vanilla_r18 --lr 0.05",
}
EPOCHS = 3
_TEACHER_EPOCHS = 8
_SPEC = DemoSpec(train_per_class=300, val_per_class=100)
_CHANCE = 1 / 10
_TRAINING = (
    "--batch 32 --resolution 64 --policy imagenet_eval --schedule cosine --nesterov --weight-decay 5e-4"
    " --device cpu --threads 1 --log-every 20"
)
_WAIT_S = 900.0  # a minute and a half on two idle cores


def train_them() -> None:
    """The jobs of a list, one after the other in one process, since starting is what costs."""
    for arguments in json.loads(sys.argv[1]):
        print(f"recipe {arguments[0]}", flush=True)  # the last of the log is the one that failed
        assert fit(parse_config(arguments)) == "done"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images, and small copies of them in train.beton and val.beton where there is FFCV."""
    folder = tmp_path_factory.mktemp("three-epochs")
    write_demo(folder / "images", _SPEC)
    if find_spec("ffcv") is not None:
        from pipeline.data.beton_writer import write_beton

        for split in ("train", "val"):
            index = scan_folder(folder / "images" / split)[0]
            write_beton(index, folder / f"{split}.beton", encoding="raw", max_side=96)
    return folder


@pytest.fixture(scope="module")
def teacher(data: Path) -> str:
    flags = f"vanilla_r18 --student demo_teacher --lr 0.05 --epochs {_TEACHER_EPOCHS} --eval-every {_TEACHER_EPOCHS}"
    line = [*f"{flags} {_TRAINING} --micro-batches 2".split(), *_places(data, "teacher")]
    run_to_end(ForkedJob([json.dumps([line])], log=data / "teacher.log", size=2, entry=train_them), timeout_s=_WAIT_S)
    assert _last(data / "teacher")["top1"] > 40, "a teacher that knows something"
    return f"demo_teacher@{data / 'teacher' / 'student.pt'}"


@pytest.fixture(scope="module")
def runs(data: Path, teacher: str) -> Path:
    """All students, half of them in each of two processes."""
    common = f"--student demo_student --lr 0.02 --epochs {EPOCHS} --eval-every {EPOCHS} {_TRAINING} --micro-batches 1"
    lines = []
    for label, line in STUDENTS.items():
        recipe, *own = line.split()
        taught = ["--teacher", teacher] if label != "supervised" else []
        lines.append([recipe, *common.split(), *own, *taught, *_places(data, label)])
    jobs = [
        ForkedJob([json.dumps(lines[half::2])], log=data / f"students-{half}.log", entry=train_them) for half in (0, 1)
    ]
    for job in jobs:
        run_to_end(job, timeout_s=_WAIT_S)
    return data


def _places(data: Path, run: str) -> list[str]:
    train, val = data / "train.beton", data / "val.beton"
    copies = ["--backend", "ffcv", "--beton", str(train), "--val-beton", str(val)]
    return [*(copies if train.exists() else ["--data", str(data / "images")]), "--out", str(data / run)]


def _last(run: Path) -> dict[str, float]:
    last: dict[str, float] = json.loads((run / "summary.json").read_text())["last"]
    return last


def test_no_method_is_left_out() -> None:
    recipes = {words.split()[0] for words in STUDENTS.values()}
    methods = {recipe(Files(out=Path("run"))).method for name, recipe in all_recipes().items() if name in recipes}
    assert methods == set(method_names())


@pytest.mark.parametrize("label", STUDENTS)
def test_losses_are_finite_and_the_student_is_better_than_chance(label: str, runs: Path) -> None:
    train = [line for line in lines_of(runs / label / "metrics.jsonl") if line["kind"] == "train"]
    losses = [value for line in train for name, value in line.items() if name == "loss" or name.startswith("loss/")]
    assert len(losses) >= len(train) > 10
    assert all(map(math.isfinite, losses))
    last = _last(runs / label)
    assert last["epoch"] == EPOCHS
    assert math.isfinite(last["ce"])
    deviation = math.sqrt(_CHANCE * (1 - _CHANCE) / last["num_samples"])
    assert last["top1"] > 100 * (_CHANCE + 3 * deviation), f"top-1 {last['top1']:.1f} %"
