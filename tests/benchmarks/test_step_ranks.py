"""What a rank's exchange costs is told apart from waiting, whether it is over at once or goes on in the background."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.step_arms import DIM, FIELDS, ArmSpec
from benchmarks.step_ranks import MeetingExchange, RankStep
from training.exchange import SingleExchange

SPEC = ArmSpec(side="ranks", variant="shipped", model="deepfm", rows=40 * 10, batch=16, batches=2)


class Sending(SingleExchange):
    """Counts bytes as a rank with others does, and can gather later."""

    def gather_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        self.bytes_sent += tensor.nbytes
        return super().gather_rows(tensor)

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        self.bytes_sent += tensor.nbytes
        return super().sum_(tensor)

    def start_gather_rows(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        gathered = self.gather_rows(tensor)
        return lambda: gathered


def test_calls_are_timed_and_the_tables_bytes_counted_only_while_it_is_asked_for() -> None:
    meeting = MeetingExchange(Sending())
    meeting.sum_(torch.ones(4))
    assert (meeting.working.seconds, meeting.row_bytes, meeting.bytes_sent) == (0.0, 0, 16)
    meeting.is_timed = True
    meeting.sum_(torch.ones(4))
    soon = meeting.start_gather_rows(torch.ones(3, 2))
    before = meeting.working.seconds
    assert torch.equal(soon(), torch.ones(3, 2))
    assert meeting.working.seconds > before > 0
    assert meeting.waiting.seconds > 0
    assert (meeting.row_bytes, meeting.bytes_sent) == (24, 56)


def test_a_step_that_is_taken_apart_is_the_same_step() -> None:
    timed, plain = (RankStep(SPEC, Sending()) for _ in range(2))
    figures = timed.exchange(count=2)
    losses = [plain.step(0), plain.step(1)]
    assert figures["step_ms"] > figures["exchange_ms"] + figures["update_ms"] > 0
    assert figures["bytes"] > 0
    assert float(timed.step(0)) == float(plain.step(0)), losses


def test_the_stock_gradient_has_a_row_per_id() -> None:
    gradient = RankStep(SPEC, Sending())._undeduplicated(0)
    assert gradient._values().shape == (SPEC.batch * FIELDS, DIM + 1)
    assert len(gradient.coalesce().values()) < SPEC.batch * FIELDS
