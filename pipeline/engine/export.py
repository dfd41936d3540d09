"""The trained student as a file that plain PyTorch loads."""

from typing import Any

import torch
from torch import nn

from pipeline.config import RunConfig
from pipeline.core.atomic import publish
from pipeline.engine.step import TrainStep


def export_student(config: RunConfig, classes: tuple[str, ...], step: TrainStep) -> str:
    """Write RUN/student.pt (and student_ema.pt): {"model": state_dict, "name", "classes", "recipe"}.

    The keys are those of the plain network (of torchvision, say), so `NAME@RUN/student.pt` loads it as a teacher.
    """
    networks: dict[str, nn.Module] = {"student.pt": step.distiller.student.model}
    if step.average is not None:
        networks["student_ema.pt"] = step.average.module.model
    for name, network in networks.items():
        content: dict[str, Any] = {
            "model": {key: value.detach().cpu() for key, value in network.state_dict().items()},
            "name": config.student,
            "classes": list(classes),
            "recipe": config.recipe,
        }
        with publish(config.files.out / name) as temporary:
            torch.save(content, temporary)
    return str(config.files.out / "student.pt")
