"""Calibration: curves against naive ones, the layer against numpy, the export, and which rows may be seen."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from features.errors import ConfError
from tests.training.raw_trainset import RawTrainset, write_raw_trainset
from tests.training.test_run import conf_of, run
from tests.training.thread_ranks import on_ranks
from tests.training.trainset_factory import write_trainset
from training import calibration as c
from training.config import TrainConf
from training.evaluation import Scored, gathered
from training.exchange import Exchange
from training.export import export_folder, torch_scores
from training.modeling.base import Target
from training.models import build
from training.published import verify
from training.result import load_model
from training.scorer import Scorer, graph_inputs

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def judged(draw: st.DrawFn) -> Rows:
    """Logits (some equal), labels of both classes that follow them more or less, weights."""
    count = draw(st.integers(2, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logit = np.round(random.normal(scale=2, size=count), draw(st.sampled_from([0, 1, 8])))
    label = (random.random(count) < 1 / (1 + np.exp(-draw(st.sampled_from([-1.0, 0.5, 3.0])) * logit))).astype(float)
    label[:2] = [0, 1]
    return logit, label, random.choice([0.5, 1.0, 4.0], count)


def naive_blocks(rows: Rows) -> list[tuple[float, float, float]]:
    """Pool adjacent violators as its name says: any neighbours out of order become one, until there are none."""
    by_logit: dict[float, list[float]] = {}
    for z, y, w in zip(*rows, strict=True):
        sums = by_logit.setdefault(z, [0.0, 0.0, 0.0])
        by_logit[z] = [sums[0] + w * z, sums[1] + w * y, sums[2] + w]
    pools = [by_logit[z] for z in sorted(by_logit)]
    place = 0
    while place < len(pools) - 1:
        one, other = pools[place], pools[place + 1]
        if one[1] / one[2] >= other[1] / other[2] - 1e-12:
            pools[place : place + 2] = [[a + b for a, b in zip(one, other, strict=True)]]
            place = 0
        else:
            place += 1
    return [(z / w, y / w, w) for z, y, w in pools]


@settings(max_examples=100, deadline=None)
@given(judged())
def test_blocks_are_those_of_naive_pooling(rows: Rows) -> None:
    found = [(block.logit, block.share, block.weight) for block in c.blocks(*rows)]
    np.testing.assert_allclose(found, naive_blocks(rows), atol=1e-9)


def test_an_isotonic_curve_goes_through_the_blocks_where_they_are_far_apart() -> None:
    logit = np.repeat([-3.0, -1.0, 0.0, 2.0], [4, 4, 2, 4])
    label = np.array([0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0], float)
    curve = c.isotonic(logit, label, np.ones(14))
    assert curve.at == pytest.approx((-3.0, (-4 + 0) / 6, 2.0))
    assert [1 / (1 + math.exp(-value)) for value in curve.value] == pytest.approx([1 / 4, 2 / 6, 3 / 4])


@settings(max_examples=100, deadline=None)
@given(judged())
def test_curves_rise_strictly_and_never_steeply(rows: Rows) -> None:
    """So that AUC is what it was, and a rounding error of a logit stays one."""
    curve = c.isotonic(*rows)
    steps, rises = np.diff(curve.at), np.diff(curve.value)
    assert (steps > 0).all()
    assert (rises > 0).all()
    assert (rises <= c.MAX_SLOPE * steps * (1 + 1e-9)).all()
    least = 0.5 / (len(rows[0]) + 1)
    assert math.log(least / (1 - least)) - 1e-9 <= min(curve.value)
    assert max(curve.value) <= math.log((1 - least) / least) + 1e-9


@settings(max_examples=60, deadline=None)
@given(judged())
def test_platt_is_where_the_likelihood_is_flat(rows: Rows) -> None:
    logit, label, weight = rows
    curve = c.platt(*rows)
    if isinstance(curve, str):
        target = "every row has the same score" if len(set(logit)) == 1 else "scores fall"
        assert curve.startswith(target)
        return
    positives, negatives = label.sum(), (1 - label).sum()
    wanted = np.where(label > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    error = weight * (1 / (1 + np.exp(-(curve.value[0] + curve.slope * (logit - curve.at[0])))) - wanted)
    assert error.sum() == pytest.approx(0, abs=1e-5)
    assert (error * logit).sum() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
@pytest.mark.parametrize(("slope", "offset"), [(2.0, -1.0), (0.4, -4.0)])
def test_a_known_distortion_is_undone(kind: c.Kind, slope: float, offset: float) -> None:
    """Scores say σ(z) where the truth is σ(a z + b): on other rows the truth is met, and observed as often as said."""
    random = np.random.default_rng(3)
    logit = random.normal(scale=1.5, size=80_000)
    truth = 1 / (1 + np.exp(-(slope * logit + offset)))
    label = (random.random(80_000) < truth).astype(float)
    seen, other = slice(0, 40_000), slice(40_000, None)
    scores = 1 / (1 + np.exp(-logit))
    targets = [Target(name="a", all_of=("a",))]
    found = c.fit(kind, targets, scores[seen, None], label[seen, None], np.ones((40_000, 1)))
    said = c.CalibrationLayer(found)(torch.from_numpy(logit[:, None])).numpy()[:, 0]
    positives = label[seen].sum()
    assert said[seen].sum() / positives == pytest.approx(1, abs=0.01)
    three_deviations = 3 / np.sqrt(positives)  # of the number of positives that the curve was fitted on
    assert said[other].sum() / truth[other].sum() == pytest.approx(1, abs=three_deviations)
    error, before = (np.abs(p[other] - truth[other]).mean() for p in (said, scores))
    assert error < before / 10


CURVES = {
    "a": c.TargetCalibration(curve=c.Curve(at=(-2.0, 0.5, 0.75), value=(-3.0, -1.0, 1.5))),
    "b": c.TargetCalibration(curve=c.Curve(at=(0.3,), value=(0.1,), slope=0.4)),
    "as it was": c.TargetCalibration(left_out="no reason"),
    "a_and_b": c.TargetCalibration(product_of=("a", "b")),
}


def test_the_layer_is_the_curves() -> None:
    logits = np.random.default_rng(0).normal(scale=3, size=(500, 4))
    logits[:3, 0] = CURVES["a"].curve.at if CURVES["a"].curve else ()
    wanted = np.empty_like(logits)
    for column, z in enumerate(logits.T[:3]):
        curve = list(CURVES.values())[column].curve or c.Curve(at=(0.0,), value=(0.0,))
        g = np.interp(z, curve.at, curve.value)
        g += curve.slope * (np.minimum(z - curve.at[0], 0) + np.maximum(z - curve.at[-1], 0))
        wanted[:, column] = 1 / (1 + np.exp(-g))
    wanted[:, 3] = wanted[:, 0] * wanted[:, 1]
    layer = c.CalibrationLayer(c.Calibration(kind="isotonic", targets=CURVES))
    np.testing.assert_allclose(layer(torch.from_numpy(logits)).numpy(), wanted, atol=1e-14)
    single = layer(torch.from_numpy(logits).float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), wanted, atol=1e-6)
    assert [layer.calibration.how(name) for name in CURVES] == ["isotonic", "isotonic", None, "product"]


def test_which_rows_are_fitted_on_is_their_own_matter() -> None:
    ids = torch.arange(10_000) + 10**15
    chosen = c.fitted_on(ids)
    assert 4_800 < int(chosen.sum()) < 5_200
    assert torch.equal(c.fitted_on(ids.flip(0)), chosen.flip(0))
    runs = np.diff(np.flatnonzero(np.diff(chosen.numpy())))
    assert np.bincount(runs)[1:5] / len(runs) == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 16], abs=0.03)


def test_what_cannot_be_fitted_is_left_out_with_a_reason() -> None:
    targets = [Target(name=name, all_of=(name,)) for name in ("none", "one class", "turned")]
    scores, labels = np.tile(np.linspace(0.1, 0.9, 10)[:, None], 3), np.zeros((10, 3))
    labels[:5, 2] = 1
    found = c.fit("platt", targets, scores, labels, np.ones((10, 3)) * [0, 1, 1]).targets
    assert found["none"].left_out == "only one class among the 0 rows to fit on"
    assert found["one class"].left_out == "only one class among the 10 rows to fit on"
    assert (found["turned"].left_out or "").startswith("scores fall as the share of positives rises (slope -")
    assert (found["turned"].rows, found["turned"].positives) == (10, 5)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTrainset:
    return write_raw_trainset(tmp_path_factory.mktemp("raw"), gate_rows=400)


def test_the_export_is_calibrated(raw: RawTrainset, tmp_path: Path) -> None:
    """ESMM's product included; ONNX Runtime and torch agree. Platt's curve is the same layer with one knot."""
    model = build("esmm", raw.trainset, {"embedding_dim": 4, "hidden": [8]}, seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    inputs = graph_inputs(raw.encoded, raw.trainset)
    plain_logits, plain = torch_scores(model, raw.trainset, inputs)
    labels = np.random.default_rng(1).random(plain.shape) < np.sqrt(plain)
    found = c.fit("isotonic", model.targets_of, plain.astype(float), labels.astype(float), np.ones(plain.shape))
    assert found.targets["enter_and_gift"].product_of == ("enter", "gift")
    model.calibration = c.CalibrationLayer(found)
    logits, wanted = torch_scores(model, raw.trainset, inputs)
    np.testing.assert_array_equal(logits, plain_logits)
    assert np.abs(wanted - plain).max() > 0.05
    np.testing.assert_array_equal(wanted[:, 2], wanted[:, 0] * wanted[:, 1])
    contents = export_folder(model, raw.trainset, raw.root, raw.samples, {"name": "esmm"}, tmp_path / "out")
    assert [output.calibration for output in contents.outputs] == ["isotonic", "isotonic", "product"]
    assert verify(tmp_path / "out") == contents
    _, seen = Scorer.open(str(tmp_path / "out")).run(inputs)
    np.testing.assert_allclose(seen, wanted, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One training plain and one calibrated, with the same settings."""
    folder = tmp_path_factory.mktemp("runs")
    write_trainset(folder / "set", rows=1024, valid_rows=900, gate_rows=300)
    for name, calibration in (("plain", {}), ("isotonic", {"kind": "isotonic"})):
        conf = conf_of("esmm", calibration=calibration, epochs=1)
        run(conf, str(folder / "set"), folder / name)
    return {name: folder / name for name in ("plain", "isotonic")}


