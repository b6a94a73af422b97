"""The pace of steps: what is counted as waiting, as exchange and as neither, and the same figures on all ranks."""

from __future__ import annotations

from collections.abc import Generator
from types import SimpleNamespace
from typing import cast

import pytest

from tests.training.thread_ranks import ThreadExchange, on_ranks
from training import clock as clock_module
from training.batch import Batch
from training.clock import Pace, Spent, StepClock
from training.exchange import Exchange, SingleExchange
from training.parts import Part, unheard
from training.step import Learner

BATCH_SIZE = 64


class Hand:
    """A clock that stands still unless it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(clock_module, "perf_counter", lambda: self.now)


def clock_on(exchange: Exchange, gradients: SimpleNamespace | None = None) -> StepClock:
    """A clock that listens to a learner which only names its parts."""
    gradients = gradients or SimpleNamespace(table_bytes=0)
    return StepClock(cast(Learner, SimpleNamespace(exchange=exchange, gradients=gradients, part=unheard)), BATCH_SIZE)


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    return Hand(monkeypatch)


def feed(hand: Hand, waits: list[float], closed: list[bool]) -> Generator[Batch, None, None]:
    """Batches that the consumer waits for so long each, the end of the epoch included."""
    try:
        for wait in waits[:-1]:
            hand.now += wait
            yield cast(Batch, object())
        hand.now += waits[-1]
    finally:
        closed.append(True)


def test_a_step_lasts_from_one_batch_to_the_next(hand: Hand) -> None:
    exchange, gradients, closed = SingleExchange(), SimpleNamespace(table_bytes=7), list[bool]()
    clock, between = clock_on(exchange, gradients), list[float]()

    def taken() -> None:
        between.append(clock.last_step)
        hand.now += 100.0  # a profiler writes its trace: no part of any step

    clock.between = taken
    for _ in clock.batches(feed(hand, [1.0, 2.0, 4.0], closed)):
        with clock.part(Part.FORWARD):
            hand.now += 8.0
        with clock.part(Part.EXCHANGE):
            hand.now += 16.0
            exchange.bytes_sent += 1000
            gradients.table_bytes += 800
    assert clock.epoch == Spent(steps=2, seconds=7 + 2 * 24, waiting=7, exchange=32, sent=2000, table_sent=1600)
    assert (between, closed) == ([25.0, 26.0], [True])
    pace = clock.end_epoch()
    assert pace == {
        "rows_per_second": 2 * BATCH_SIZE / 55,
        "waiting_share": pytest.approx(7 / 55),
        "exchange_ms_per_step": None,  # nobody to exchange with
        "bytes_sent_per_step": 1000,
        "table_bytes_sent_per_step": 800,
    }
    assert clock.epoch == Spent()
    assert clock.pace() == pace


def test_a_training_that_is_cut_off_counts_its_last_step_and_closes_its_feed(hand: Hand) -> None:
    clock, closed = clock_on(SingleExchange()), list[bool]()
    steps = clock.batches(feed(hand, [1.0, 1.0, 1.0], closed))
    next(steps)
    hand.now += 3.0
    steps.close()
    assert (clock.epoch.steps, clock.epoch.seconds, closed) == (1, 4.0, [True])


def test_no_step_has_no_pace() -> None:
    assert set(clock_on(SingleExchange()).pace().values()) == {None}


def test_all_ranks_have_the_same_pace_of_epochs_and_of_the_whole() -> None:
    def rank(exchange: ThreadExchange) -> list[Pace]:
        clock, first = clock_on(exchange), exchange.world.rank == 0
        epochs = [Spent(steps=4, seconds=2.0, waiting=0.2 if first else 1.0, exchange=0.9 if first else 0.1, sent=80)]
        epochs.append(Spent(steps=4, seconds=6.0, waiting=0.6, exchange=0.0, sent=40 if first else 0))
        paces = []
        for epoch in epochs:
            clock.epoch = epoch
            paces.append(clock.end_epoch())
        return [*paces, clock.pace()]

    first, second = on_ranks(2, rank)
    assert first == second
    assert [pace["waiting_share"] for pace in first] == [pytest.approx(share) for share in (0.5, 0.1, 0.2)]
    assert [pace["rows_per_second"] for pace in first] == [4 * BATCH_SIZE / 2, 4 * BATCH_SIZE / 6, 8 * BATCH_SIZE / 8]
    assert [pace["exchange_ms_per_step"] for pace in first] == [pytest.approx(ms) for ms in (125.0, 0.0, 62.5)]
    assert [pace["bytes_sent_per_step"] for pace in first] == [20, 5, 12.5]
