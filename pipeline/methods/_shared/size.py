"""How much a method trains beside the student."""

import copy
from typing import Any

import torch

from pipeline.losses._shared.pairs import Pair
from pipeline.losses._shared.record import STAGES, before_activation
from pipeline.methods._shared.method import Method, Setting
from pipeline.methods._shared.registry import build_method
from pipeline.models.measures import head_values, map_shapes, norm_values
from pipeline.models.network import Network
from pipeline.models.spec import parse_spec
from pipeline.models.zoo import build_network

_RESOLUTION, _CLASSES, _MICRO_BATCH = 224, 1000, 64
_PRE = before_activation(STAGES)


def trained_parameters(names: list[str], pair: Pair) -> dict[str, int]:
    """By method, with its defaults, for an ImageNet pair; some seconds, without any weights."""
    student, teacher = untrained(pair.student), untrained(pair.teacher)
    setting = setting_of(student, teacher)
    return {name: num_trainable(build_method(name, {}), setting, student) for name in names}


def num_trainable(method: Method[Any], setting: Setting, student: Network) -> int:
    """Trainable parameters beside the student's own, in the method or in what it makes of the student."""
    student = copy.deepcopy(student)
    own = {id(parameter) for parameter in student.parameters()}
    with torch.device("meta"):  # SemCKD's 862 million are counted, not allocated
        method.build(setting)
        network = method.student_network(student)
    found = {id(p): p.numel() for part in (method, network) for p in part.parameters() if p.requires_grad}
    return sum(count for parameter, count in found.items() if parameter not in own)


def setting_of(student: Network, teacher: Network) -> Setting:
    """What a method meets in a run of these two networks on ImageNet."""
    return Setting(
        student_dim=student.embedding_dim,
        num_classes=_CLASSES,
        student_maps=map_shapes(student, _RESOLUTION),
        teacher_maps=map_shapes(teacher, _RESOLUTION),
        teacher_dim=teacher.embedding_dim,
        class_counts=(1,) * _CLASSES,
        micro_batch=_MICRO_BATCH,
        head=head_values(teacher),
        teacher_norms={tap: norm_values(teacher, tap) for tap in _PRE},
    )


def untrained(name: str) -> Network:
    """The network NAME[@WEIGHTS] with random weights and a tap at every stage, before and after its last activation."""
    spec = parse_spec(f"{name.partition('@')[0]}@random")
    return build_network(spec, num_classes=_CLASSES, seed=0, taps=(*STAGES, *_PRE))