def test_no_row_is_judged_that_the_curves_have_seen(trained: dict[str, Path]) -> None:
    plain, calibrated = (pq.read_table(trained[name] / "predictions-valid.parquet") for name in ("plain", "isotonic"))
    known = c.fitted_on(torch.tensor(plain["row_id"].to_pylist())).numpy()
    assert calibrated["row_id"].to_pylist() == plain["row_id"].to_numpy()[~known].tolist()
    written = c.Calibration.model_validate_json((trained["isotonic"] / c.CALIBRATION_FILE).read_text())
    masked = plain["m__enter"].to_numpy()[known] > 0
    assert written.targets["enter"].rows == masked.sum()
    metrics = json.loads((trained["isotonic"] / "metrics.json").read_text())
    assert metrics["valid"]["enter"]["rows"] == (calibrated["m__enter"].to_numpy() > 0).sum()
    label = plain["y__enter"].to_numpy()[~known]
    before = roc_auc_score(label, plain["p__enter"].to_numpy()[~known])
    assert written.uncalibrated["enter"]["auc"] == pytest.approx(before, abs=1e-12)
    assert metrics["valid"]["enter"]["auc"] == pytest.approx(before, abs=1e-9)
    whole = pq.read_table(trained["isotonic"] / "predictions-gate.parquet")
    assert len(whole) == 300


