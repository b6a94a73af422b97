"""From raw rows to a verdict: two real published folders with artefacts of their own on the same samples."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from features.errors import DataError
from tests.training.raw_trainset import GATE_DAY, TRAIN_DAY, USERS, RawTrainset, raw_samples, write_raw_trainset
from tests.training.test_gate import CONF, MAIN, PARITY, SEGMENTS
from training.batch import Batch
from training.export import export_folder
from training.gate_day import judge_folders, labels_and_weights
from training.models import build
from training.models.esmm import ESMM
from training.parity import check_parity
from training.published import Output, seal, verify

ANY = {"min_auc": 0.5, "min_pcoc": 0.01, "max_pcoc": 100.0, "min_rows": 1, "min_positives": 1, "min_negatives": 1}
LENIENT = CONF.model_copy(
    update={
        "main": MAIN.model_copy(update=ANY),
        "others": MAIN.model_copy(update={**ANY, "max_auc": 1.0, "bound": "high"}),
        "segments": SEGMENTS.model_copy(update={"columns": ("user_city",)}),
    }
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTrainset:
    return write_raw_trainset(tmp_path_factory.mktemp("trainset"))


@pytest.fixture(scope="module")
def folder(raw: RawTrainset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows one thing: more viewers, more enters."""
    model = build("esmm", raw.trainset, {"embedding_dim": 2, "hidden": [2]}, seed=1)
    assert isinstance(model, ESMM)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for tower in range(2):  # logit = relu(viewers + 3) − 3; the last dense number is room_viewers, normalised
            for name, value in (("0.0.weight", 1.0), ("0.0.bias", 3.0), ("1.weight", 1.0), ("1.bias", -3.0)):
                model.get_parameter(f"towers.{tower}.{name}").view(-1)[-1] = value
    path = tmp_path_factory.mktemp("esmm") / "published"
    export_folder(model, raw.trainset, raw.root, raw.samples, {"name": "esmm"}, path)
    return path


def test_a_model_is_its_own_equal(raw: RawTrainset, folder: Path) -> None:
    verdict = judge_folders("esmm", folder, ("3", folder), raw.samples, PARITY, LENIENT)
    assert (verdict.verdict, verdict.rule, verdict.champion) == ("pass", "champion_comparison", "version 3")
    enter = verdict.tasks[0]
    assert [task.task for task in verdict.tasks] == ["enter", "gift", "enter_and_gift"]
    assert enter.candidate == enter.champion
    assert enter.candidate.auc is not None
    assert enter.candidate.auc > 0.7
    assert verdict.day == str(GATE_DAY)


def test_the_first_one_passes_by_first_model_and_says_what_it_saw(raw: RawTrainset, folder: Path) -> None:
    verdict = judge_folders("esmm", folder, None, raw.samples, PARITY, LENIENT)
    assert verdict.rule == "first_model"
    assert verdict.candidate_days.seen_until == str(TRAIN_DAY)
    assert judge_folders("esmm", folder, None, raw.samples, PARITY, None).rule == "no_thresholds"
    assert judge_folders("esmm", folder, None, raw.samples, None, LENIENT).rule == "parity"


def test_samples_of_another_day_are_refused(folder: Path) -> None:
    other = raw_samples(50, GATE_DAY + datetime.timedelta(days=1), 9)
    with pytest.raises(DataError, match=r"another day than the gate's; e\.g\. 2026-01-11"):
        judge_folders("esmm", folder, None, other, PARITY, LENIENT)


def test_a_champion_that_reads_features_of_the_past_is_named_with_the_way_out(raw: RawTrainset, folder: Path) -> None:
    without = raw.samples.drop_columns(["room_viewers"])
    with pytest.raises(DataError, match=r"(?s)version 3 of esmm reads columns .*room_viewers.*limelight withdraw esmm"):
        judge_folders("esmm", folder, ("3", folder), without, PARITY, LENIENT)


def test_labels_of_conjunctions_are_those_of_training(raw: RawTrainset) -> None:
    """The numpy rule here against the torch rule of the loss, on masks of every kind."""
    rng = np.random.default_rng(0)
    n = 200
    columns = {f"{kind}_{task}": rng.integers(0, 2, n) for kind in ("label", "mask") for task in ("enter", "gift")}
    model = build("esmm", raw.trainset, {"embedding_dim": 2, "hidden": [2]}, seed=1)
    outputs = tuple(Output(name=target.name, all_of=target.all_of) for target in model.targets_of)
    labels, weights = labels_and_weights(pa.table(columns), outputs)

    def stacked(kind: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([columns[f"{kind}_enter"], columns[f"{kind}_gift"]], axis=1)).float()

    none = torch.zeros(0)
    batch = Batch(
        ids=none,
        dense=none,
        vectors={},
        sequences={},
        labels=stacked("label"),
        label_mask=stacked("mask"),
        position=None,
        group=none,
        row_id=none,
    )
    wanted_labels, wanted_weights = model.targets(batch)
    for place, name in enumerate(model.tasks):
        judged = weights[name] > 0
        np.testing.assert_array_equal(weights[name], wanted_weights[:, place].numpy())
        np.testing.assert_array_equal(labels[name][judged], wanted_labels[:, place].numpy()[judged])


def test_missing_labels_are_named(raw: RawTrainset) -> None:
    with pytest.raises(DataError, match=r"labels are missing; e.g. label_share, mask_share"):
        labels_and_weights(raw.samples, (Output(name="share", all_of=("share",)),))


def test_a_stale_vocabulary_is_stopped_by_parity(raw: RawTrainset, folder: Path, tmp_path: Path) -> None:
    """The published folder has another training's ids for the same users; scores of a real model, encoded by them."""
    stale = tmp_path / "published"
    shutil.copytree(folder, stale)
    file = stale / "vocabularies" / "anchor.parquet"
    keys = pq.read_table(file)
    pq.write_table(keys.set_column(1, "id", keys["id"].take(pa.array(np.arange(len(keys))[::-1]))), file)
    seal(stale, "esmm", verify(folder).outputs)
    model = build("esmm", raw.trainset, {"embedding_dim": 2, "hidden": [2]}, seed=1)
    parity = check_parity(model, stale, raw.samples, raw.encoded)
    assert parity.differing_columns["c__anchor_id"] > 0
    verdict = judge_folders("esmm", stale, ("3", folder), raw.samples, parity, LENIENT)
    assert "parity" in verdict.stopped_by
    assert any("c__anchor_id" in reason for reason in verdict.reasons)


def test_segments_follow_from_the_champions_vocabulary(raw: RawTrainset, folder: Path) -> None:
    verdict = judge_folders("esmm", folder, ("3", folder), raw.samples, PARITY, LENIENT)
    seen = {one.segment: one for one in verdict.segments if one.task == "enter"}
    assert {"new user_id", "new anchor_id", "heavy users", "user_city=beijing", "user_city=(null)"} <= set(seen)
    # every other user is unknown, and the newest known one is admitted a day later
    assert seen["new user_id"].rows == sum(
        user % 2 == 1 or user == 10**14 + USERS - 2 for user in raw.samples["user_id"].to_pylist()
    )
    assert all(one.auc_difference is None or one.auc_difference.point == 0 for one in verdict.segments)
    absent = LENIENT.model_copy(update={"segments": SEGMENTS})  # asks for a category, which these samples lack
    assert judge_folders("esmm", folder, None, raw.samples, PARITY, absent).stopped_by == ("segments",)
