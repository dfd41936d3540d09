"""A whole training job, in the order in which it happens.

dataset index   --order-->   sample ids, dealt to ranks by micro-batch
ids, views      --plan-->    boxes, flips
ids + plan      --backend--> pixels --to device, normalise--> batch
ids, views      --store----> the teacher's rows, while pixels are decoded
batch           --teacher--> teacher outputs: rows decoded, or the network run
batch + outputs --one module: student + method--> loss terms --> optimiser step
"""

from pipeline.config import RunConfig
from pipeline.core.command import Outcome, said_once
from pipeline.engine.dry_run import dry_run
from pipeline.engine.resolve import resolve
from pipeline.engine.session import Session
from pipeline.engine.training import Training, open_training
from pipeline.jobs.checkpoint import check_fingerprints, find_latest
from pipeline.jobs.open import Job, open_job
from pipeline.jobs.run_folder import begin_run, read_saved_config


def fit(config: RunConfig) -> Outcome:
    """Run the job that `config` describes, or go on with it, in this process as one of its ranks.

    Returns:
        "done", or "preempted" when a signal asked for an early end and a checkpoint is durable.

    Raises:
        RefluxError: anything a user can mend; RUN/state.json says the same, once the command is known to be that run's.
    """
    folder, is_dry = config.files.out, config.running.dry_run
    with said_once():
        is_new = read_saved_config(folder) is None
    with open_job(folder, kept="checkpoints are whole", is_dry=is_dry, locked=True, is_new=is_new) as job:
        run = resolve(config, job)
        with open_training(run, job.world) as training:
            return train(training, job)


def train(training: Training, job: Job) -> Outcome:
    """From the newest checkpoint to the end, or to a signal."""
    run, world = training.run, training.world
    state, problems = find_latest(run.config.files.out)
    if state is not None:
        check_fingerprints(state, run.fingerprints)
    world.barrier()  # no rank has found anything against it
    job.attempt.accept()
    if job.is_dry:
        return dry_run(training)
    world.main_first(lambda: begin_run(run.config, anew=run.begins_anew))

    with Session(training, job.stop, state, problems) as session, training.steps(session.step) as steps:
        while session.goes_on():
            micro_batches = next(steps)
            terms = training.step(micro_batches)
            session.record(micro_batches, terms)
        return session.finish()
