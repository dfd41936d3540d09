"""A whole precompute job, in the order in which it happens.

flags        --open-->     images, teacher, codecs; compared with the store where there is one
probe        --measure-->  the teacher's top-1, noise floor, classifier; then the store is begun
store        --missing-->  units of work (shards), dealt to independent jobs and to ranks
unit         --loader-->   batches of pixels --teacher--> outputs --codecs--> a shard, written in a thread, sealed whole
"""

from contextlib import ExitStack
from dataclasses import replace

from pipeline.core.command import Outcome, said_once
from pipeline.core.errors import ConfigError
from pipeline.jobs.open import Job, open_job
from pipeline.jobs.pulse import Pulse
from precompute.begin import begin_store
from precompute.config import PrecomputeConfig, check_config, check_store_named, parse_part
from precompute.endings import job_done, job_stopped, store_remedies
from precompute.going_on import check_pixels
from precompute.report import Report, say_work, show_end
from precompute.setting import Setting, check_names, open_setting
from precompute.store_folder import check_folder, left_as_found, remove_old_leftovers
from precompute.units import fill_units, find_work
from precompute.work import count_shards, deal, missing_units
from stores.index_file import write_index
from stores.layout import JOBS_FOLDER


def precompute(config: PrecomputeConfig) -> Outcome:
    """Run the job, or go on with it, in this process as one of its ranks.

    Returns:
        "done", or "preempted" when a signal asked for an early end; the same command goes on.

    Raises:
        RefluxError: anything a user can mend; its state.json says the same, once the store is known to be its own.
    """
    with said_once(ConfigError):
        check_config(config)
        store = check_store_named(config)
        with store_remedies(store):
            check_folder(store)
    folder = store / JOBS_FOLDER / parse_part(config.part).folder_name
    kept = "sealed shards stay and are not made again"
    with left_as_found(store, folder), open_job(folder, kept=kept, is_dry=config.dry_run) as job, ExitStack() as opened:
        opened.enter_context(store_remedies(store))
        with said_once(ConfigError):
            policy = check_names(config)
        world = job.join(config.device, config.reading.threads)
        with said_once(ConfigError):
            setting = opened.enter_context(open_setting(config, policy, world, job.folder))
        return fill(setting, job)


def fill(setting: Setting, job: Job) -> Outcome:
    """From a store that may not be there to one with all views, or to a signal."""
    config, world, store = setting.config, setting.world, check_store_named(setting.config)
    if job.is_dry:
        say_work(setting, find_work(setting))
        return "done"
    world.main_first(lambda: remove_old_leftovers(store))
    if not job.attempt.is_known:
        job.attempt.accept()
    begun = begin_store(setting, job.stop)
    job.attempt.accept()
    if begun is None:
        return job_stopped(job, job.stop.name, left="all")
    setting, measured = begun

    units = find_work(setting)
    if units:
        check_pixels(setting)
    say_work(setting, units)
    with Report(setting, units) as report, Pulse(world, job.stop, report.beat) as pulse:
        own = deal(units, world.rank, world.size)
        fill_units(setting, own, pulse)
        pulse.leave(count_shards(missing_units(own, store)))
    totals = pulse.totals
    if world.is_main and totals.rows:
        show_end(totals, views=config.views, seconds=report.seconds)
    if totals.left:
        return job_stopped(job, pulse.stop_name, left=f"{totals.left}")
    world.main_first(lambda: write_index(store, replace(setting.manifest, measured=measured)))
    return job_done(job, setting, totals)
