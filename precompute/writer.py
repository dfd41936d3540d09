"""Encoding and writing in a thread of their own, so that the device waits for neither."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import StoreError
from pipeline.data.plan import PlanRows
from stores.codec import Codec
from stores.index_file import cannot_write
from stores.layout import ShardKey
from stores.manifest import Manifest
from stores.shard import ShardWriter

_WAITING_BATCHES = 64  # a megabyte each; more than a disk needs to make a shard durable meanwhile


@dataclass(frozen=True)
class Piece:
    """A batch of a shard.

    Attributes:
        key: the shard.
        rows: (b,) ids, views, boxes, flips.
        labels: (b,) labels.
        outputs: (b, C) "logits" and (b, D) "embedding", those that are kept, float32.
    """

    key: ShardKey
    rows: PlanRows
    labels: np.ndarray
    outputs: dict[str, np.ndarray]


class BackgroundWriter:
    """Writes pieces in the order in which they come; a shard is sealed with its last piece.

    Args:
        store: the store's folder.
        manifest: the store's.
        codecs: of the manifest.
        made_with: software and device, recorded in each shard.
        on_written: called in the writing thread with rows and bytes of each piece, and whether it completed its shard.
    """

    def __init__(
        self,
        store: Path,
        manifest: Manifest,
        codecs: tuple[Codec, ...],
        *,
        made_with: dict[str, Any],
        on_written: Callable[[int, int, bool], None],
    ) -> None:
        self._store, self._manifest, self._codecs = store, manifest, codecs
        self._made_with, self._on_written = made_with, on_written
        self._thread = ThreadPoolExecutor(1, "store-writer")
        self._waiting: deque[Future[None]] = deque()
        self._open: dict[ShardKey, ShardWriter] = {}

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what is not sealed: no half shard stays behind."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        for writer in self._open.values():
            writer.drop()

    def put(self, piece: Piece) -> None:
        """Hand over a piece; waits only where the disk is far behind.

        Raises:
            StoreError: an earlier piece could not be encoded or written.
        """
        self._waiting.append(self._thread.submit(self._write, piece))
        while self._waiting and (self._waiting[0].done() or len(self._waiting) > _WAITING_BATCHES):
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait until all pieces are written.

        Raises:
            StoreError: one could not be encoded or written.
        """
        while self._waiting:
            self._waiting.popleft().result()

    def _write(self, piece: Piece) -> None:
        try:
            self._write_piece(piece)
        except StoreError as error:
            first, last = piece.rows.ids[0], piece.rows.ids[-1]
            raise StoreError(f"view {piece.key.view}, samples {first} to {last}: {error}") from error
        except OSError as error:
            raise cannot_write(self._store, error) from error

    def _write_piece(self, piece: Piece) -> None:
        columns = {"label": piece.labels.astype("<i4"), "plan_crc": piece.rows.crc().astype("<u4")}
        for codec in self._codecs:
            columns |= codec.encode(piece.outputs[codec.source])
        key, ids = piece.key, piece.rows.ids
        if key not in self._open:
            self._open[key] = ShardWriter(self._store, key, self._manifest, made_with=self._made_with)
        self._open[key].write(int(ids[0]) - key.start, columns)
        is_last = int(ids[-1]) == key.stop - 1
        if is_last:
            self._open[key].seal()
            del self._open[key]
        self._on_written(len(ids), sum(array.nbytes for array in columns.values()), is_last)
