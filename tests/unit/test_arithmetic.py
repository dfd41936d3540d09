"""The table behind a recipe's cost in --help against the real networks and methods, counted layer by layer.

Nothing is computed: the tensors are fake.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from method_cases import one_thread
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from launch.imagenet import all_recipes
from launch.recipes._shared.recipe import Distilled
from pipeline.losses._shared.pairs import NETWORKS, R34_R18, R50_MBV1, R50_R18, Pair
from pipeline.losses._shared.record import Loss
from pipeline.losses._shared.wrapping import WrapperLoss
from pipeline.methods._shared.method import MethodInput
from pipeline.methods._shared.registry import method_of
from pipeline.methods._shared.size import setting_of, untrained

__all__ = ["one_thread"]

BATCH = 4
ALLOWED = 0.01  # of the student's arithmetic


def counted(run: Callable[[], Any]) -> tuple[float, Any]:
    """Millions of multiply-adds an image, and what came out."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    return counter.get_total_flops() / 2 / BATCH / 1e6, result


def records(pair: Pair) -> list[Loss]:
    """Those of the recipes of a pair that do more than compare logits."""
    plans = [recipe.plan for recipe in all_recipes().values()]
    losses = [plan.loss for plan in plans if isinstance(plan, Distilled) and plan.pair == pair]
    own = {loss.base if isinstance(loss, WrapperLoss) else loss for loss in losses}
    return [loss for loss in own if loss.needs.teacher != {"logits"}]


@pytest.mark.parametrize("pair", [R34_R18, R50_R18, R50_MBV1], ids=str)
def test_the_table_is_what_the_layers_multiply(pair: Pair) -> None:
    student, teacher = untrained(pair.student), untrained(pair.teacher)
    for network in (student, teacher):
        network(torch.zeros(2, 3, 64, 64))  # the first pass checks the taps' values
    setting, own = replace(setting_of(student, teacher), micro_batch=BATCH), copy.deepcopy(student)
    with FakeTensorMode(allow_non_fake_inputs=True):
        images, labels = torch.zeros(BATCH, 3, 224, 224), torch.zeros(BATCH, dtype=torch.int64)
        alone, of_student = counted(lambda: student(images))
        of_teacher, taught = counted(lambda: teacher(images))
        assert alone == pytest.approx(NETWORKS[pair.student].multiply_adds, rel=1e-3)
        assert of_teacher == pytest.approx(NETWORKS[pair.teacher.partition("@")[0]].multiply_adds, rel=1e-3)
        for loss in records(pair):
            method, outputs, found = method_of(loss), of_student, 0.0
            method.build(setting)
            if not method.plain_student():
                grown = method.student_network(own)
                found, outputs = counted(lambda: grown(images))  # noqa: B023
                found -= alone
            given = replace(taught, embedding=taught.embedding if "embedding" in loss.needs.teacher else None)
            batch = MethodInput(outputs, given, labels, labels, epoch=0, temperature=4.0)
            found += counted(lambda: method(batch))[0]  # noqa: B023
            assert found == pytest.approx(loss.work(pair), abs=ALLOWED * alone), loss.name
