"""How trials are dealt out, kept and counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.__main__ import run_trials
from tests.chaos.kinds import WEIGHTS, Kinds
from tests.chaos.outcome import Found, Outcome, UnableError, dealt, read, summary


def outcome(kind: str, number: int, lost: tuple[str, ...] = (), diverged: tuple[str, ...] = ()) -> Outcome:
    return Outcome(kind=kind, number=number, seed=7, point="", said="", lost=lost, diverged=diverged, seconds=2.0)


@given(st.integers(1, 300), st.dictionaries(st.sampled_from([*WEIGHTS]), st.integers(1, 20), min_size=1))
def test_trials_are_dealt_out_by_weight_and_mixed(trials: int, weights: dict[str, int]) -> None:
    wanted = dealt(trials, weights)
    counts = Counter(kind for kind, _ in wanted)
    assert len(set(wanted)) == len(wanted) == trials
    total = sum(weights.values())
    assert all(abs(counts[kind] - trials * weight / total) < 1 for kind, weight in weights.items())
    half = Counter(kind for kind, _ in wanted[: trials // 2])
    assert all(half[kind] <= counts[kind] / 2 + 1 for kind in counts)


def test_by_default_each_is_tried_as_often_as_its_weight_says() -> None:
    assert Counter(kind for kind, _ in dealt(sum(WEIGHTS.values()), WEIGHTS)) == WEIGHTS
    assert sum(WEIGHTS.values()) >= 100
    assert min(WEIGHTS.values()) >= 5


def test_what_is_lost_and_what_diverged_is_counted_by_trials() -> None:
    found = summary([outcome("rank", 0, lost=("a", "b")), outcome("rank", 1), outcome("disk", 0, diverged=("c",))])
    assert (found["trials"], found["lost"], found["diverged"]) == (3, 1, 1)
    assert found["kinds"] == {
        "rank": {"trials": 2, "lost": 1, "diverged": 0, "seconds": 2.0},
        "disk": {"trials": 1, "lost": 0, "diverged": 1, "seconds": 2.0},
    }


class Drawn:
    """A kind whose first draw of every trial comes too late."""

    def __init__(self) -> None:
        self.draws: list[float] = []

    def trial(self, rng: object) -> Found | None:
        self.draws.append(rng.random())  # type: ignore[attr-defined]
        return Found(point="x") if len(self.draws) % 2 == 0 else None

    def close(self) -> None:
        """Nothing is kept running."""


class TwoKinds(Kinds):
    """One that can be brought about, one that cannot."""

    def __init__(self) -> None:
        self.drawn = Drawn()

    def kind(self, name: str) -> Drawn:
        if name == "disk":
            raise UnableError("no root")
        return self.drawn


def test_what_was_tried_is_not_tried_again_and_what_cannot_be_is_named(tmp_path: Path) -> None:
    kept, kinds = tmp_path / "chaos.jsonl", TwoKinds()
    wanted = [("rank", 0), ("disk", 0), ("rank", 1), ("disk", 1)]
    first, unable = run_trials(kinds, wanted, 7, kept)
    assert [(one.kind, one.number) for one in first] == [("rank", 0), ("rank", 1)]
    assert unable == {"disk": "no root"}
    assert len(set(kinds.drawn.draws)) == 4, "each draw is another point"
    with kept.open("a") as sink:
        sink.write('{"kind": "rank", "num')  # cut off
    again, _ = run_trials(kinds, [*wanted, ("rank", 2)], 7, tmp_path / "chaos.jsonl")
    assert again[:2] == first
    assert len(kinds.drawn.draws) == 6
    assert [one.number for one in read(kept)] == [0, 1, 2]
