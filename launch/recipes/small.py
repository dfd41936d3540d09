"""Runs that end within minutes on two cores: a smoke test, and the parts of the demo."""

from launch.recipes.code_bases import Pair
from launch.recipes.losses import KDLoss, LabelWeight, Student, distilled, supervised
from pipeline.config import Files, Optimisation, RunConfig, Running, Settings, Views

_SMALL = Views(resolution=64, policy="demo_train")
_DEMO = Settings(
    views=_SMALL,
    optimisation=Optimisation(
        epochs=14, batch=32, lr=0.05, nesterov=True, weight_decay=5e-4, schedule="cosine", warmup_epochs=1.0
    ),
)
_SMOKE = Settings(
    views=_SMALL,
    optimisation=Optimisation(epochs=2, batch=32, lr=0.05, max_steps=60, schedule="cosine"),
    running=Running(backend="synthetic", synthetic_samples=1024, synthetic_classes=10, log_every=5),
)


def smoke(
    files: Files,
    pair: Pair = Pair("demo_student", "demo_teacher@random"),
    loss: KDLoss = KDLoss(),
    settings: Settings = _SMOKE,
) -> RunConfig:
    """Every part of a distillation run, in under a minute, without data: synthetic pixels, random teacher.

    python launch/imagenet.py smoke --out runs/smoke

    Cost: some ten seconds on two cores. Expected: it ends with state "done"; its accuracy means nothing.
    """
    return distilled("smoke", files, *pair, loss, settings)


def demo(
    files: Files,
    pair: Pair = Pair("demo_student", "demo_teacher@runs/demo/teacher/student.pt"),
    loss: KDLoss = KDLoss(),
    settings: Settings = _DEMO,
) -> RunConfig:
    """The distilled student of `make demo`: a small network on the generated images.

    python launch/imagenet.py demo --data runs/demo/data --out runs/demo/distilled

    Cost: a minute on two cores. Expected: about ten points of top-1 above the same student from labels alone.
    """
    return distilled("demo", files, *pair, loss, settings)


def demo_vanilla(
    files: Files,
    student: Student = "demo_teacher",
    ce: LabelWeight = 1.0,
    settings: Settings = _DEMO,
) -> RunConfig:
    """The demo's networks from labels alone: its teacher, and the student to compare with.

    python launch/imagenet.py demo_vanilla --data runs/demo/data --student demo_teacher --out runs/demo/teacher

    Cost: a minute on two cores.
    """
    return supervised("demo_vanilla", files, student, ce, settings)
