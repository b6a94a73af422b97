"""Arms in processes of their own: they take turns, and what goes wrong in one is said here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.step_arms import DIM, FIELDS, ArmSpec
from benchmarks.step_teams import ArmError, Team, Teams, in_turns

TINY = ArmSpec(side="gemm", variant="products", model="deepfm", rows=40 * 10, batch=8, batches=2)


@pytest.fixture(scope="module")
def teams() -> Iterator[Teams]:
    with Teams() as opened:
        yield opened


@pytest.fixture(scope="module")
def team(teams: Teams) -> Team:
    return teams.start(TINY)


def test_every_round_begins_with_another_team(team: Team) -> None:
    turns: list[str] = []
    rates = in_turns([team], repeats=2, turn_s=0.01, done=lambda name, _rate: turns.append(name))
    assert turns == [TINY.name] * 3
    assert len(rates[TINY.name].values) == 2
    assert min(rates[TINY.name].values) > 0


def test_an_error_of_an_arm_comes_back_with_its_words(team: Team) -> None:
    with pytest.raises(ArmError, match=r"gemm products 4e2.*to be told(.|\n)*KeyError: 'to be told'"):
        team.ask("to be told")
    assert team.ask("losses", count=2) == [{"losses": [0.0, 0.0]}]


def test_an_arm_that_is_gone_is_noticed(teams: Teams) -> None:
    with pytest.raises(ArmError, match=r"step_nowhere"):
        teams.start(ArmSpec(**TINY.as_dict() | {"side": "nowhere"}))


@pytest.mark.horovod
def test_ranks_exchange_fewer_bytes_than_stock_and_the_same_at_each_step(teams: Teams) -> None:
    spec = ArmSpec(side="ranks", variant="shipped", model="deepfm", rows=40 * 10, batch=64, batches=2, cores=(0,))
    both = teams.start(spec, ranks=2, name="two ranks")
    exchange, stock = both.ask("exchange", count=2), both.ask("stock", count=2)
    assert [one["bytes"] for one in stock] == [64 * FIELDS * (8 + 4 * (DIM + 1))] * 2
    for rank in exchange:
        assert 0 < rank["row_bytes"] < 0.5 * stock[0]["bytes"]
        assert rank["bytes"] > rank["row_bytes"]
        assert rank["step_ms"] > rank["exchange_ms"] + rank["waiting_ms"] > 0
        assert rank["update_ms"] > 0
