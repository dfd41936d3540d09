"""What adapters of the authors' vectors share: a file's arrays and hyper-parameters, which know what was read.

Our side is computed in float64, from the file's numbers as they are. A result in float64 agrees within 1e-8, relative,
or 1e-10 of the array's largest entry.

A result in float32 carries the rounding of its authors' arithmetic and may be off by that, which we measure by Monte
Carlo arithmetic (Parker 1997): our side is computed again, with every number on the way moved by a last bit of float32,
up or down at random. An operation that sums n terms inside rounds not once but n times, with errors that in all
likelihood stay below 3 sqrt(n) of one rounding (Higham and Mary 2019), where n is the greatest sum of a given array's
axes. So what is allowed is 3 sqrt(n) times how far the result was moved, and its own last bit. In float64 the same
serves results that are nothing but rounding, as the gradient of a bias before a BatchNorm; it is too small to matter
for others.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pipeline.methods._shared.registry import build_method

RESULTS = ("out.loss", "grad.", "param_after.", "buffer_after.")
GIVEN = ("in.", "param.", "buffer.")
RTOL = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): float(np.finfo(np.float32).eps)}
ATOL = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 0.0}
_FLOOR = 1e-15
_DRAWS = 4


class Hyper(dict[str, Any]):
    """Hyper-parameters of a file, nested as they are there."""

    def __init__(self, values: dict[str, Any], prefix: str = "", implied: dict[str, Any] | None = None) -> None:
        self.implied: dict[str, Any] = {} if implied is None else implied
        self._prefix, self._read = prefix, set[str]()
        nested = {
            name: Hyper(value, f"{prefix}{name}.", self.implied) if isinstance(value, dict) else value
            for name, value in values.items()
        }
        super().__init__(nested)

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        return super().get(name, default)

    def implies(self, *names: str) -> None:
        """Our method has no argument for these; only the results show whether it does the same."""
        self.implied.update({self._prefix + name: self[name] for name in names if name in self})

    def says_nothing(self, *names: str) -> None:
        """These do not change the results that the file holds."""
        self._read.update(names)

    def unread(self) -> list[str]:
        """Those that went nowhere."""
        nested = [each for value in self.values() if isinstance(value, Hyper) for each in value.unread()]
        return [self._prefix + name for name in self if name not in self._read] + nested


class Vector(dict[str, np.ndarray]):
    """One file: its arrays by name, and `hp` and `repo` of its description.

    Args:
        arrays: by name.
        meta: the description.
        case: the adapter.
        recorded: where `check` keeps what was found, instead of comparing it.
    """

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        meta: dict[str, Any],
        case: Callable[["Vector"], None],
        recorded: dict[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__(arrays)
        self.hp, self.repo = Hyper(meta.get("hp", {})), meta.get("repo", "")
        self._meta, self._case, self._recorded = meta, case, recorded
        self._is_single = any(_is_given(name, array) and array.dtype == np.float32 for name, array in arrays.items())
        self._read: set[str] = set()
        self._moved: dict[np.dtype[Any], dict[str, float]] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        self._read.add(name)
        return super().__getitem__(name)

    def compare(self) -> None:
        """Run the adapter."""
        self._case(self)

    def below(self, kind: str) -> Iterator[tuple[str, str]]:
        """Names that begin with `kind`, whole and without it."""
        return ((name, name.removeprefix(kind)) for name in list(self) if name.startswith(kind))

    def unread(self) -> list[str]:
        """Losses, gradients and states after a step that nobody compared."""
        return [name for name in self if _is_result(name) and name not in self._read]

    def check_if_there(self, name: str, found: torch.Tensor) -> None:
        if name in self:
            self.check(name, found)

    def check(self, name: str, found: torch.Tensor | None, *, times: float = 1.0) -> None:
        """Compare the array `name`, times a number, up to shapes () and (1,); see this file's docstring."""
        stored, what = self[name], name if times == 1 else f"{name} * {times:g}"
        wanted = stored.astype(np.float64) * times
        assert found is not None or not wanted.any(), f"{what}: no gradient has arrived"
        got = np.zeros_like(wanted) if found is None else found.detach().double().numpy()
        assert got.size == wanted.size, f"{what}: shape {got.shape}, expected {wanted.shape}"
        got = got.reshape(wanted.shape)
        if self._recorded is not None:
            self._recorded[what] = got
            return
        single = self._is_single or stored.dtype == np.float32 or (found is not None and found.dtype == torch.float32)
        error, dtype = np.abs(got - wanted), np.dtype(np.float32 if single else np.float64)
        allowed = RTOL[dtype] * np.abs(wanted) + ATOL[dtype] * np.abs(wanted).max(initial=0.0) + _FLOOR
        if not (error <= allowed).all():
            allowed = allowed + 3 * math.sqrt(self._terms()) * self._moves(what, dtype)
        worst = np.unravel_index(np.argmax(np.nan_to_num(error - allowed, nan=np.inf)), error.shape)
        assert (error <= allowed).all(), (
            f"{what}: {got[worst]} where the file has {wanted[worst]}, off by {error[worst]:.3g} with"
            f" {allowed[worst]:.3g} allowed, at {tuple(map(int, worst))} of {wanted.shape}"
        )

    def _terms(self) -> int:
        return max(sum(array.shape) for name, array in self.items() if _tail(name).startswith(GIVEN[:2]))

    def _moves(self, what: str, dtype: np.dtype[Any]) -> float:
        """How far arithmetic in `dtype` moves a result, at most, in some draws."""
        if dtype not in self._moved:
            exact, *draws = (self._record(seed, dtype) for seed in (None, *range(_DRAWS)))
            self._moved[dtype] = {
                name: max(float(np.abs(draw[name] - found).max(initial=0.0)) for draw in draws)
                for name, found in exact.items()
            }
        return self._moved[dtype][what]

    def _record(self, seed: int | None, dtype: np.dtype[Any]) -> dict[str, np.ndarray]:
        """What our side finds, where `seed` is given in arithmetic that rounds to `dtype`."""
        recorded = dict[str, np.ndarray]()
        with contextlib.nullcontext() if seed is None else _Rounded(seed, float(np.finfo(dtype).eps)):
            Vector(dict(self.items()), self._meta, self._case, recorded).compare()
        return recorded


