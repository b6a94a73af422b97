"""The single-feature probe on somebody's Parquet and on the world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import DataError
from pipeline.audit.conf import AuditConf
from pipeline.audit.probe import probe
from pipeline.audit.report import Finding, Verdict
from pipeline.audit.sample_set import SampleSet, foreign
from tests.pipeline.audit.planted import alarms, finding, ignore

CONF = AuditConf()
ROWS = 20_000
RNG = np.random.default_rng(5)
HONEST = RNG.normal(size=ROWS)
LABEL = (RNG.random(ROWS) < 1 / (1 + np.exp(1.2 - HONEST))).astype(np.int64)
PLANTED = RNG.permutation(ROWS)[: ROWS // 100]
COUNT = RNG.poisson(3, size=ROWS)


def columns() -> dict[str, pa.Array]:
    """Honest columns of every type."""
    return {
        "id": pa.array(np.arange(ROWS)),
        "ts": pa.array(np.arange(ROWS)),
        "label": pa.array(LABEL),
        "honest": pa.array(HONEST),
        "count": pa.array(COUNT),
        "flag": pa.array(RNG.random(ROWS) < 0.3),
        "city": pa.array(RNG.choice(["a", "b", "c"], size=ROWS)),
        "user": pa.array(RNG.integers(2_000, size=ROWS).astype(str)),
        "sparse": pa.array(HONEST, mask=RNG.random(ROWS) < 0.9),
        "events": pa.array([list(range(k % 4)) for k in range(ROWS)]),
        "vector": pa.array(RNG.normal(size=(ROWS, 3)).tolist()),
        "nothing": pa.nulls(ROWS, pa.float64()),
    }


def with_twin(values: np.ndarray) -> np.ndarray:
    """The label in place of the value, in 1 % of the rows."""
    planted = values.copy()
    planted[PLANTED] = LABEL[PLANTED]
    return planted


def probed(folder: Path, table: dict[str, pa.Array]) -> list[Finding]:
    pq.write_table(pa.table(table), folder / "part.parquet")
    return probe(foreign(str(folder), key="id", time="ts", labels=["label"]), CONF, ignore)


def test_honest_columns_of_every_type_raise_no_alarm(tmp_path: Path) -> None:
    findings = probed(tmp_path, columns())
    assert alarms(findings) == {}
    assert {f.subject for f in findings} == set(columns()) - {"id", "ts", "label"}
    assert finding(findings, "honest").figures["auc of label"] == pytest.approx(0.735, abs=0.02)


TEXTS = np.where(LABEL == 1, "yes", "no").astype(object)
TWINS = {
    "a number equal to the label": pa.array(with_twin(RNG.normal(size=ROWS))),
    "counts no honest row has": pa.array(np.where(np.isin(np.arange(ROWS), PLANTED), 900 + LABEL, COUNT)),
    "a text": pa.array(np.where(np.isin(np.arange(ROWS), PLANTED), TEXTS, "none")),
    "null elsewhere": pa.array(LABEL, mask=~np.isin(np.arange(ROWS), PLANTED)),
    "null exactly where positive": pa.array(COUNT, mask=np.isin(np.arange(ROWS), PLANTED) & (LABEL == 1)),
    "the newest event of a list": pa.array([[v, 0.5] for v in with_twin(RNG.normal(size=ROWS)).tolist()]),
}


@pytest.mark.parametrize("where", TWINS)
def test_a_twin_in_one_percent_of_the_rows_is_named(tmp_path: Path, where: str) -> None:
    findings = probed(tmp_path, {**columns(), "planted": TWINS[where]})
    assert alarms(findings) == {"planted": Verdict.SUSPECT}
    found = finding(findings, "planted")
    assert "label twin in" in found.what
    assert float(found.figures["auc of label"]) < 0.75


def test_a_twin_everywhere_is_named_whatever_its_direction_or_noise(tmp_path: Path) -> None:
    noisy = pa.array(LABEL + RNG.normal(scale=0.4, size=ROWS))
    shuffled = pa.array(np.array([2, 0])[LABEL] + RNG.integers(2, size=ROWS) * 2 * LABEL)
    findings = probed(tmp_path, {**columns(), "mirrored": pa.array(-LABEL), "noisy": noisy})
    assert alarms(findings) == {"mirrored": Verdict.SUSPECT, "noisy": Verdict.SUSPECT}
    assert "AUC 1.000 of label" in finding(findings, "mirrored").what
    assert alarms(probed(tmp_path, {**columns(), "two_values": shuffled}))


def test_the_world_has_no_twin(clean: SampleSet) -> None:
    findings = probe(clean, CONF, ignore)
    assert alarms(findings) == {}
    assert {f.subject for f in findings if f.verdict is Verdict.PASS} >= {"user_enters_7d", "watched_age", "category"}


def test_odd_labels_are_told_all_at_once_and_scarce_ones_are_not_checkable(tmp_path: Path) -> None:
    table = {**columns(), "score": pa.array(HONEST), "stars": pa.array(COUNT), "rare": pa.array((COUNT > 30) * 1)}
    pq.write_table(pa.table(table), tmp_path / "part.parquet")
    with pytest.raises(DataError) as told:
        probe(foreign(str(tmp_path), key="id", time="ts", labels=["score", "stars", "rare"]), CONF, ignore)
    assert [problem.column for problem in told.value.problems] == ["score", "stars"]
    findings = probe(foreign(str(tmp_path), key="id", time="ts", labels=["rare"]), CONF, ignore)
    assert finding(findings, "label rare").verdict is Verdict.NOT_CHECKABLE


def test_a_larger_set_is_looked_at_in_part(tmp_path: Path) -> None:
    pq.write_table(pa.table(columns()), tmp_path / "part.parquet")
    samples = foreign(str(tmp_path), key="id", time="ts", labels=["label"])
    chosen = samples.chosen(5_000)
    assert chosen is not None
    assert abs(int(chosen.sum()) - 5_000) < 300
    assert alarms(probe(samples, CONF.model_copy(update={"rows": 5_000}), ignore)) == {}
