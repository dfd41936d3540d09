"""All methods side by side: what each needs, what it trains, what is published of it."""

import copy
from dataclasses import dataclass

import torch

from pipeline.methods.base import R34_R18, R50_MV1, Method, MethodInfo, Setting
from pipeline.methods.parts import STAGES
from pipeline.methods.registry import build_method, method_module, method_names
from pipeline.models.measures import head_values, map_shapes, norm_values
from pipeline.models.network import Network
from pipeline.models.spec import parse_spec
from pipeline.models.zoo import build_network

PAIRS = {R34_R18: ("resnet34", "resnet18"), R50_MV1: ("resnet50", "mobilenet_v1")}
_RESOLUTION, _CLASSES, _MICRO_BATCH = 224, 1000, 64
_PRE = tuple(f"{stage}.pre" for stage in STAGES)


@dataclass(frozen=True)
class MethodSummary:
    """One row of the table.

    Attributes:
        name: of the method.
        info: its paper and published figures.
        teacher: what it reads of the teacher.
        student: the feature taps that it reads of the student.
        stores: kinds of store that suffice; () where the teacher must run online.
        parameters: trainable parameters by teacher-student pair, the student's own not counted.
    """

    name: str
    info: MethodInfo
    teacher: tuple[str, ...]
    student: tuple[str, ...]
    stores: tuple[str, ...]
    parameters: dict[str, int]


def summarise() -> list[MethodSummary]:
    """Every method with its defaults, on ImageNet's two usual pairs; some seconds, without any weights."""
    students = {pair: _network(student) for pair, (_, student) in PAIRS.items()}
    settings = {pair: _setting(_network(teacher), students[pair]) for pair, (teacher, _) in PAIRS.items()}
    return [_summary(name, settings, students) for name in method_names()]


def num_trainable(method: Method, setting: Setting, student: Network) -> int:
    """Trainable parameters beside the student's own, in the method or in what it makes of the student."""
    student = copy.deepcopy(student)
    own = {id(parameter) for parameter in student.parameters()}
    with torch.device("meta"):  # SemCKD's 862 million are counted, not allocated
        method.build(setting)
        network = method.student_network(student)
    found = {id(p): p.numel() for part in (method, network) for p in part.parameters() if p.requires_grad}
    return sum(count for parameter, count in found.items() if parameter not in own)


def _summary(name: str, settings: dict[str, Setting], students: dict[str, Network]) -> MethodSummary:
    method = build_method(name, {})
    needs = method.needs
    return MethodSummary(
        name=name,
        info=method_module(name).INFO,
        teacher=tuple(sorted(needs.teacher)),
        student=tuple(sorted(needs.student)),
        stores=method.stores,
        parameters={
            pair: num_trainable(build_method(name, {}), settings[pair], student) for pair, student in students.items()
        },
    )


def _setting(teacher: Network, student: Network) -> Setting:
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


def _network(name: str) -> Network:
    spec = parse_spec(f"{name}@random")
    return build_network(spec, num_classes=_CLASSES, seed=0, taps=(*STAGES, *_PRE), role="student")
