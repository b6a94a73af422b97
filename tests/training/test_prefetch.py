"""Batches made ahead: the same, in order, bounded, with errors in their place; and what a GPU is told."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
import torch

from training.batch import Batch
from training.blocks import Part, assemble
from training.prefetch import THREAD_NAME, CudaStaging, HostStaging, Sent, prefetched, staging_for

PATIENCE_S = 60.0


def batch_of(number: int) -> Batch:
    one = torch.full((1, 1), float(number))
    return Batch(
        ids=one.long(),
        dense=one,
        vectors={"content": one},
        sequences={"watched.anchor_id": one.long()},
        labels=one,
        label_mask=one,
        position=None,
        group=one[0].long(),
        row_id=one[0].long(),
    )


class Source:
    """Batches 0, 1, 2, …; it knows how many were made, and whether it was closed."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.count, self.fails_at = count, fails_at
        self.made = 0
        self.closed_by: str | None = None
        self.grew = threading.Condition()

    def batches(self) -> Generator[Batch, None, None]:
        try:
            for number in range(self.count):
                if number == self.fails_at:
                    raise OSError("the store is gone")
                with self.grew:
                    self.made += 1
                    self.grew.notify_all()
                yield batch_of(number)
        finally:
            self.closed_by = threading.current_thread().name

    def wait_for(self, made: int) -> None:
        with self.grew:
            assert self.grew.wait_for(lambda: self.made >= made, PATIENCE_S)


def numbers(batches: Generator[Batch, None, None]) -> list[int]:
    return [int(batch.row_id) for batch in batches]


@pytest.mark.parametrize("depth", [0, 1, 3, 50])
def test_all_batches_in_order_and_no_thread_behind_them(depth: int) -> None:
    source = Source(20)
    assert numbers(prefetched(source.batches(), depth=depth, staging=HostStaging())) == list(range(20))
    assert source.closed_by == (THREAD_NAME if depth else threading.current_thread().name)
    assert THREAD_NAME not in {thread.name for thread in threading.enumerate()}


def test_never_more_ahead_than_the_depth() -> None:
    source = Source(10)
    batches = prefetched(source.batches(), depth=3, staging=HostStaging())
    for number in range(7):
        assert int(next(batches).row_id) == number
        source.wait_for(number + 1 + 3)  # the thread goes on by itself …
        assert source.made == number + 1 + 3  # … and no further
    batches.close()


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_comes_in_its_place_and_the_thread_is_gone(depth: int) -> None:
    batches = prefetched(Source(10, fails_at=4).batches(), depth=depth, staging=HostStaging())
    assert [int(next(batches).row_id) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(OSError, match="the store is gone"):
        next(batches)
    assert THREAD_NAME not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("depth", [0, 2])
def test_closed_halfway_it_closes_the_source_and_ends_the_thread(depth: int) -> None:
    source = Source(10)
    batches = prefetched(source.batches(), depth=depth, staging=HostStaging())
    next(batches)
    batches.close()
    assert source.closed_by is not None
    assert THREAD_NAME not in {thread.name for thread in threading.enumerate()}


def test_a_thread_that_ends_without_a_word_still_leaves_the_last_one() -> None:
    def dying() -> Generator[Batch, None, None]:
        yield batch_of(0)
        raise SystemExit("the thread ends")

    batches = prefetched(dying(), depth=2, staging=HostStaging())
    next(batches)
    with pytest.raises(SystemExit, match="the thread ends"):
        next(batches)


class FakeStream:
    """`torch.cuda.Stream`."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self._log = name, log

    def wait_event(self, event: FakeEvent) -> None:
        self._log.append(f"{self.name} waits for the event of {event.recorded_on}")


class FakeEvent:
    """`torch.cuda.Event`."""

    recorded_on = ""

    def record(self, stream: FakeStream) -> None:
        self.recorded_on = stream.name


class FakeCuda:
    """`torch.cuda` as far as it is used; it writes down what happened on which stream."""

    Event = FakeEvent

    def __init__(self) -> None:
        self.log: list[str] = []
        self.current = threading.local()

    def Stream(self, _device: torch.device) -> FakeStream:  # noqa: N802 - torch's name
        return FakeStream("copies", self.log)

    @contextmanager
    def stream(self, stream: FakeStream) -> Generator[None, None, None]:
        self.current.stream = stream
        yield
        del self.current.stream

    def current_stream(self, _device: torch.device) -> FakeStream:
        return getattr(self.current, "stream", FakeStream("steps", self.log))


def test_a_gpu_copies_on_a_stream_of_its_own_and_steps_wait_for_the_copy_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, device = FakeCuda(), torch.device("cuda", 0)

    def moved(self: Batch, to: torch.device, dtype: torch.dtype | None = None) -> Batch:
        assert (to, dtype) == (device, None)
        cuda.log.append(f"{cuda.current_stream(device).name}: copy {int(self.row_id)}")
        return self

    def kept(tensor: torch.Tensor, stream: FakeStream) -> None:
        users.append((stream.name, tensor.data_ptr()))

    users: list[tuple[str, int]] = []
    monkeypatch.setattr(Batch, "to", moved)
    monkeypatch.setattr(torch.Tensor, "record_stream", kept)
    batches = prefetched(Source(2).batches(), depth=1, staging=CudaStaging(device, cuda))
    first = next(batches)
    assert cuda.log[:2] == ["copies: copy 0", "steps waits for the event of copies"]
    assert users == [("steps", tensor.data_ptr()) for tensor in first.tensors()]
    assert len(users) == 8
    assert numbers(batches) == [1]
    assert cuda.log.count("steps waits for the event of copies") == 2


def test_batches_for_a_gpu_are_made_in_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    empty = torch.empty

    def recording(*size: Any, pin_memory: bool, **options: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", recording)
    assert CudaStaging.pinned
    assert not staging_for(torch.device("cpu")).pinned
    parts = [
        Part(name=name, columns=("c",), stored=pa.int64(), flat=name in ("row_id", "group"))
        for name in ("ids", "dense", "labels", "label_mask", "group", "row_id")
    ]
    for pinned in (True, False):
        assert len(assemble([], parts, rows=3, pinned=pinned)) == 3
    assert asked == [True] * 6 + [False] * 6


def test_what_was_sent_is_given_out_by_the_thread_that_asks() -> None:
    class Noting(HostStaging):
        def send(self, batch: Batch) -> Sent:
            threads.append(threading.current_thread().name)

            def give() -> Batch:
                threads.append(threading.current_thread().name)
                return batch

            return give

    threads: list[str] = []
    assert numbers(prefetched(Source(1).batches(), depth=1, staging=Noting())) == [0]
    assert threads == [THREAD_NAME, threading.current_thread().name]
