"""The record of a method that changes another one."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pipeline.core.errors import ConfigError
from pipeline.losses._shared.pairs import Pair
from pipeline.losses._shared.record import Loss, Needs, WeightedLoss, Weights
from pipeline.losses._shared.registry import loss_names, loss_type


@dataclass(frozen=True)
class WrapperLoss(Loss):
    """Holds the record of its base, whose weights are the weights.

    In JSON the base stands as its name, `base` (default: kd), and its hyper-parameters, `base_args`.

    Attributes:
        base: the record of the method that is changed.
    """

    base: WeightedLoss

    @classmethod
    @abstractmethod
    def values_for(cls, base: type[Loss]) -> Mapping[str, Any] | None:
        """Hyper-parameters of a base that the wrapper's authors set; None for a method that cannot be its base."""

    @classmethod
    def around(cls, base: str, base_args: Mapping[str, Any] | None = None, **own: Any) -> Self:
        """The record around method `base`, with the wrapper's authors' values where `base_args` says nothing.

        Raises:
            ConfigError: a method that cannot be its base, or an unknown hyper-parameter.
        """
        kind = loss_type(base)
        values = cls.values_for(kind)
        if values is None:
            known = [name for name in loss_names() if cls.values_for(loss_type(name)) is not None]
            raise ConfigError(f"{cls.name} cannot change '{base}': its base is one of {', '.join(known)}")
        return super().from_json({"base": kind.from_json({**values, **(base_args or {})}), **own})

    @classmethod
    def from_json(cls, arguments: Mapping[str, Any]) -> Self:
        """See `Loss.from_json`."""
        return cls.around(**{"base": "kd", **arguments})

    def to_json(self) -> dict[str, Any]:
        """See `Loss.to_json`."""
        own = {name: value for name, value in super().to_json().items() if name != "base"}
        base_args = {name: value for name, value in self.base.to_json().items() if name not in self.base.only_alone}
        return {**own, "base": self.base.name, "base_args": base_args}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.base.only_alone:
            value, default = getattr(self.base, name), getattr(type(self.base), name)
            if value != default:
                raise ConfigError(f"{self.name} takes {default}, not {value}: leave out `{name}` among its base_args")

    @property
    def needs(self) -> Needs:
        """What the base needs, and logits."""
        return replace(self.base.needs, teacher=self.base.needs.teacher | {"logits"})

    @property
    def weights(self) -> Weights:
        """The base's."""
        return self.base.weights

    def work(self, pair: Pair) -> float:
        """The base's."""
        return self.base.work(pair)
