"""The observers: evidence and mixture beside Bayes' rule, enters found in the logs, bounds in a small world."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import knowable
from pipeline.sources.simulation import world

DAY = "2025-03-05"
DAYS = tuple(f"2025-03-0{number}" for number in range(1, 6))
USERS, SEEN = 60, 40
RESTS = st.floats(-6, 6)


def _sigma(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))


def _happened(entered: bool, logit: float) -> float:
    return _sigma(logit) if entered else 1.0 - _sigma(logit)


@given(st.lists(st.tuples(RESTS, st.booleans()), min_size=1, max_size=8), RESTS)
def test_evidence_and_mixture_are_bayes_rule(before: list[tuple[float, bool]], rest: float) -> None:
    interest = knowable.PRIOR * math.prod(_happened(entered, one + knowable.INTEREST) for one, entered in before)
    none = (1 - knowable.PRIOR) * math.prod(_happened(entered, one + knowable.NO_INTEREST) for one, entered in before)
    posterior = interest / (interest + none)
    expected = posterior * _sigma(rest + knowable.INTEREST) + (1 - posterior) * _sigma(rest + knowable.NO_INTEREST)
    rests, entered = (np.array(values) for values in zip(*before, strict=True))
    found = knowable.mixture(np.array([knowable.evidence(rests, entered).sum()]), np.array([rest]))
    assert found[0] == pytest.approx(expected, rel=1e-9)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Users with a third of the categories as interests; every fourth enter names no impression."""
    root = tmp_path_factory.mktemp("knowable")
    raw, truth = root / "raw", root / "truth"
    generator = np.random.default_rng(5)
    likes = generator.random((USERS, len(world.CATEGORIES))) < knowable.PRIOR
    rooms = pd.DataFrame({"room_id": range(len(world.CATEGORIES)), "category": [name for name, _ in world.CATEGORIES]})
    _write(rooms, raw / "rooms" / f"dt={DAYS[0]}")
    for number, day in enumerate(DAYS):
        rows = USERS * SEEN
        user, room = np.repeat(np.arange(USERS), SEEN), generator.integers(len(world.CATEGORIES), size=rows)
        heat = generator.normal(size=rows)
        interest = np.where(likes[user, room], knowable.INTEREST, knowable.NO_INTEREST)
        p = 1 / (1 + np.exp(-(world.ENTER_BIAS + heat + interest)))
        ids = number * rows + np.arange(rows)
        minutes = pd.to_datetime(day) + pd.to_timedelta(np.arange(rows) % SEEN * 20, unit="min")
        shown = pd.DataFrame({"impression_id": ids, "user_id": user, "anchor_id": room, "room_id": room, "ts": minutes})
        _write(shown, raw / "impressions" / f"dt={day}")
        entered = shown[generator.random(rows) < p].assign(action="enter")
        named = entered["impression_id"].where(entered["impression_id"] % 4 > 0).astype("Int64")
        later = entered["ts"] + pd.to_timedelta(3, unit="s")
        _write(entered.assign(impression_id=named, ts=later), raw / "actions" / f"dt={day}")
        zero = np.zeros(rows)
        parts = {f"logit_{name}": zero for name in ("user", "popularity", "context", "position")}
        known = pd.DataFrame({"impression_id": ids, "p_enter_no_position": p, "logit_heat": heat, **parts})
        _write(known, truth / "impressions" / f"dt={day}")
        entered["impression_id"].to_frame().to_parquet(root / f"{day}.parquet")
    return raw, truth


def _write(rows: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "part-0.parquet")


def test_every_enter_is_found_also_without_its_impression(logs: tuple[Path, Path]) -> None:
    raw, truth = logs
    found = knowable.read_logs(raw, truth, DAYS[1])
    assert len(found) == 2 * USERS * SEEN
    expected = {row for day in DAYS[:2] for row in pd.read_parquet(raw.parent / f"{day}.parquet")["impression_id"]}
    assert set(found.loc[found["entered"], "impression_id"]) == expected
    assert set(found["ago"]) == {0, 1}


def test_observers_end_between_nothing_and_the_truth(logs: tuple[Path, Path]) -> None:
    found = knowable.measure(*logs, DAY, trees=10)
    early = knowable.measure(*logs, DAYS[1], trees=10)
    assert found["rows"] == USERS * SEEN
    assert (found["history"], early["history"]) == (4 * SEEN, SEEN)
    assert early["posterior"] < found["posterior"] < 1.0
    assert 0.5 < found["booster"] < 1.0
