"""What a manifest says of teacher, pixels and measurements: a frozen record for each, never a dictionary by key.

A record is read once from JSON and written back to the same JSON: entries that this version does not know stay in
`others`, and those that a store does not have are read as their defaults (`lacking`) or None, and stay away.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

from pipeline.core.errors import StoreError


@dataclass(frozen=True, kw_only=True)
class Record:
    """An object of a manifest.

    Attributes:
        others: entries that have no field here, as they stand.
        lacking: fields that the JSON does not have.
    """

    _objects: ClassVar[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = MappingProxyType({})
    others: Mapping[str, Any] = field(default_factory=dict)
    lacking: frozenset[str] = field(default=frozenset(), compare=False)

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> Self:
        """The record of a JSON object.

        Raises:
            StoreError: it is none.
        """
        if not isinstance(entries, Mapping):
            raise StoreError(f"this entry of a manifest must be a JSON object ({', '.join(cls._names())}): {entries!r}")
        given = {name: _read(entries.get(name), cls._objects.get(name)) for name in cls._names()}
        found = {name: value for name, value in given.items() if value is not None}
        others = {name: value for name, value in entries.items() if name not in found}
        blank = dict.fromkeys(cls._needed())
        return cls(**{**blank, **found}, others=others, lacking=frozenset(given.keys() - found.keys()))

    def to_json(self) -> dict[str, Any]:
        """The JSON object, its entries in the order of files."""
        given = {name: getattr(self, name) for name in self._names() if name not in self.lacking}
        own = {name: as_json(value) for name, value in given.items() if value is not None}
        return dict(sorted({**self.others, **own}.items()))

    def having(self, **entries: Any) -> Self:
        """Itself with some fields set."""
        others = {name: value for name, value in self.others.items() if name not in entries}
        return replace(self, **entries, others=others, lacking=self.lacking - set(entries))

    def __str__(self) -> str:
        return str(self.to_json())

    @classmethod
    def _names(cls) -> list[str]:
        return [item.name for item in fields(cls) if item.name not in ("others", "lacking")]

    @classmethod
    def _needed(cls) -> list[str]:
        return [item.name for item in fields(cls) if item.default is item.default_factory is MISSING]


def _read(value: Any, kind: Callable[[Mapping[str, Any]], Any] | None) -> Any:
    """A field's value from its JSON; None for what is not there, or no object where the field is one."""
    if kind is not None:
        return kind(value) if isinstance(value, Mapping) else None
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class TeacherRecord(Record):
    """The teacher, and how it was run.

    Attributes:
        name: NAME@WEIGHTS, as it was asked for.
        weights_sha256: of its weights and buffers.
        seed: of random weights.
        resolution: side of its images in pixels.
        mean: per-channel mean of 0..1 pixels.
        std: per-channel deviation.
        precision: "fp32", "bf16" or "fp16" of its body.
        batch: images of every forward pass; a shorter batch was filled up.
        channels_last: whether its images lay so in memory.
        compile: whether it ran through torch.compile.
        num_classes: numbers of a row of logits.
        embedding_dim: numbers of a row of embeddings.
    """

    name: str
    weights_sha256: str
    seed: int = 0
    resolution: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    precision: str
    batch: int
    channels_last: bool = True
    compile: bool = False
    num_classes: int | None = None
    embedding_dim: int | None = None

    def whole(self) -> Self:
        """Itself, where it has all that the teacher is run by.

        Raises:
            StoreError: names what the store does not say.
        """
        absent = [name for name in self._needed() if getattr(self, name) is None]
        if absent:
            raise StoreError(
                f"a store must say how its teacher was run, and this one's manifest lacks {', '.join(absent)}:"
                " its rows cannot be computed again"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class PixelRecipe(Record):
    """How pixels were made.

    Attributes:
        backend: which one made them; None in a store that does not say it.
        decode: how much of an image was decoded, and by what.
        decoder: what decoded the images, where the backend has a choice or had one.
        hw_decoder_load: share of each batch that the device's JPEG engines decoded, where they did.
    """

    backend: str | None = None
    decode: str | None = None
    decoder: str | None = None
    hw_decoder_load: float | None = None

    def same_but_decoder(self, other: "PixelRecipe") -> bool:
        """Whether two recipes differ in their decoder at most: that may make the same pixels, and rows can tell."""
        return {**self.to_json(), "decoder": None} == {**other.to_json(), "decoder": None}


@dataclass(frozen=True, kw_only=True)
class Difference(Record):
    """What something changed in the teacher's logits, over the rows of the probe.

    Attributes:
        kl: mean KL(teacher || changed), nats.
        kl_max: greatest.
        max_abs_logit: greatest difference of a logit.
    """

    kl: float = 0.0
    kl_max: float = 0.0
    max_abs_logit: float = 0.0


@dataclass(frozen=True, kw_only=True)
class NoiseFloor(Difference):
    """What another batch size changes on one machine.

    Attributes:
        batches: both sizes.
        rows: of the probe.
    """

    batches: tuple[int, int]
    rows: int


@dataclass(frozen=True, kw_only=True)
class CodecCost(Difference):
    """What a codec changes.

    Attributes:
        row_bytes: of an encoded row.
    """

    row_bytes: int


@dataclass(frozen=True, kw_only=True)
class TeacherAccuracy(Record):
    """The teacher on the validation images.

    Attributes:
        top1: percent.
        top5: percent.
        ce: mean cross-entropy, nats.
        num_samples: images.
    """

    top1: float
    top5: float
    ce: float
    num_samples: int


def _costs(codecs: Mapping[str, Any]) -> dict[str, CodecCost]:
    return {codec: CodecCost.from_json(cost) for codec, cost in codecs.items()}


@dataclass(frozen=True, kw_only=True)
class Measured(Record):
    """What was measured of the teacher; no part of a store's identity.

    Attributes:
        top1: its accuracy; None where it was not measured.
        noise_floor: what another batch size changes; None where it was not measured.
        codecs: what each codec changes, by its id.
    """

    _objects = MappingProxyType(
        {"top1": TeacherAccuracy.from_json, "noise_floor": NoiseFloor.from_json, "codecs": _costs}
    )
    top1: TeacherAccuracy | None = None
    noise_floor: NoiseFloor | None = None
    codecs: Mapping[str, CodecCost] | None = None

    @property
    def percent(self) -> float | None:
        """Its top-1 accuracy."""
        return None if self.top1 is None else self.top1.top1

    @property
    def floor(self) -> Difference:
        """The noise floor; nothing where it was not measured."""
        return self.noise_floor or Difference()

    def cost(self, codec: str) -> Difference:
        """What a codec changes; nothing where it was not measured."""
        return (self.codecs or {}).get(codec, Difference())


def as_json(value: Any) -> Any:
    """A value of a record or of the manifest as JSON."""
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: as_json(part) for name, part in value.items()}
    return list(value) if isinstance(value, tuple) else value
