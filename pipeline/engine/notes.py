"""What a person is told before the first step, by a run and by a dry run."""

from pipeline.config import RunConfig, schedule_warnings
from pipeline.core.command import Lines
from pipeline.core.cpu import usable_cpus
from pipeline.data.datasets import Datasets
from pipeline.data.order import Order
from pipeline.devices.world import World

_FEW_REPEATS = 3  # with 50 views and 150 epochs students were as good as with 400 views (ml-dr)


def say_job(lines: Lines, config: RunConfig, world: World, data: Datasets, order: Order) -> None:
    """Say what is trained on what, and how the work is dealt."""
    index = data.train.index
    lines.say(
        f"{config.recipe}: {config.student} from {config.teacher or 'labels'}"
        f" | {len(index):,} train and {len(data.val.index):,} val images, {len(index.classes)} classes"
    )
    lines.say(
        f"{world.size} rank(s) on {world.device.type}, {order.num_micro_batches} micro-batches of"
        f" {order.micro_batch}, {order.steps_per_epoch} steps an epoch | backend {data.train_backend.name},"
        f" {world.threads} decoder thread(s) of {usable_cpus()} cores for each rank"
    )


def say_cautions(lines: Lines, config: RunConfig, order: Order, total_steps: int) -> None:
    """Say what is allowed and may not be meant; `total_steps` is where the run ends, `--max-steps` counted."""
    for warning in schedule_warnings(config.optimisation):
        lines.warn(warning)
    meant = config.optimisation.max_micro_batch
    if meant is not None and order.micro_batch < meant:
        lines.say(
            f"micro-batches of {order.micro_batch}: up to {meant} are meant (--max-micro-batch), and what a loss of the"
            " whole micro-batch is worth changes with its size"
        )
    num_views, epochs = config.views.num_views, total_steps / order.steps_per_epoch
    if num_views is None or epochs <= num_views:
        return
    often = f"{epochs:.4g} epochs see {num_views} view(s) {epochs / num_views:.1f} times each"
    if epochs / num_views <= _FEW_REPEATS:
        lines.say(often)
    else:
        lines.warn(f"{often}; students overfit views seen more than about {_FEW_REPEATS} times. Consider more views.")
