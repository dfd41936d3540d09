"""Whether the faults that these tests are for are found: each is built into a run, and must be named."""

import pytest

from null_device.cases import Case
from null_device.checks import faults_of
from null_device.workers import Worker

_AFTER_EACH_UPDATE = """
from pipeline.engine.step import TrainStep
update = TrainStep._update
def sabotaged(self):
    update(self)
    {act}
TrainStep._update = sabotaged
"""
_SABOTAGE = {
    "nothing": ("", None),
    "a wait in the step": (_AFTER_EACH_UPDATE.format(act="torch.cuda.synchronize()"), "step 5: 1 syncs"),
    "a number read in the step": (_AFTER_EACH_UPDATE.format(act="self.scaler.get_scale()"), "step 5: 1 syncs"),
    "labels that are not pinned": ("torch.Tensor.pin_memory = lambda self: self", "step 5: 2 pageable"),
    "memory given back and taken again": (
        _AFTER_EACH_UPDATE.format(act="torch.cuda.empty_cache(); torch.empty(1 << 21, device='cuda')"),
        "steady steps: [1, 1, 1, 1] mallocs",
    ),
    "metrics read before they arrive": ("torch.cuda.Event.synchronize = lambda self: None", "the loss is not finite"),
    "labels changed before they were copied": (
        """
pin_memory, pinned = torch.Tensor.pin_memory, []
def pin(tensor):
    pinned.append(pin_memory(tensor))
    return pinned[-1]
torch.Tensor.pin_memory = pin
"""
        + _AFTER_EACH_UPDATE.format(act="[tensor.fill_(7) for tensor in pinned]"),
        "overwritten",
    ),
}


@pytest.mark.parametrize("what", _SABOTAGE)
def test_a_fault_is_named(what: str, worker: Worker) -> None:
    case, (sabotage, expected) = Case("kd", "online", late=True), _SABOTAGE[what]
    run = f"""
from null_device.worker import train
answer(train(place, [{case.to_json()}], "")[0])"""
    found = "\n".join(faults_of(case, worker.run("script", [sabotage + run, True, 1])))
    assert (found == "") if expected is None else (expected in found)
