"""What an augmentation policy is; policies by name, and from JSON.

A policy is a file of `policies/` with `POLICY`. Its class may stand in the same file; those that several share are in
`policies/_shared/`.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.core import parts
from pipeline.core.errors import DataError
from pipeline.data import policies


@dataclass(frozen=True)
class Policy(ABC):
    """Draws boxes and flips. A frozen dataclass whose fields are numbers and tuples; its JSON stands in every store.

    Attributes:
        kind: the class's name in JSON.
    """

    kind: ClassVar[str]

    @abstractmethod
    def draw(
        self, ids: np.ndarray, views: np.ndarray, widths: np.ndarray, heights: np.ndarray, plan_seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (B, 4) integer boxes (top, left, height, width) inside the images, and (B,) bool flips.

        All arguments are (B,) int64. A row depends on its own sample only.
        """

    def to_json(self) -> dict[str, Any]:
        """The JSON object from which `from_json` rebuilds an equal policy."""
        return {"kind": self.kind, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}


def get_policy(name: str) -> Policy:
    """The policy called `name`."""
    policy: Policy = parts.load(policies, "policy", name).POLICY
    return policy


def from_json(fields: dict[str, Any]) -> Policy:
    """Rebuild a policy from what its `to_json` returned.

    Raises:
        DataError: no named policy is of its kind.
    """
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    kinds: dict[Any, type[Policy]] = {file.POLICY.kind: type(file.POLICY) for file in parts.load_all(policies).values()}
    kind = own.pop("kind", None)
    if kind not in kinds:
        raise DataError(f"unknown kind of policy {kind!r}; this version knows {sorted(kinds)}: update Reflux")
    return kinds[kind](**own)
