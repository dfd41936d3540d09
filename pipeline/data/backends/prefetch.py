"""Run an iterator in a thread, a bounded number of items ahead of its consumer."""

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Generic, TypeVar

Item = TypeVar("Item")
_POLL_S = 0.1


def prefetched(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """Yield `items` in order, drawn in a thread up to `depth` ahead; its exception is raised at its place.

    Closing the result early closes `items` in that thread and waits for it.
    """
    drawer = _Drawer(items, depth)
    drawer.thread.start()
    try:
        while not isinstance(item := drawer.ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        drawer.stop.set()
        drawer.thread.join()


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Drawer(Generic[Item]):
    def __init__(self, items: Iterator[Item], depth: int) -> None:
        self.items = items
        self.ready: queue.Queue[Item | _End] = queue.Queue(maxsize=max(1, depth))
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._draw()
        except BaseException as caught:
            error = caught
        self._put(_End(error))

    def _draw(self) -> None:
        try:
            for item in self.items:
                self._put(item)
                if self.stop.is_set():
                    return
        finally:
            close = getattr(self.items, "close", None)
            if close is not None:
                close()

    def _put(self, item: "Item | _End") -> None:
        while not self.stop.is_set():
            with suppress(queue.Full):
                self.ready.put(item, timeout=_POLL_S)
                return
