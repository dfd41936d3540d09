"""Plain supervised training on ImageNet: baselines of students, and teachers."""

from pipeline.core.config import Files, Numerics, Optimisation, RunConfig, Running, Views


def vanilla_r18(
    files: Files,
    student: str = "resnet18",
    ce: float = 1.0,
    views: Views = Views(),
    optimisation: Optimisation = Optimisation(epochs=90, batch=256, lr=0.1, milestones=(30, 60)),
    numerics: Numerics = Numerics(),
    running: Running = Running(),
) -> RunConfig:
    """ResNet-18 learns from labels alone: the baseline that a distilled ResNet-18 is compared with.

    torchrun --nproc_per_node=8 launch/imagenet.py vanilla_r18 --data /data/imagenet --out runs/vanilla_r18

    Published: 69.75 (torchvision's weights; 90 epochs, batch 256, lr 0.1, steps at 30 and 60).

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
        "vanilla_r18", student, None, "supervised", files, {"ce": ce}, views, optimisation, numerics, running
    )
