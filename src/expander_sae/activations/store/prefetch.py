"""An iterator that is run ahead of its consumer, in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Prefetched(Generic[T]):
    """The items of `source`, at most `depth` of them ready before they are asked for.

    An error in the source is raised to the consumer, after the items before it.
    """

    def __init__(self, source: Iterator[T], depth: int) -> None:
        self._source, self._depth = source, depth
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended)
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
        if self._error is not None:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread and forget what is ready."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # A garbage collection that runs in the thread itself may be what closes.
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._ready.clear()

    def _run(self) -> None:
        try:
            for item in self._source:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                    if self._closed:
                        return
                    self._ready.append(item)
                    self._changed.notify_all()
        except BaseException as error:  # whatever it is, the consumer must not wait forever
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
