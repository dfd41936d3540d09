"""What happens between steps: signals, evaluation, checkpoints, and what a person sees."""

import json
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from pipeline.config import RunConfig
from pipeline.core.atomic import publish_text
from pipeline.core.command import Lines
from pipeline.data.datasets import Datasets
from pipeline.data.index import Index
from pipeline.data.loader import Batch, Loader
from pipeline.data.order import Order
from pipeline.devices.numerics import running_in
from pipeline.devices.world import AgreedFlag, World
from pipeline.engine.checkpoint import CHECKPOINT_VERSION, CheckpointWriter
from pipeline.engine.console import RunConsole, summary_rows
from pipeline.engine.curves import draw_curves
from pipeline.engine.distiller import describe_loss, term_weights
from pipeline.engine.evaluate import Accuracy, evaluate
from pipeline.engine.export import export_student
from pipeline.engine.journal import Journal, write_state
from pipeline.engine.notes import say_cautions, say_job
from pipeline.engine.run_directory import fingerprints
from pipeline.engine.signals import StopRequest
from pipeline.engine.speed import Speed
from pipeline.engine.step import LateMetrics, TrainStep
from pipeline.engine.trace import Trace, drop_stale_traces
from pipeline.models.network import Network
from pipeline.teachers.choice import TeacherChoice

Outcome = Literal["done", "preempted"]
_SHOWN_IDS = 20


@dataclass
class Progress:
    """How far a run has come: what a checkpoint carries besides weights.

    Attributes:
        step: steps done.
        evaluations: one {"epoch", "step", "top1", ...} per evaluation.
        replaced: ids of training images that were gray, each once.
        replaced_val: the same of validation images.
        seconds: time spent training so far, over all restarts.
        waited: seconds of it spent waiting for data on rank 0.
    """

    step: int = 0
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    replaced_val: list[int] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0


@dataclass(frozen=True)
class Job:
    """What a session works with.

    Attributes:
        config: the resolved configuration.
        world: the ranks.
        data: the data sets.
        choice: where teacher outputs come from.
        order: the order of training.
        val_loader: evaluation views.
        prepare: pixels to normalised images.
        train_step: the step, which holds all weights.
        stop: signals.
        total_steps: where the run ends.
    """

    config: RunConfig
    world: World
    data: Datasets
    choice: TeacherChoice
    order: Order
    val_loader: Loader
    prepare: Callable[[torch.Tensor], torch.Tensor]
    train_step: TrainStep
    stop: StopRequest
    total_steps: int


