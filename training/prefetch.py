"""Batches made ahead of the training step by a thread, and brought to the device while it computes.

    the thread                                        the caller
    a batch in pinned memory
    → copy on a stream of its own, an event behind it
    → at most `depth` wait, in order                  → the caller's stream waits for the event, not the processor

On a processor the same path is run without pinned memory and without a copy.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, Protocol

import torch

from training.batch import Batch

THREAD_NAME = "limelight-feed"

Sent = Callable[[], Batch]  # called by the caller's thread: the batch, for what it gives the device to do from then on


class Staging(Protocol):
    """How batches get to a device.

    Attributes:
        pinned: whether they are made in memory from which a GPU copies by itself.
    """

    pinned: bool

    def send(self, batch: Batch) -> Sent:
        """Begin the copy."""
        ...


class HostStaging:
    """A processor's batches are where they belong."""

    pinned = False

    def send(self, batch: Batch) -> Sent:
        """See `Staging.send`."""
        return lambda: batch


class CudaStaging:
    """Copies on a stream of their own; neither side ever waits on the processor.

    Args:
        device: a GPU.
        cuda: `torch.cuda`, or what answers as it does.
    """

    pinned = True

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self._device, self._cuda = device, cuda
        self._copies = cuda.Stream(device)

    def send(self, batch: Batch) -> Sent:
        """See `Staging.send`."""
        with self._cuda.stream(self._copies):
            there = batch.to(self._device)
            copied = self._cuda.Event()
            copied.record(self._copies)
        return lambda: self._received(there, copied)

    def _received(self, batch: Batch, copied: Any) -> Batch:
        current = self._cuda.current_stream(self._device)
        current.wait_event(copied)
        for tensor in batch.tensors():
            # the memory belongs to the stream of the copies: it may not be used again before this stream is done
            tensor.record_stream(current)
        return batch


def staging_for(device: torch.device) -> Staging:
    """The way to a device."""
    return CudaStaging(device) if device.type == "cuda" else HostStaging()


def prefetched(batches: Generator[Batch, None, None], *, depth: int, staging: Staging) -> Generator[Batch, None, None]:
    """The same batches in the same order, made by a thread up to `depth` ahead; by the caller's own if 0.

    Closing it, also halfway, closes `batches` and ends the thread.

    Raises:
        Exception: what `batches` raises, in the place where its batch would have been.
    """
    with closing(batches), _sent_ahead(batches, depth, staging) as next_sent:
        while (sent := next_sent()) is not None:
            yield sent()


@contextmanager
def _sent_ahead(
    batches: Generator[Batch, None, None], depth: int, staging: Staging
) -> Iterator[Callable[[], Sent | None]]:
    """A function that gives what was sent next, None behind the last."""
    if depth == 0:
        sent = map(staging.send, batches)
        yield lambda: next(sent, None)
        return
    thread = _Thread(batches, depth, staging)
    thread.start()
    try:
        yield thread.next
    finally:
        thread.stop()


class _Thread(threading.Thread):
    """Makes batches while there is room. It dies with the process: a read that hangs must not keep a rank alive."""

    def __init__(self, batches: Generator[Batch, None, None], depth: int, staging: Staging) -> None:
        super().__init__(name=THREAD_NAME, daemon=True)
        self._batches, self._staging = batches, staging
        self._room = threading.Semaphore(depth)
        self._ready: queue.SimpleQueue[Sent | BaseException | None] = queue.SimpleQueue()
        self._stopped = False

    def run(self) -> None:
        """Until the batches end, one fails, or the caller has enough; a last word is always left."""
        last: BaseException | None = None
        try:
            with closing(self._batches):
                while self._has_room() and self._make():
                    pass
        except BaseException as error:  # noqa: BLE001 - whatever ends this thread, the caller must not wait for more
            last = error
        finally:
            self._ready.put(last)

    def next(self) -> Sent | None:
        """What was sent next; None behind the last."""
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        self._room.release()
        return found

    def stop(self) -> None:
        """End it, and wait until it has closed what it read."""
        self._stopped = True
        self._room.release()
        self.join()

    def _has_room(self) -> bool:
        self._room.acquire()
        return not self._stopped

    def _make(self) -> bool:
        batch = next(self._batches, None)
        if batch is not None:
            self._ready.put(self._staging.send(batch))
        return batch is not None
