"""Growth changes no prediction: old ids keep their rows, new ids are what OOV was; anything else is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features import manifest as m
from features.errors import DataError
from tests.training.test_models import build, make_batch
from tests.training.trainset_factory import write_trainset
from training import models
from training.batch import Batch
from training.models import RankingModel
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


@pytest.mark.parametrize("name", models.names())
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


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=4))
def test_growth_against_a_loop_over_vocabularies_and_ids(old: m.TrainSet, sizes: list[tuple[int, int]]) -> None:
    """sizes: of each vocabulary, its keys and those that are added."""

    def described(counts: list[int]) -> m.TrainSet:
        made = [m.Vocabulary(name=f"v{place}", num_ids=2 + n, path=f"{place}") for place, n in enumerate(counts)]
        nothing: dict[str, Any] = {"categorical": (), "sequences": ()}
        return old.model_copy(update={"vocabularies": tuple(made), **nothing})

    before, after = described([n for n, _ in sizes]), described([n + more for n, more in sizes])
    grown = growth(before, after)
    table = torch.randn(before.table_rows(), 3, generator=torch.Generator().manual_seed(len(sizes)))
    rows, state = [], []
    for vocabulary, start in before.offsets().items():
        known = before.num_ids(vocabulary)
        for number in range(after.num_ids(vocabulary)):
            rows.append(table[start + (number if number < known else m.OOV_ID)])
            state.append(table[start + number] if number < known else torch.zeros(3))
    assert torch.equal(grown.rows(table), torch.stack(rows))
    assert torch.equal(grown.state(table), torch.stack(state))
    assert grown.added == {f"v{place}": more for place, (_, more) in enumerate(sizes) if more}


@pytest.mark.parametrize("kind", ["adagrad", "adam"])
def test_a_key_that_was_evicted_finds_its_row_and_its_state_again(kind: str, old: m.TrainSet, new: m.TrainSet) -> None:
    """Evicted, it encodes as OOV: batches touch OOV's row and never its own, whatever grows meanwhile."""
    conf = OptimConf.model_validate({"embedding": {"kind": kind, "l2": 0.1}})

    def learner(trainset: m.TrainSet) -> tuple[RankingModel, Optimiser]:
        model = build("deepfm", trainset)
        return model, Optimiser(model.table, model.dense_parameters(), conf)

    (model, optimiser), (later_model, later) = learner(old), learner(new)
    step_on(optimiser, torch.arange(old.table_rows()), seed=0)
    evicted = old.offsets()["anchor_id"] + m.FIRST_KEY_ID
    row = model.table.weight[evicted].detach().clone()
    state = {name: value[evicted].clone() for name, value in optimiser.rows.state.items()}
    grown = growth(old, new)
    later_model.load_state_dict(grown_weights(model.state_dict(), grown, TABLE_WEIGHT))
    later.load_state_dict(grown_state(optimiser.state_dict(), grown))
    its_row = new.offsets()["anchor_id"] + m.FIRST_KEY_ID
    others = torch.tensor([one for one in range(new.table_rows()) if one != its_row])
    for seed in (1, 2):
        step_on(later, others, seed)
    assert torch.equal(later_model.table.weight[its_row], row)
    assert all(torch.equal(value[its_row], state[name]) for name, value in later.rows.state.items())
    assert not torch.equal(later_model.table.weight[its_row - 1], row), "OOV's row has learnt"


def step_on(optimiser: Optimiser, rows: torch.Tensor, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    for parameter in optimiser.parameters:
        parameter.grad = torch.ones_like(parameter)
    optimiser.step(rows, torch.randn(len(rows), optimiser.rows.weight.shape[1], generator=random, dtype=torch.float64))