def test_a_trained_model_comes_back_calibrated(trained: dict[str, Path]) -> None:
    plain, calibrated = (pq.read_table(trained[name] / "predictions-gate.parquet") for name in ("plain", "isotonic"))
    model, _ = load_model(str(trained["isotonic"]))
    logits = torch.from_numpy(c.logit_of(np.stack([plain[f"p__{task}"].to_numpy() for task in model.tasks], axis=1)))
    wanted = np.stack([calibrated[f"p__{task}"].to_numpy() for task in model.tasks], axis=1)
    np.testing.assert_allclose(model.probabilities(logits).numpy(), wanted, atol=1e-9)
    assert np.abs(wanted - torch.sigmoid(logits).numpy()).max() > 1e-3
    card = json.loads((trained["isotonic"] / "model.json").read_text())
    assert card["calibration"] == {"enter": "isotonic", "gift": "isotonic", "enter_and_gift": "product"}
    assert json.loads((trained["plain"] / "model.json").read_text())["calibration"] == {}


def test_rows_of_all_ranks_come_together_in_one_order() -> None:
    def body(exchange: Exchange) -> list[list[float]]:
        mine = torch.arange(7)[torch.arange(7) % exchange.world.size == exchange.world.rank].flip(0)
        table = torch.stack([mine, mine], dim=1).double()
        rows = Scored(row_id=mine, group=mine, scores=table, labels=table + 10, weights=table + 20)
        every = gathered(rows, exchange)
        columns = [every.row_id[:, None].double(), every.scores, every.labels, every.weights]
        found: list[list[float]] = torch.cat(columns, dim=1).tolist()
        return found

    wanted = [[float(i), i, i, i + 10, i + 10, i + 20, i + 20] for i in range(7)]
    for size in (1, 3):
        assert on_ranks(size, body) == [wanted] * size


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfError, match=r"calibration\.kind='beta'"):
        TrainConf.of({"model": {"name": "lr"}, "calibration": {"kind": "beta"}})


def test_a_curve_comes_after_the_correction_for_negatives(tmp_path: Path) -> None:
    model = build("esmm", write_trainset(tmp_path), {"negatives_kept": {"enter": 0.25}}, seed=0).double()
    logits = 3 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    corrected = model.probabilities(logits)
    assert (corrected - torch.sigmoid(logits))[:, 0].abs().max() > 0.1
    as_it_is = {name: c.TargetCalibration(curve=c.Curve(at=(0.0,), value=(0.0,))) for name in model.tasks}
    model.calibration = c.CalibrationLayer(c.Calibration(kind="platt", targets=as_it_is))
    torch.testing.assert_close(model.probabilities(logits), corrected, rtol=0, atol=1e-12)
