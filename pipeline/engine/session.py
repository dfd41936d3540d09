"""What happens between steps: signals, evaluation, checkpoints, and what a person sees."""

import json
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pipeline.core.atomic import publish_text
from pipeline.core.command import Lines, Outcome
from pipeline.data.index import Index
from pipeline.data.loader import Batch
from pipeline.devices.numerics import running_in
from pipeline.devices.world import AgreedFlag
from pipeline.engine.distiller import describe_loss, term_weights
from pipeline.engine.evaluate import Accuracy, evaluate
from pipeline.engine.export import export_student
from pipeline.engine.notes import say_cautions, say_job
from pipeline.engine.speed import Speed
from pipeline.engine.step import LateMetrics
from pipeline.engine.training import Training
from pipeline.jobs.checkpoint import CHECKPOINT_VERSION, CheckpointWriter
from pipeline.jobs.console import RunConsole, say_gray, summary_rows
from pipeline.jobs.curves import draw_curves
from pipeline.jobs.journal import Journal
from pipeline.jobs.signals import StopRequest
from pipeline.jobs.state import State, write_state
from pipeline.jobs.trace import Trace, drop_stale_traces
from pipeline.models.network import Network

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


class Session:
    """One process's part of a run, from its start or restart to its end.

    `goes_on` is called between steps and does all that is due there; `record` is called after each step.
    """

    def __init__(
        self, training: Training, stop: StopRequest, state: dict[str, Any] | None, problems: list[str]
    ) -> None:
        self._training, self._stop, self._step, self._world = training, stop, training.step, training.world
        self._run, self._config, self._folder = training.run, training.run.config, training.run.config.files.out
        self._progress = Progress()
        if state is not None:
            self._progress = Progress(**state["progress"])
            self._step.load(state)
        self._outcome: Outcome = "done"
        self._agreed, self._late = AgreedFlag(self._world), LateMetrics()
        self._unsaved = False
        self._writer = CheckpointWriter(self._folder, self._config.running.keep)
        main = self._world.is_main
        first = self._progress.step
        self._journal = (
            Journal(self._folder, first, evaluated={e["step"] for e in self._progress.evaluations}) if main else None
        )
        self._trace = self._open_trace(first)
        batch, total_steps = self._run.order.batch, self._run.total_steps
        self._console = RunConsole(enabled=main, total_steps=total_steps, first_step=first, batch=batch)
        self._speed = Speed(self._world, batch)
        self._weights = term_weights(self._step.distiller.method.weights)
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
        stopping = self._agreed.update(self._stop.raised)
        if not stopping and self._evaluation_is_due():
            stopping = not self._evaluate()
        if stopping:
            self._outcome = "preempted"
        at_end = self.step >= self._run.total_steps
        if (stopping or at_end or self._checkpoint_is_due()) and self._unsaved:
            self._save()
        return not (stopping or at_end)

    def record(self, batches: list[Batch], terms: dict[str, torch.Tensor]) -> None:
        """After a step was enqueued: note what it used, read the metrics of the step before."""
        progress = self._progress
        progress.step += 1
        if self._trace is not None:
            self._trace.write(batches)
        self._note_replaced(batches, self._run.data.train.index, self._progress.replaced)
        self._speed.add(sum(batch.wait_s for batch in batches))
        self._unsaved = True
        self._late.push(progress.step, terms, lr=self._step.rate)
        self._report(self._late.pop(keep=1))

    def finish(self) -> Outcome:
        """After the last step: everything durable, the result written; returns how the run ended."""
        self._report(self._late.pop(keep=0))
        self._agreed.drain()
        self._writer.wait()
        if self._outcome == "done":
            self._write_results()
        else:
            name = self._stop.name or "another rank's signal"
            self._console.say(f"stopped after step {self.step} by {name}; the same command goes on from there")
            self._write_state("preempted", f"stopped by {name}; start the same command again")
        self._world.barrier()
        return self._outcome

    def _open_trace(self, first: int) -> Trace | None:
        folder = self._config.files.trace
        if folder is None:
            return None
        self._world.main_first(lambda: drop_stale_traces(folder, first))
        return Trace(folder, rank=self._world.rank, start_step=first)

    # ---- between steps

    def _epoch(self, step: int) -> float:
        return step / self._run.order.steps_per_epoch

    def _evaluation_is_due(self) -> bool:
        step, per_epoch = self.step, self._run.order.steps_per_epoch
        done = self._progress.evaluations[-1]["step"] if self._progress.evaluations else 0
        if step == 0 or done == step:
            return False
        at_boundary = step % per_epoch == 0 and (step // per_epoch) % self._config.running.eval_every == 0
        return at_boundary or step == self._run.total_steps

    def _checkpoint_is_due(self) -> bool:
        every = self._config.running.checkpoint_every
        at_epoch = self.step > 0 and self.step % self._run.order.steps_per_epoch == 0
        return at_epoch or (every is not None and self.step > 0 and self.step % every == 0)

    def _evaluate(self) -> bool:
        """Evaluate student (and its average); false if a signal broke it off on all ranks."""
        self._speed.pause()
        self._report(self._late.pop(keep=0))
        step, module = self._step, self._step.distiller
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
        amp = self._config.numerics.amp
        result = {**asdict(accuracy), "precision": "fp32" if amp == "off" else amp}
        if average is not None:
            result["ema_top1"] = average.top1
        self._note_evaluation(result)
        return True

    def _accuracy_of(self, network: Network) -> Accuracy | None:
        batch = self._config.running.eval_batch
        num_rounds = -(-len(self._run.data.val.index) // (batch * self._world.size))

        def on_batch(done: int) -> bool:
            self._console.evaluating(done, num_rounds)
            return self._agreed.update(self._stop.raised)

        was_training = network.training
        network.eval()
        try:
            with (
                closing(self._evaluation_batches()) as batches,
                running_in(self._world.device, self._config.numerics.amp),
            ):
                return evaluate(
                    network,
                    batches,
                    prepare=self._training.networks.prepare,
                    world=self._world,
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
            if self.step < self._run.total_steps:  # at the end they are drawn with the result
                draw_curves(self._folder, self._config.recipe, self._weights)
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
            "config": json.dumps(self._config.to_json()),
            "fingerprints": self._run.fingerprints,
            "progress": {
                **self._progress.__dict__,
                **self._speed.totals(self._progress.seconds, self._progress.waited),
            },
            **self._step.state(),
        }
        if self._world.is_main:
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
        lines = Lines(enabled=self._world.is_main)
        for problem in problems:
            lines.warn(f"{problem}; an older checkpoint is used, its steps come again")
        say_job(lines, self._config, self._world, self._run.data, self._run.order)
        formula = describe_loss(self._step.distiller.method.weights)
        lines.say(f"loss: {formula}; lines and curves.png show the weighted terms, metrics.jsonl the unweighted ones")
        say_cautions(lines, self._config, self._run.order, self._run.total_steps)
        if self.step:
            lines.say(
                f"going on after step {self.step} of {self._run.total_steps} (epoch {self._epoch(self.step):.2f})"
            )

    def _note_replaced(self, batches: list[Batch], index: Index, known: list[int]) -> None:
        new = dict.fromkeys(i for batch in batches for i in batch.replaced if i not in known)
        known += new
        say_gray(index, new)

    def _all_replaced(self, own: list[int]) -> list[int]:
        return sorted({sample_id for ids in self._world.gather(own) for sample_id in ids})

    def _evaluation_batches(self) -> Generator[Batch, None, None]:
        batches = self._training.val_loader.evaluation(
            self._config.running.eval_batch, rank=self._world.rank, world_size=self._world.size
        )
        with closing(batches):
            for batch in batches:
                self._note_replaced([batch], self._run.data.val.index, self._progress.replaced_val)
                yield batch

    def _report(self, ready: list[tuple[int, dict[str, float]]]) -> None:
        every = self._config.running.log_every
        for step, metrics in ready:
            if step % every and step != self._run.total_steps and step != 1:
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

    def _write_state(self, state: State, message: str) -> None:
        if self._world.is_main:
            write_state(self._folder, state, message, step=self.step, total_steps=self._run.total_steps)

    def _write_results(self) -> None:
        train, val = self._run.data.train.index, self._run.data.val.index
        replaced = self._all_replaced(self._progress.replaced)
        replaced_val = self._all_replaced(self._progress.replaced_val)
        with self._step.statistics.averaged():
            if not self._world.is_main:
                return
            weights = export_student(self._config, train.classes, self._step)
        summary = self._summary(weights, replaced, replaced_val)
        publish_text(self._folder / "summary.json", json.dumps(summary, indent=1))
        draw_curves(self._folder, self._config.recipe, self._weights)
        self._write_state("done", "")
        self._console.table(f"{self._config.recipe}: done", summary_rows(summary))
        for index, ids in ((train, replaced), (val, replaced_val)):
            for sample_id in ids[:_SHOWN_IDS]:
                self._console.say(f"  gray: {index.path_of(sample_id)} (id {sample_id})")

    def _summary(self, weights: str, replaced: list[int], replaced_val: list[int]) -> dict[str, Any]:
        config, evaluations = self._config, self._progress.evaluations
        totals = self._speed.totals(self._progress.seconds, self._progress.waited)
        return {
            "recipe": config.recipe,
            "student": config.student,
            "teacher": config.teacher,
            "teacher_source": self._run.choice.source,
            "store": self._run.choice.store_fingerprint,
            "method": config.method,
            "method_args": config.method_args,
            "steps": self.step,
            "epochs": self._epoch(self.step),
            "last": evaluations[-1] if evaluations else None,
            "best": max(evaluations, key=lambda entry: entry["top1"]) if evaluations else None,
            "images_per_s": self.step * self._run.order.batch / max(totals["seconds"], 1e-9),
            "data_wait_share": totals["waited"] / max(totals["seconds"], 1e-9),
            "seconds": totals["seconds"],
            "replaced_images": len(replaced) + len(replaced_val),
            "replaced_ids": replaced,
            "replaced_val_ids": replaced_val,
            "weights": weights,
            "world_size": self._world.size,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
