"""Runs that end within minutes on two cores: a smoke test, and the parts of the demo."""

from launch.recipes._shared.recipe import Distilled, Supervised, recipe
from pipeline.config import Optimisation, Running, Settings, Views
from pipeline.losses._shared.pairs import Pair
from pipeline.losses.kd import KDLoss

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


@recipe()
def smoke() -> Distilled:
    """Every part of a distillation run, in under a minute, without data: synthetic pixels, random teacher.

    Cost: some ten seconds on two cores. Expected: it ends with state "done"; its accuracy means nothing.
    """
    return Distilled(Pair("demo_student", "demo_teacher@random"), KDLoss(), _SMOKE)


@recipe()
def demo() -> Distilled:
    """The distilled student of `make demo`: a small network on the generated images, runs/demo/data.

    Cost: a minute on two cores. Expected: about ten points of top-1 above the same student from labels alone.
    """
    return Distilled(Pair("demo_student", "demo_teacher@runs/demo/teacher/student.pt"), KDLoss(), _DEMO)


@recipe()
def demo_vanilla() -> Supervised:
    """The demo's networks from labels alone: its teacher, and (--student demo_student) the student to compare with.

    Cost: a minute on two cores.
    """
    return Supervised("demo_teacher", _DEMO)
