"""The teacher as rows of a store: fetched while pixels are decoded, checked against the plan, decoded on the device."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch.nn.functional import linear

from pipeline.core.errors import StoreError
from pipeline.data.loader import Batch, Request
from pipeline.models.outputs import Outputs
from pipeline.teachers.base import Teacher
from pipeline.teachers.staging import ViewStager
from stores.codec import Codec, Field
from stores.reader import StoreReader

_SHOWN_IDS = 8


class RowFetcher:
    """Gathers a request's rows in a thread of its own: they are known before the pixels are.

    Args:
        reader: the store.
        fields: the store's fields that training reads.
        views: views that are read from the store; for requests of other views there is nothing to fetch.
        pinned: whether rows go to a CUDA device.
        stager: is told which view is being read; closed with the fetcher.
    """

    def __init__(
        self,
        reader: StoreReader,
        *,
        fields: tuple[str, ...],
        views: frozenset[int],
        pinned: bool,
        stager: ViewStager | None = None,
    ) -> None:
        self._reader, self._fields, self._views, self._pinned = reader, fields, views, pinned
        self._stager = stager
        self._thread = ThreadPoolExecutor(1, "store")

    def __call__(self, request: Request) -> Future[dict[str, torch.Tensor]] | None:
        """Begin; None where the request's view is not read from the store."""
        view = int(request.rows.views[0])
        if view not in self._views:
            return None
        if self._stager is not None:
            self._stager.enter(view)
        return self._thread.submit(read_rows, self._reader, self._fields, request, pinned=self._pinned)

    def close(self) -> None:
        """End the threads and let go of the store."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._stager is not None:
            self._stager.close()
        self._reader.close()


def read_rows(
    reader: StoreReader, fields: tuple[str, ...], request: Request, *, pinned: bool
) -> dict[str, torch.Tensor]:
    """The rows of a request of one view, (B, ...) by field, each compared with the request's label and plan.

    Raises:
        StoreError: rows that are damaged, missing, or of another image or crop; names view and ids.
    """
    rows, view = request.rows, int(request.rows.views[0])
    if np.any(rows.views != view):
        raise StoreError(f"a request must be of one view, this one has views {np.unique(rows.views)[:8].tolist()}")
    buffers = {name: _empty(reader.fields[name], len(rows), pinned=pinned) for name in fields}
    arrays = {name: buffer.numpy() for name, buffer in buffers.items()}
    columns = reader.gather(view, rows.ids, fields=fields, out=arrays)
    check_keys(reader, view, rows.ids, columns, labels=request.labels, plan_crcs=rows.crc())
    return buffers


def check_keys(
    reader: StoreReader,
    view: int,
    ids: np.ndarray,
    columns: dict[str, np.ndarray],
    *,
    labels: np.ndarray,
    plan_crcs: np.ndarray,
) -> None:
    """Compare what identifies rows (B,) of a view, "label" and "plan_crc" of `columns`, with this run's own.

    Raises:
        StoreError: rows of another image or crop; names view and ids.
    """
    for what, expected in (("label", labels), ("plan_crc", plan_crcs)):
        wrong = np.flatnonzero(columns[what] != expected)
        if len(wrong):
            first = int(wrong[0])
            raise StoreError(
                f"the store's rows must be those of this run's images and crops: {what} differs in {len(wrong)} row(s)"
                f"\nof view {view}, sample ids {ids[wrong][:_SHOWN_IDS].tolist()}.\n"
                f"  store: {int(columns[what][first])}\n  run:   {int(expected[first])}\n"
                f"Check it with: python -m stores verify {reader.path}"
            )


def _empty(field: Field, num_rows: int, *, pinned: bool) -> torch.Tensor:
    like = torch.from_numpy(np.empty(0, field.dtype))
    return torch.empty((num_rows, *field.shape), dtype=like.dtype, pin_memory=pinned)


class StoredTeacher(Teacher):
    """Decodes fetched rows to float32 on the training device.

    Args:
        logits: the codec that gives logits; None where they are rebuilt from the embedding.
        embedding: the codec that gives embeddings; None where nothing needs them.
        head: the teacher's classifier, weight (C, D) and bias (C,) float32, to rebuild logits with.
        device: the training device.
    """

    def __init__(
        self,
        *,
        logits: Codec | None,
        embedding: Codec | None,
        head: tuple[np.ndarray, np.ndarray] | None,
        device: torch.device,
    ) -> None:
        if logits is None and (embedding is None or head is None):
            raise ValueError("logits come from a codec of logits, or from an embedding and the classifier")
        self._logits, self._embedding = logits, embedding
        self._head = None if head is None else tuple(torch.from_numpy(np.array(part)).to(device) for part in head)

    def outputs(self, batch: Batch, images: torch.Tensor) -> Outputs:
        """See `Teacher`."""
        return self.decode(batch.stored)

    def decode(self, rows: dict[str, torch.Tensor]) -> Outputs:
        """Outputs in float32 of encoded rows, (B, ...) by field name."""
        embedding = None if self._embedding is None else self._embedding.decode_tensors(rows)
        logits = self._rebuilt(embedding) if self._logits is None else self._logits.decode_tensors(rows)
        return Outputs(logits=logits, embedding=embedding)

    def blank(self, pixels_BHWC: torch.Tensor, images: torch.Tensor) -> Outputs:
        """See `Teacher`."""
        num, device = len(images), images.device
        embedding = None if self._embedding is None else torch.zeros(num, self._embedding.width, device=device)
        if self._logits is not None:
            return Outputs(logits=torch.zeros(num, self._logits.width, device=device), embedding=embedding)
        return Outputs(logits=self._rebuilt(embedding), embedding=embedding)

    def _rebuilt(self, embedding_BD: torch.Tensor | None) -> torch.Tensor:
        assert embedding_BD is not None
        assert self._head is not None
        weight, bias = self._head
        return linear(embedding_BD, weight, bias)  # outside autocast, and no product runs in TF32


class HybridTeacher(Teacher):
    """Stored rows where the batch's view has them, the network elsewhere."""

    def __init__(self, stored: StoredTeacher, online: Teacher) -> None:
        self._stored, self._online = stored, online
        self.num_parameters = online.num_parameters

    def outputs(self, batch: Batch, images: torch.Tensor) -> Outputs:
        """See `Teacher`."""
        return (self._stored if batch.stored else self._online).outputs(batch, images)

    def blank(self, pixels_BHWC: torch.Tensor, images: torch.Tensor) -> Outputs:
        """See `Teacher`."""
        return self._online.blank(pixels_BHWC, images)
