"""Runs that end within minutes on two cores: a smoke test, and the parts of the demo."""

from pipeline.core.config import Files, Numerics, Optimisation, RunConfig, Running, Views

_SMALL = Views(resolution=64, policy="demo_train")
_DEMO = Optimisation(
    epochs=14, batch=32, lr=0.05, nesterov=True, weight_decay=5e-4, schedule="cosine", warmup_epochs=1.0
)


def smoke(
    files: Files,
    student: str = "demo_student",
    teacher: str = "demo_teacher@random",
    ce: float = 1.0,
    kd: float = 1.0,
    temperature: float = 4.0,
    views: Views = _SMALL,
    optimisation: Optimisation = Optimisation(epochs=2, batch=32, lr=0.05, max_steps=60, schedule="cosine"),
    numerics: Numerics = Numerics(),
    running: Running = Running(backend="synthetic", synthetic_samples=1024, synthetic_classes=10, log_every=5),
) -> RunConfig:
    """Every part of a distillation run, in under a minute, without data: synthetic pixels, random teacher.

    python launch/imagenet.py smoke --out runs/smoke

    Cost: half a minute on two cores. Expected: it ends with state "done"; its accuracy means nothing.

    Args:
        files: Where the run reads and writes.
        student: Model that learns, as NAME[@WEIGHTS].
        teacher: Model that teaches, as NAME@WEIGHTS.
        ce: Weight of the cross-entropy with the labels.
        kd: Weight of the KL divergence from the teacher.
        temperature: Temperature T of that divergence, which is multiplied by T^2.
        views: What the networks see.
        optimisation: How the weights move.
        numerics: Precision and determinism.
        running: How the job runs.
    """
    arguments = {"ce": ce, "kd": kd, "temperature": temperature}
    return RunConfig("smoke", student, teacher, "kd", files, arguments, views, optimisation, numerics, running)


def demo(
    files: Files,
    student: str = "demo_student",
    teacher: str = "demo_teacher@runs/demo/teacher/student.pt",
    ce: float = 1.0,
    kd: float = 1.0,
    temperature: float = 4.0,
    views: Views = _SMALL,
    optimisation: Optimisation = _DEMO,
    numerics: Numerics = Numerics(),
    running: Running = Running(),
) -> RunConfig:
    """The distilled student of `make demo`: a small network on the generated images.

    python launch/imagenet.py demo --data runs/demo/data --out runs/demo/distilled

    Args:
        files: Where the run reads and writes.
        student: Model that learns, as NAME[@WEIGHTS].
        teacher: Model that teaches, as NAME@WEIGHTS.
        ce: Weight of the cross-entropy with the labels.
        kd: Weight of the KL divergence from the teacher.
        temperature: Temperature T of that divergence, which is multiplied by T^2.
        views: What the networks see.
        optimisation: How the weights move.
        numerics: Precision and determinism.
        running: How the job runs.
    """
    arguments = {"ce": ce, "kd": kd, "temperature": temperature}
    return RunConfig("demo", student, teacher, "kd", files, arguments, views, optimisation, numerics, running)


def demo_vanilla(
    files: Files,
    student: str = "demo_teacher",
    ce: float = 1.0,
    views: Views = _SMALL,
    optimisation: Optimisation = _DEMO,
    numerics: Numerics = Numerics(),
    running: Running = Running(),
) -> RunConfig:
    """The demo's networks from labels alone: its teacher, and the student to compare with.

    python launch/imagenet.py demo_vanilla --data runs/demo/data --student demo_teacher --out runs/demo/teacher

    Args:
        files: Where the run reads and writes.
        student: Model that learns, as NAME[@WEIGHTS].
        ce: Weight of the cross-entropy with the labels.
        views: What the network sees.
        optimisation: How the weights move.
        numerics: Precision and determinism.
        running: How the job runs.
    """
    return RunConfig(
        "demo_vanilla", student, None, "supervised", files, {"ce": ce}, views, optimisation, numerics, running
    )