class Session:
    """One process's part of a run, from its start or restart to its end.

    `goes_on` is called between steps and does all that is due there; `record` is called after each step.
    """

    def __init__(self, job: Job, state: dict[str, Any] | None, problems: list[str]) -> None:
        self._job, self._run = job, job.config.files.out
        self._progress = Progress()
        if state is not None:
            self._progress = Progress(**state["progress"])
            job.train_step.load(state)
        self._outcome: Outcome = "done"
        self._agreed, self._late = AgreedFlag(job.world), LateMetrics()
        self._unsaved = False
        self._writer = CheckpointWriter(self._run, job.config.running.keep)
        main = job.world.is_main
        first = self._progress.step
        self._journal = (
            Journal(self._run, first, evaluated={e["step"] for e in self._progress.evaluations}) if main else None
        )
        self._trace = self._open_trace(first)
        self._console = RunConsole(enabled=main, total_steps=job.total_steps, first_step=first, batch=job.order.batch)
        self._speed = Speed(job.world, job.order.batch)
        self._weights = term_weights(job.train_step.distiller.method.weights)
        self._say_start(problems)

    @property
    def step(self) -> int:
        """Steps done, which is the number of the next step."""
        return self._progress.step

    def __enter__(self) -> "Session":
        self._console.__enter__()
        self._write_state("running", "training")
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._console.__exit__(kind, *rest)
        for open_file in (self._journal, self._trace):
            if open_file is not None:
                open_file.close()

    def goes_on(self) -> bool:
        """Between two steps: evaluate and save where due; false at the end of the run or when a signal has come."""
        stopping = self._agreed.update(self._job.stop.raised)
        if not stopping and self._evaluation_is_due():
            stopping = not self._evaluate()
        if stopping:
            self._outcome = "preempted"
        at_end = self.step >= self._job.total_steps
        if (stopping or at_end or self._checkpoint_is_due()) and self._unsaved:
            self._save()
        return not (stopping or at_end)

    def record(self, batches: list[Batch], terms: dict[str, torch.Tensor]) -> None:
        """After a step was enqueued: note what it used, read the metrics of the step before."""
        progress = self._progress
        progress.step += 1
        if self._trace is not None:
            self._trace.write(batches)
        self._note_replaced(batches, self._job.data.train.index, self._progress.replaced)
        self._speed.add(sum(batch.wait_s for batch in batches))
        self._unsaved = True
        self._late.push(progress.step, terms, lr=self._job.train_step.rate)
        self._report(self._late.pop(keep=1))

    def finish(self) -> Outcome:
        """After the last step: everything durable, the result written; returns how the run ended."""
        self._report(self._late.pop(keep=0))
        self._agreed.drain()
        self._writer.wait()
        if self._outcome == "done":
            self._write_results()
        else:
            name = self._job.stop.name or "another rank's signal"
            self._console.say(f"stopped after step {self.step} by {name}; the same command goes on from there")
            self._write_state("preempted", f"stopped by {name}; start the same command again")
        self._job.world.barrier()
        return self._outcome

    def _open_trace(self, first: int) -> Trace | None:
        folder = self._job.config.files.trace
        if folder is None:
            return None
        self._job.world.main_first(lambda: drop_stale_traces(folder, first))
        return Trace(folder, rank=self._job.world.rank, start_step=first)

    # ---- between steps

    def _epoch(self, step: int) -> float:
        return step / self._job.order.steps_per_epoch

    def _evaluation_is_due(self) -> bool:
        step, per_epoch = self.step, self._job.order.steps_per_epoch
        done = self._progress.evaluations[-1]["step"] if self._progress.evaluations else 0
        if step == 0 or done == step:
            return False
        at_boundary = step % per_epoch == 0 and (step // per_epoch) % self._job.config.running.eval_every == 0
        return at_boundary or step == self._job.total_steps

    def _checkpoint_is_due(self) -> bool:
        every = self._job.config.running.checkpoint_every
        at_epoch = self.step > 0 and self.step % self._job.order.steps_per_epoch == 0
        return at_epoch or (every is not None and self.step > 0 and self.step % every == 0)

    def _evaluate(self) -> bool:
        """Evaluate student (and its average); false if a signal broke it off on all ranks."""
        self._speed.pause()
        self._report(self._late.pop(keep=0))
        step, module = self._job.train_step, self._job.train_step.distiller
        with step.statistics.averaged():
            accuracy = self._accuracy_of(module.student)
            average = None
            if accuracy is not None and step.average is not None:
                step.average.copy_buffers()
                average = self._accuracy_of(step.average.module)
                accuracy = accuracy if average is not None else None
        self._speed.resume()
        if accuracy is None:
            return False
        amp = self._job.config.numerics.amp
        result = {**asdict(accuracy), "precision": "fp32" if amp == "off" else amp}
        if average is not None:
            result["ema_top1"] = average.top1
        self._note_evaluation(result)
        return True

    def _accuracy_of(self, network: Network) -> Accuracy | None:
        job, batch = self._job, self._job.config.running.eval_batch
        num_rounds = -(-len(job.data.val.index) // (batch * job.world.size))

        def on_batch(done: int) -> bool:
            self._console.evaluating(done, num_rounds)
            return self._agreed.update(job.stop.raised)

        was_training = network.training
        network.eval()
        try:
            with closing(self._evaluation_batches()) as batches, running_in(job.world.device, job.config.numerics.amp):
                return evaluate(
                    network,
                    batches,
                    prepare=job.prepare,
                    world=job.world,
                    on_batch=on_batch,
                    num_rounds=num_rounds,
                )
        finally:
            network.train(was_training)

    def _note_evaluation(self, result: dict[str, Any]) -> None:
        epoch, self._unsaved = self._epoch(self.step), True
        self._progress.evaluations.append({"epoch": epoch, "step": self.step, **result})
        if self._journal is not None:
            self._journal.write("eval", self.step, epoch, result)
            if self.step < self._job.total_steps:  # at the end they are drawn with the result
                draw_curves(self._run, self._job.config.recipe, self._weights)
        extra = f", average {result['ema_top1']:.2f} %" if "ema_top1" in result else ""
        self._console.say(
            f"epoch {epoch:.4g} | val top-1 {result['top1']:.2f} % | top-5 {result['top5']:.2f} %"
            f" | cross-entropy {result['ce']:.4f}{extra} | {result['num_samples']:,} images in {result['precision']}"
        )

    def _save(self) -> None:
        """Save a checkpoint (all ranks take part, rank 0 writes)."""
        self._speed.pause()
        self._report(self._late.pop(keep=0))  # a killed run must find the metrics of all steps that it will not repeat
        self._progress.replaced = self._all_replaced(self._progress.replaced)
        self._progress.replaced_val = self._all_replaced(self._progress.replaced_val)
        state = {
            "version": CHECKPOINT_VERSION,
            "step": self.step,
            "config": json.dumps(self._job.config.to_json()),
            "fingerprints": fingerprints(self._job.data, self._job.choice),
            "progress": {
                **self._progress.__dict__,
                **self._speed.totals(self._progress.seconds, self._progress.waited),
            },
            **self._job.train_step.state(),
        }
        if self._job.world.is_main:
            self._writer.save(state, is_best=self._is_best())
        self._unsaved = False
        self._write_state("running", "training")
        self._speed.resume()

    def _is_best(self) -> bool:
        evaluations = self._progress.evaluations
        if not evaluations or evaluations[-1]["step"] != self.step:
            return False
        return evaluations[-1]["top1"] >= max(entry["top1"] for entry in evaluations)

    # ---- what a person sees

    def _say_start(self, problems: list[str]) -> None:
        job, lines = self._job, Lines(enabled=self._job.world.is_main)
        for problem in problems:
            lines.warn(f"{problem}; an older checkpoint is used, its steps come again")
        say_job(lines, job.config, job.world, job.data, job.order)
        formula = describe_loss(job.train_step.distiller.method.weights)
        lines.say(f"loss: {formula}; lines and curves.png show the weighted terms, metrics.jsonl the unweighted ones")
        say_cautions(lines, job.config, job.order, job.total_steps)
        if self.step:
            lines.say(f"going on after step {self.step} of {job.total_steps} (epoch {self._epoch(self.step):.2f})")

    def _note_replaced(self, batches: list[Batch], index: Index, known: list[int]) -> None:
        for sample_id in (i for batch in batches for i in batch.replaced):
            if sample_id not in known:
                known.append(sample_id)
                print(f"image {index.path_of(sample_id)} (id {sample_id}) is unreadable: gray")

    def _all_replaced(self, own: list[int]) -> list[int]:
        return sorted({sample_id for ids in self._job.world.gather(own) for sample_id in ids})

    def _evaluation_batches(self) -> Generator[Batch, None, None]:
        job = self._job
        batches = job.val_loader.evaluation(
            job.config.running.eval_batch, rank=job.world.rank, world_size=job.world.size
        )
        with closing(batches):
            for batch in batches:
                self._note_replaced([batch], job.data.val.index, self._progress.replaced_val)
                yield batch

    def _report(self, ready: list[tuple[int, dict[str, float]]]) -> None:
        every = self._job.config.running.log_every
        for step, metrics in ready:
            if step % every and step != self._job.total_steps and step != 1:
                continue
            speed = self._speed.reading()
            if self._journal is not None:
                self._journal.write("train", step, self._epoch(step), {**metrics, **speed.as_metrics()})
            self._console.train(
                step,
                int(self._epoch(step - 1)),
                metrics,
                weights=self._weights,
                images_per_s=speed.images_per_s,
                wait=speed.describe_wait(),
            )

    def _write_state(self, state: Literal["running", "done", "preempted"], message: str) -> None:
        if self._job.world.is_main:
            write_state(self._run, state, message, step=self.step, total_steps=self._job.total_steps)

    def _write_results(self) -> None:
        data = self._job.data
        replaced = self._all_replaced(self._progress.replaced)
        replaced_val = self._all_replaced(self._progress.replaced_val)
        with self._job.train_step.statistics.averaged():
            if not self._job.world.is_main:
                return
            weights = export_student(self._job.config, self._job.data.train.index.classes, self._job.train_step)
        summary = self._summary(weights, replaced, replaced_val)
        publish_text(self._run / "summary.json", json.dumps(summary, indent=1))
        draw_curves(self._run, self._job.config.recipe, self._weights)
        self._write_state("done", "")
        self._console.table(f"{self._job.config.recipe}: done", summary_rows(summary))
        for index, ids in ((data.train.index, replaced), (data.val.index, replaced_val)):
            for sample_id in ids[:_SHOWN_IDS]:
                self._console.say(f"  gray: {index.path_of(sample_id)} (id {sample_id})")

    def _summary(self, weights: str, replaced: list[int], replaced_val: list[int]) -> dict[str, Any]:
        config, evaluations = self._job.config, self._progress.evaluations
        totals = self._speed.totals(self._progress.seconds, self._progress.waited)
        return {
            "recipe": config.recipe,
            "student": config.student,
            "teacher": config.teacher,
            "teacher_source": self._job.choice.source,
            "store": self._job.choice.store_fingerprint,
            "method": config.method,
            "method_args": config.method_args,
            "steps": self.step,
            "epochs": self._epoch(self.step),
            "last": evaluations[-1] if evaluations else None,
            "best": max(evaluations, key=lambda entry: entry["top1"]) if evaluations else None,
            "images_per_s": self.step * self._job.order.batch / max(totals["seconds"], 1e-9),
            "data_wait_share": totals["waited"] / max(totals["seconds"], 1e-9),
            "seconds": totals["seconds"],
            "replaced_images": len(replaced) + len(replaced_val),
            "replaced_ids": replaced,
            "replaced_val_ids": replaced_val,
            "weights": weights,
            "world_size": self._job.world.size,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
