"""Growth changes no prediction: old ids keep their rows, new ids are what OOV was; anything else is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from features import manifest as m
from features.errors import DataError
from tests.training.test_models import build, make_batch
from tests.training.trainset_factory import write_trainset
from training.batch import Batch
from training.optim import OptimConf, Optimiser
from training.result import TABLE_WEIGHT
from training.warm_start import grown_state, grown_weights, growth

NEW_IDS = {"user_id": 7, "anchor_id": 3}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> m.TrainSet:
    folder: Path = tmp_path_factory.mktemp("trainset")
    trainset = write_trainset(folder, rows=64, valid_rows=64, gate_rows=64)
    booster = m.LeafModel(path="booster.json", digest="a1", trees=2, features=("heat",), fit_days=("2026-01-01",))
    vocabularies = tuple(v.model_copy(update={"path": f"{v.name}.parquet"}) for v in trainset.vocabularies)
    return trainset.model_copy(update={"leaves": booster, "vocabularies": vocabularies})


@pytest.fixture(scope="module")
def new(old: m.TrainSet) -> m.TrainSet:
    return changed(old, num_ids=NEW_IDS)


def changed(trainset: m.TrainSet, num_ids: dict[str, int] | None = None, **fields: Any) -> m.TrainSet:
    """The same with further ids (or fewer) per vocabulary, and other fields."""
    further = num_ids or {}
    vocabularies = tuple(
        v.model_copy(update={"num_ids": v.num_ids + further.get(v.name, 0)}) for v in trainset.vocabularies
    )
    return trainset.model_copy(update={"vocabularies": vocabularies, **fields})


def as_before(batch: Batch, old: m.TrainSet) -> Batch:
    """The same rows as the old vocabularies encoded them: new ids are OOV."""

    def known(ids: torch.Tensor, vocabulary: str) -> torch.Tensor:
        return torch.where(ids < old.num_ids(vocabulary), ids, m.OOV_ID)

    ids = [known(batch.ids[:, column], field.vocabulary) for column, field in enumerate(old.categorical)]
    sequences = {
        f"{s.name}.{f.name}": known(batch.sequences[f"{s.name}.{f.name}"], f.vocabulary)
        for s in old.sequences
        for f in s.fields
    }
    return replace(batch, ids=torch.stack(ids, dim=1), sequences=sequences)


@pytest.mark.parametrize("name", ["deepfm", "esmm", "mmoe"])
def test_growth_changes_no_prediction(name: str, old: m.TrainSet, new: m.TrainSet) -> None:
    before, after = build(name, old).eval(), build(name, new).eval()
    grown = growth(old, new)
    after.load_state_dict(grown_weights(before.state_dict(), grown, TABLE_WEIGHT))
    batch = make_batch(new, rows=300)
    assert not torch.equal(batch.ids, as_before(batch, old).ids), "some rows have new ids"
    assert torch.equal(after(batch), before(as_before(batch, old)))
    assert grown.added == NEW_IDS


@pytest.mark.parametrize("kind", ["adagrad", "adam"])
def test_old_rows_keep_their_optimiser_state_and_new_ones_have_none(
    kind: str, old: m.TrainSet, new: m.TrainSet
) -> None:
    conf = OptimConf.model_validate({"embedding": {"kind": kind}})

    def optimiser(trainset: m.TrainSet) -> Optimiser:
        model = build("deepfm", trainset)
        return Optimiser(model.table, model.dense_parameters(), conf)

    first, second = optimiser(old), optimiser(new)
    random = torch.Generator().manual_seed(0)
    for parameter in first.parameters:
        parameter.grad = torch.ones_like(parameter)
    gradient = torch.randn(old.table_rows(), first.rows.weight.shape[1], generator=random, dtype=torch.float64)
    first.step(torch.arange(old.table_rows()), gradient)
    second.load_state_dict(grown_state(first.state_dict(), growth(old, new)))
    for name, state in second.rows.state.items():
        for vocabulary, start in new.offsets().items():
            known = old.num_ids(vocabulary)
            begin = old.offsets()[vocabulary]
            assert torch.equal(state[start : start + known], first.rows.state[name][begin : begin + known])
            assert not state[start + known : start + new.num_ids(vocabulary)].any()
    assert second.rows.steps == 1
    assert all(torch.equal(first.state_dict()[k], v) for k, v in second.state_dict().items() if k.startswith("dense"))


def test_a_refitted_booster_is_refused(old: m.TrainSet, new: m.TrainSet) -> None:
    assert new.leaves is not None
    refitted = changed(new, leaves=new.leaves.model_copy(update={"digest": "b2"}))
    with pytest.raises(DataError, match=r"the booster is b2, the earlier model's leaves are of a1.*Train in full"):
        growth(old, refitted)


def test_everything_else_that_forbids_it_is_named_at_once(old: m.TrainSet) -> None:
    refitted = tuple(field.model_copy(update={"mean": 5.0}) for field in old.dense)
    with pytest.raises(DataError) as caught:
        growth(old, changed(old, {"user_id": -1, "category": 2}, dense=refitted, positions=99))
    message = str(caught.value)
    assert "dense differ" in message
    assert "affinity, heat" in message
    assert "8 → 99" in message
    assert "vocabularies have shrunk (1); e.g. user_id" in message


def test_a_vocabulary_by_rule_does_not_grow(old: m.TrainSet) -> None:
    by_rule = tuple(v.model_copy(update={"path": None}) for v in old.vocabularies)
    old = old.model_copy(update={"vocabularies": by_rule})
    with pytest.raises(DataError, match=r"follow from a rule have grown \(1\); e\.g\. category"):
        growth(old, changed(old, {"category": 2}))


def test_features_that_changed_their_meaning_under_one_name_are_named(old: m.TrainSet) -> None:
    was = {"heat": "1", "affinity": "1", "gone": "1"}
    before = old.model_copy(update={"fingerprints": was})
    after = changed(
        before, catalog_fingerprint="other", fingerprints={**was, "heat": "2", "affinity": "2", "more": "1"}
    )
    with pytest.raises(
        DataError, match=r"mean something else than the earlier model learnt \(2\); e\.g\. affinity, heat"
    ):
        growth(before, after)
    assert growth(before, changed(before, catalog_fingerprint="other", fingerprints={"heat": "1"})).added == {}


def test_a_train_set_that_does_not_say_which_features_it_had_is_refused_when_the_catalog_changed(
    old: m.TrainSet,
) -> None:
    with pytest.raises(DataError, match="does not say which features it had"):
        growth(old, changed(old, catalog_fingerprint="other", fingerprints={"heat": "1"}))
