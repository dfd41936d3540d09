"""What a recipe is.

@recipe(published=DKDLoss.published)
def dkd_r34_r18() -> Distilled:
    \"\"\"Decoupled KD of ResNet-34 to ResNet-18, as in mdistiller.\"\"\"
    return Distilled(R34_R18, DKDLoss(), MDISTILLER)

Its name, its flags, its command line, its cost and what is published of it follow from these lines.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from pipeline.config import Files, RunConfig, Settings
from pipeline.losses._shared.pairs import Known, Pair, Student, known
from pipeline.losses._shared.record import Loss, Published
from pipeline.losses.supervised import SupervisedLoss

_GPUS, _BUSY = 8, 256  # images on each, from which a step of these networks outlasts its launches
_LARGE_SIDE = 128  # px


@dataclass(frozen=True)
class Distilled:
    """A run in which a pair's teacher teaches its student.

    Attributes:
        pair: the two networks.
        loss: the method's record.
        settings: all else.
    """

    pair: Pair
    loss: Loss
    settings: Settings = field(default_factory=Settings)

    def config(self, recipe: str, files: Files) -> RunConfig:
        """The run of `recipe` that reads and writes `files`."""
        return RunConfig.of(recipe, self.pair.student, self.pair.teacher, self.loss, files, self.settings)


@dataclass(frozen=True)
class Supervised:
    """A run in which a student learns from labels alone.

    Attributes:
        student: model that learns.
        settings: all but the loss.
        loss: cross-entropy.
    """

    student: Student
    settings: Settings = field(default_factory=Settings)
    loss: SupervisedLoss = field(default_factory=SupervisedLoss)

    def config(self, recipe: str, files: Files) -> RunConfig:
        """The run of `recipe` that reads and writes `files`."""
        return RunConfig.of(recipe, self.student, None, self.loss, files, self.settings)


Plan = Distilled | Supervised


def recipe(*, published: Published | str = "") -> Callable[[Callable[[], Plan]], "Recipe"]:
    """Make a function of a recipes folder a recipe.

    Args:
        published: top-1 in per cent with its source, "72.05 (README)", or those of pairs, of which its own is taken.
    """
    return lambda function: Recipe(function, published)


@dataclass(frozen=True)
class Recipe:
    """A named run.

    Attributes:
        function: gives its networks, loss and settings; says in its docstring what it is.
        published: see `recipe`.
    """

    function: Callable[[], Plan]
    published: Published | str = ""

    def __call__(self, files: Files) -> RunConfig:
        """Its run with `files`, nothing else changed."""
        return self.plan.config(self.name, files)

    @property
    def name(self) -> str:
        """That of its function."""
        return self.function.__name__

    @cached_property
    def plan(self) -> Plan:
        """Its networks, loss and settings."""
        return self.function()

    @property
    def in_brief(self) -> str:
        """The first line of its docstring."""
        return self._told.partition("\n")[0]

    @property
    def figures(self) -> str:
        """What is published; "" for nothing."""
        if isinstance(self.published, str):
            return self.published
        return self.published.get(self.plan.pair, "") if isinstance(self.plan, Distilled) else ""

    @property
    def cost(self) -> str:
        """Epochs and arithmetic, as a multiple of its student's from labels; "" for networks that nobody knows.

        A backward pass is twice a forward one; the teacher runs forward, the method's own parts both ways.
        """
        plan, epochs = self.plan, self.plan.settings.optimisation.epochs
        if isinstance(plan, Supervised):
            alone = known(plan.student)
            return "" if alone is None else f"{epochs} epochs of {alone.title}"
        student, teacher = known(plan.pair.student), known(plan.pair.teacher)
        if student is None or teacher is None:
            return ""
        times = _times(student, teacher, plan.loss.work(plan.pair))
        return f"{epochs} epochs, {times:.1f} times the arithmetic of {student.title} from labels"

    def command(self, program: str) -> str:
        """A line that starts it."""
        settings = self.plan.settings
        starter = f"torchrun --nproc_per_node={_GPUS}" if settings.views.resolution >= _LARGE_SIDE else "python"
        data = "" if settings.running.backend == "synthetic" else " --data DIR"
        return f"{starter} {program} {self.name}{data} --out runs/{self.name}"

    def help(self, program: str) -> str:
        """All that --help says before the flags."""
        first, _, more = self._told.partition("\n\n")
        known = [f"Published: {self.figures or 'none'}.", f"Cost: {self.cost}."] if self.cost else []
        return "\n\n".join(filter(None, (first, self.command(program), " ".join(known), more, self.on_eight_gpus)))

    @property
    def on_eight_gpus(self) -> str:
        """Which batch keeps a machine's eight GPUs busy with its networks; "" for small networks."""
        settings = self.plan.settings
        batch, part = settings.optimisation.batch, settings.optimisation.max_micro_batch
        if settings.views.resolution < _LARGE_SIDE or batch // _GPUS >= _BUSY:
            return ""
        images = part or batch // _GPUS
        flags, price = f"--batch {_GPUS * _BUSY}", "with --lr scaled to it"
        if part is not None:
            flags, price = f"{flags} --max-micro-batch {_BUSY}", "with another weight of the loss"
        return (
            f"On {_GPUS} GPUs: launching a micro-batch of {images} images is likely to take the host longer than"
            f" running it takes a large GPU (--dry-run measures both); {flags}, {price}, keeps them busy."
        )

    @property
    def _told(self) -> str:
        return inspect.getdoc(self.function) or ""


def _times(student: Known, teacher: Known, parts: float) -> float:
    return 1 + (teacher.multiply_adds + 3 * parts) / (3 * student.multiply_adds)
