"""Curriculum temperature."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pipeline.core.errors import ConfigError
from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import Loss, SoftTermLoss, WeightedLoss
from pipeline.losses._shared.wrapping import WrapperLoss


@dataclass(frozen=True)
class CTKDLoss(WrapperLoss):
    """The temperature of the base's loss, trained against the student; its --temperature is refused."""

    paper = "Li et al. 2023, arXiv:2211.16231"
    published = {R34_R18: "71.32 (README; KD 70.83)", R50_MBV1: "71.16 (unchecked)"}
    published_with = {
        "DKD": {R34_R18: "71.51 (README; DKD 71.13)"},
        "PKT": {R34_R18: "71.29 (unchecked)"},
        "SRRL": {R34_R18: "71.30 (unchecked)"},
    }

    mode: Annotated[
        Literal["global", "instance"], About("one temperature for all samples (global), or one for each (instance).")
    ] = "global"
    schedule: Annotated[
        Literal["cosine", "linear"],
        About("how the strength of its reversed gradient grows; linear, as published, stops at (loops - 1) / loops."),
    ] = "cosine"
    loops: Annotated[int, About("epochs until that is complete; 10 on CIFAR-100.", ABOVE_0)] = 5
    t_start: Annotated[float, About("least temperature.", ABOVE_0)] = 1.0
    t_end: Annotated[float, About("width of the temperature's range.", ABOVE_0)] = 20.0
    hidden: Annotated[
        int,
        About(
            "width of the network that gives a temperature for each sample; its authors have not released it.", ABOVE_0
        ),
    ] = 128
    instance_form: Annotated[
        Literal["readme", "kl"],
        About("KL where each sample has its temperature: exact, or with 1e-7 as the authors' README has it."),
    ] = "readme"

    @classmethod
    def values_for(cls, base: type[Loss]) -> Mapping[str, Any] | None:
        """KD and DKD as on ImageNet. The own terms of others must not soften logits too."""
        if base.name == "dkd":
            return {"beta": 1.0, "warmup_epochs": 0}
        return {"kd": 1.0} if issubclass(base, WeightedLoss) and not issubclass(base, SoftTermLoss) else None

    def __post_init__(self) -> None:
        super().__post_init__()
        base = self.base
        if base.temperature != type(base)().temperature:
            raise ConfigError(f"ctkd learns the temperature: leave out --temperature {base.temperature:g}")
        if base.name != "dkd" and base.kd == 0:
            raise ConfigError(
                f"ctkd with base '{base.name}' learns the temperature of its divergence: --kd must be above 0"
            )

    def refuses_topk(self, num_kept: int) -> str | None:
        """Never served: T begins at 15.6."""
        return "a temperature that begins near 16 needs every class's logit"
