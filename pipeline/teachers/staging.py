"""Views of a store copied to fast local storage, one epoch ahead of training."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.core.errors import StoreError
from stores.reader import StoreReader


class ViewStager:
    """Copies the view that comes next while the present one is read, and removes the one that went by.

    A copy that fails (no space) costs speed, not the run: the view is then read where it lies, and this is said once.

    Args:
        reader: the store, which from then on reads staged views from their copies.
        folder: on a local disk or in memory; processes of one machine share it and copy once.
        views: views that the run reads from the store.
        num_views: views in rotation; None for a new one every epoch.
    """

    def __init__(self, reader: StoreReader, folder: Path, *, views: frozenset[int], num_views: int | None) -> None:
        self._reader, self._folder, self._views, self._num_views = reader, folder, views, num_views
        self._thread = ThreadPoolExecutor(1, "stage")
        self._current, self._staged = -1, set[int]()
        self._lock, self._has_failed = threading.Lock(), False

    def enter(self, view: int) -> None:
        """Say that rows of `view` are wanted now; returns at once."""
        with self._lock:
            if view == self._current:
                return
            self._current = view
        self._thread.submit(self._move, view)

    def close(self) -> None:
        """Wait for a copy that is being made, and remove all copies."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        for view in sorted(self._staged):
            self._reader.unstage(view, self._folder)

    def _move(self, view: int) -> None:
        following = view + 1 if self._num_views is None else (view + 1) % self._num_views
        for old in sorted(self._staged - {view, following}):
            self._reader.unstage(old, self._folder)
            self._staged.discard(old)
        if following in self._views and following not in self._staged and following != view and not self._has_failed:
            self._stage(following)

    def _stage(self, view: int) -> None:
        try:
            self._reader.stage(view, self._folder)
            self._staged.add(view)
        except (OSError, StoreError) as error:
            self._has_failed = True
            print(f"--stage {self._folder}: view {view} was not copied, reading the store itself ({error})", flush=True)
