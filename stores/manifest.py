"""What a store holds and where it comes from: one JSON object, repeated in every shard.

Three kinds of entries. Must match: a run with another value reads other views, and is refused. Measured: pixels made
another way may be close enough, which a run finds out by running the teacher on a few rows. Recorded: everything else.
"""

import hashlib
import json
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.core.errors import StoreError
from stores.records import Measured, PixelRecipe, Record, TeacherRecord, as_json

STORE_VERSION = 1
_NOT_IDENTITY = ("measured", "made_with")
_RECORDS: dict[str, type[Record]] = {"pixel_recipe": PixelRecipe, "teacher": TeacherRecord, "measured": Measured}


@dataclass(frozen=True)
class Manifest:
    """A store's description.

    Attributes:
        index_fingerprint: must match: sha256 of the data set's index.
        num_rows: must match: samples of the whole data set; a view has one row for each, addressed by sample id.
        classes: must match: class names in label order.
        policy: must match: the augmentation policy's JSON.
        plan_seed: must match: seed of the views.
        plan_version: must match: version of the plan's arithmetic.
        pixel_recipe: measured: how pixels were made, as the backend says.
        teacher: recorded: what it was, and how it was run.
        codecs: recorded: JSON of the codecs, in the order of their fields.
        shard_rows: rows of a shard.
        measured: recorded, not part of the identity: the teacher's accuracy, its noise floor, what codecs cost.
        made_with: recorded, not part of the identity: software and device of the job that began the store.
        version: of the format.
    """

    index_fingerprint: str
    num_rows: int
    classes: tuple[str, ...]
    policy: dict[str, Any]
    plan_seed: int
    plan_version: int
    pixel_recipe: PixelRecipe
    teacher: TeacherRecord
    codecs: tuple[dict[str, Any], ...]
    shard_rows: int
    measured: Measured = field(default_factory=Measured)
    made_with: dict[str, Any] = field(default_factory=dict)
    version: int = STORE_VERSION

    def fingerprint(self) -> str:
        """sha256 over everything that decides what the rows are; shards of one store share it."""
        identity = {name: value for name, value in self._entries().items() if name not in _NOT_IDENTITY}
        return hashlib.sha256(_canonical(identity).encode()).hexdigest()

    def to_text(self) -> str:
        """The JSON text that stands in files."""
        return _canonical(self._entries())

    def _entries(self) -> dict[str, Any]:
        # not asdict, which copies every class name: each shard's manifest is compared when a view is opened
        return {item.name: as_json(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_text(cls, text: str, where: str) -> "Manifest":
        """Inverse of `to_text`; `where` names the file in messages.

        Raises:
            StoreError: not a manifest, or of a version that this program does not read.
        """
        try:
            found = json.loads(text)
            version = found["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{where} holds no readable manifest ({error})") from error
        if version != STORE_VERSION:
            raise StoreError(
                f"{where} has store format version {version}, this program reads {STORE_VERSION}: update Reflux"
            )
        known = {item.name for item in fields(cls)}
        if set(found) != known:
            raise StoreError(f"{where}: the manifest's entries are not those of version {STORE_VERSION}")
        lists = {name: tuple(found[name]) for name in ("classes", "codecs")}
        records = {name: kind.from_json(found[name]) for name, kind in _RECORDS.items()}
        return cls(**{**found, **lists, **records})


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