class _Rounded(TorchDispatchMode):
    """Moves every number that PyTorch computes by a last bit, up or down at random."""

    def __init__(self, seed: int, last_bit: float) -> None:
        super().__init__()
        self._generator, self._last_bit = torch.Generator().manual_seed(seed), last_bit

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        moves_memory = any(each.alias_info is not None for each in func._schema.returns)  # a view, or in place
        return found if moves_memory else tree_map_only(torch.Tensor, self._move, found)

    def _move(self, value: torch.Tensor) -> torch.Tensor:
        if not value.is_floating_point():
            return value
        ups = torch.randint(2, value.shape, generator=self._generator, dtype=value.dtype)
        return value * (1 + self._last_bit * (2 * ups - 1))


def made(name: str, **hyper: Any) -> Any:
    """Our method by its name."""
    return build_method(name, hyper)


def tensor(array: np.ndarray) -> torch.Tensor:
    """A copy without gradient: integers as they are, all else in float64."""
    return torch.tensor(array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float64))


def leaf(array: np.ndarray) -> torch.Tensor:
    """A copy with gradient."""
    return tensor(array).requires_grad_()


def _is_given(name: str, array: np.ndarray) -> bool:
    return _tail(name).startswith(GIVEN) and np.issubdtype(array.dtype, np.floating)


def _is_result(name: str) -> bool:
    return _tail(name).startswith(RESULTS)


def _tail(name: str) -> str:
    """A name without its step."""
    return name.split(".", 1)[1] if name.startswith("step") else name
