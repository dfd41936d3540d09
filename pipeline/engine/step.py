"""One optimiser step over this rank's micro-batches. Nothing in it waits for the device."""

import inspect
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.config import Optimisation, RunConfig
from pipeline.core.errors import ConfigError, RefluxError
from pipeline.core.rng import Stream, derive_seed
from pipeline.data.backend import GRAY
from pipeline.data.loader import Batch
from pipeline.data.order import Order
from pipeline.devices.device_rng import seed_generators
from pipeline.devices.streams import HostCopy, copy_to_host
from pipeline.devices.world import World
from pipeline.engine.batchnorm import RunningStatistics
from pipeline.engine.distiller import Distiller
from pipeline.engine.ema import ModuleAverage
from pipeline.engine.networks import Networks
from pipeline.engine.optim import build_optimizer, learning_rate, set_learning_rate
from pipeline.teachers.base import Teacher


class TrainStep:
    """Forward, backward and update, with gradients accumulated over micro-batches and averaged over ranks.

    Args:
        distiller: student and method.
        teacher: gives a batch's teacher outputs; None where the method needs none.
        prepare: from a batch's pixels to normalised images.
        optimizer: over the distiller's parameters.
        config: rates, clipping, seeds.
        steps_per_epoch: for the schedule.
        num_own: micro-batches of this rank in a step.
        num_all: micro-batches of a step over all ranks, M.
        world: the ranks.
        amp: "fp16" scales the loss.
        average: the moving average to update after each step.
    """

    def __init__(
        self,
        *,
        distiller: Distiller,
        teacher: Teacher | None,
        prepare: Callable[[torch.Tensor], torch.Tensor],
        optimizer: torch.optim.Optimizer,
        config: Optimisation,
        steps_per_epoch: int,
        num_own: int,
        num_all: int,
        world: World,
        amp: str,
        average: ModuleAverage | None,
    ) -> None:
        self.distiller, self.optimizer, self.average = distiller, optimizer, average
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=amp == "fp16")
        self.statistics = RunningStatistics(distiller, num_own=num_own, num_all=num_all, world=world)
        self.rate = config.lr
        self._teacher, self._prepare, self._config, self._world = teacher, prepare, config, world
        self._steps_per_epoch, self._num_all = steps_per_epoch, num_all
        # DDP divides by the number of ranks; the sum over all micro-batches is to be divided by theirs
        self._share = torch.tensor(world.size / num_all, device=world.device)
        self._module = _wrap(distiller, world)

    def __call__(self, batches: list[Batch]) -> dict[str, torch.Tensor]:
        """One global step on this rank's micro-batches of it; returns the terms' means over the global batch."""
        self.rate = learning_rate(self._config, batches[0].step, self._steps_per_epoch)
        set_learning_rate(self.optimizer, self.rate)
        self.optimizer.zero_grad(set_to_none=True)
        self.statistics.begin_step()
        self.distiller.method.begin_step()
        terms = [self._micro_batch(batch, is_last=number == len(batches)) for number, batch in enumerate(batches, 1)]
        self.statistics.end_step()
        self.distiller.method.end_step(self._world, self._num_all)
        self._update()
        return self._mean_terms(terms)

    def settle(self, micro_batch: int, resolution: int) -> None:
        """One discarded pass over gray images, before a job of several ranks begins or goes on.

        DDP lays out its buckets anew after its first backward pass, and the layout decides in which order the ranks'
        gradients are summed. After this pass, the first step of a restarted process sums as its predecessor did.
        Micro-batches of one image are tried on one rank too: they may be too little for BatchNorm.

        Raises:
            ConfigError: they are.
        """
        if self._world.size == 1 and micro_batch > 1:
            return
        buffers = [(buffer, buffer.clone()) for buffer in self.distiller.buffers()]
        device = self._world.device
        pixels = torch.full((micro_batch, resolution, resolution, 3), GRAY, dtype=torch.uint8, device=device)
        numbers = torch.zeros(micro_batch, dtype=torch.int64, device=device)
        images = self._prepare(pixels)
        teacher = self._teacher.blank(pixels, images) if self._teacher is not None else None
        with _enough_for_batch_norm(micro_batch, resolution):
            self._module(images, numbers, numbers, teacher, 0)["loss"].backward()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, for a checkpoint; a collective call."""
        gathered = self.statistics.gather()
        with self.statistics.averaged(gathered):
            module = {name: value.detach().clone() for name, value in self.distiller.state_dict().items()}
        return {
            "module": module,
            "statistics": gathered,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.average is None else self.average.module.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned, perhaps in a world of another size."""
        self.distiller.load_state_dict(state["module"])
        self.statistics.load(state["statistics"])
        self.optimizer.load_state_dict(state["optimizer"])
        _lay_out_momenta(self.optimizer)
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.module.load_state_dict(state["ema"])

    def _micro_batch(self, batch: Batch, *, is_last: bool) -> dict[str, torch.Tensor]:
        # dropout and the like: a function of the seed and the place in the job, not of what ran before
        seed = derive_seed(self._config.run_seed, Stream.STEP, batch.step, batch.index)
        seed_generators(self._world.device, seed)
        images = self._prepare(batch.images)
        teacher = self._teacher.outputs(batch, images) if self._teacher is not None else None
        hold = nullcontext() if is_last or self._module is self.distiller else self._module.no_sync()  # type: ignore[operator]
        with hold:
            terms: dict[str, torch.Tensor] = self._module(images, batch.labels, batch.ids, teacher, batch.epoch)
            self.statistics.after_micro_batch()
            terms["loss"].backward(self.scaler.scale(self._share))
        return terms

    def _update(self) -> None:
        if self._config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.distiller.parameters(), self._config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update()

    def _mean_terms(self, terms: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        names = list(terms[0])
        values = torch.stack([part[name].detach() for name in names for part in terms]).double()
        means = self._world.sum_(values.view(len(names), len(terms)).sum(dim=1) / self._num_all)
        return dict(zip(names, means.unbind(), strict=True))


class LateMetrics:
    """Reads a step's metrics when the next step has been enqueued, so that the host never waits for the device."""

    def __init__(self) -> None:
        self._pending: deque[tuple[int, list[str], HostCopy[torch.Tensor], dict[str, float]]] = deque()

    def push(self, step: int, terms: dict[str, torch.Tensor], **known: float) -> None:
        """Take the terms of a step that was just enqueued, start their copy to the host; `known` goes along."""
        self._pending.append((step, list(terms), copy_to_host(torch.stack(list(terms.values()))), known))

    def pop(self, *, keep: int) -> list[tuple[int, dict[str, float]]]:
        """The steps that have waited longest, as floats, until `keep` are left.

        Raises:
            RefluxError: a loss is not finite (on every rank at the same step).
        """
        ready = []
        while len(self._pending) > keep:
            step, names, values, known = self._pending.popleft()
            metrics = {**dict(zip(names, values.wait().tolist(), strict=True)), **known}
            _check_finite(step, metrics)
            ready.append((step, metrics))
        return ready


def build_train_step(config: RunConfig, networks: Networks, order: Order, world: World) -> TrainStep:
    """The step of a run, with fresh weights, optimiser and average."""
    distiller, decay = networks.distiller, config.optimisation.ema_decay
    return TrainStep(
        distiller=distiller,
        teacher=networks.teacher,
        prepare=networks.prepare,
        optimizer=build_optimizer(distiller, config.optimisation, world.device),
        config=config.optimisation,
        steps_per_epoch=order.steps_per_epoch,
        num_own=len(order.deal(world.rank, world.size)),
        num_all=order.num_micro_batches,
        world=world,
        amp=config.numerics.amp,
        average=None if decay is None else ModuleAverage(distiller.student, decay),
    )


def _lay_out_momenta(optimizer: torch.optim.Optimizer) -> None:
    """Give each momentum the strides of its parameter, which the fused forms insist on; values stay as they are.

    Checkpoints of channels_last networks that earlier versions wrote on CUDA hold contiguous momenta.
    """
    for parameter, own in optimizer.state.items():
        for name, value in own.items():
            is_momentum = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if is_momentum and value.stride() != parameter.stride():
                own[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


@contextmanager
def _enough_for_batch_norm(micro_batch: int, resolution: int) -> Iterator[None]:
    """Say of one image with maps of one pixel, which has no variance, what would do; PyTorch names neither."""
    try:
        yield
    except ValueError as error:
        if micro_batch > 1 or "value per channel" not in str(error):
            raise
        raise ConfigError(
            "BatchNorm needs more than one value per channel in training, and sees one: micro-batches hold 1 image,"
            f" and the last maps are of 1 x 1 at {resolution} px.\n"
            "Raise --batch or --resolution, or lower --micro-batches."
        ) from error


def _check_finite(step: int, metrics: dict[str, float]) -> None:
    bad = {name: value for name, value in metrics.items() if value != value or value in (float("inf"), float("-inf"))}
    if bad:
        raise RefluxError(
            f"the loss is not finite after step {step}: {bad}\n"
            "Lower --lr or add --warmup-epochs; with --amp fp16 try bf16. Earlier checkpoints are whole."
        )


def _wrap(distiller: Distiller, world: World) -> nn.Module:
    if world.size == 1:
        return distiller
    # BatchNorm's buffers are averaged when they are read, see RunningStatistics; torch 2.15 renamed the argument
    parameters = inspect.signature(DistributedDataParallel).parameters
    keep_buffers = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    options: dict[str, Any] = {keep_buffers: False, "gradient_as_bucket_view": True}
    return DistributedDataParallel(
        distiller, device_ids=[world.device] if world.device.type == "cuda" else None, **options
    )
