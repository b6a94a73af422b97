"""A warm start from the files of a real training: right after growth everything old is there, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from features import manifest as m
from tests.training.test_models import make_batch
from tests.training.test_run import conf_of, run
from tests.training.test_warm_start import NEW_IDS, as_before, changed
from tests.training.trainset_factory import write_trainset
from training import models
from training.batch import Batch
from training.config import TrainConf
from training.exchange import SingleExchange
from training.optim import Optimiser
from training.result import OPTIMISER_FILE, TABLE_WEIGHT, WEIGHTS_FILE
from training.step import Learner
from training.warm_start import start_warm


@pytest.fixture(scope="module")
def trainset(tmp_path_factory: pytest.TempPathFactory) -> tuple[m.TrainSet, Path]:
    """Whose vocabularies come from files, so that they may grow."""
    folder: Path = tmp_path_factory.mktemp("trainset")
    written = write_trainset(folder, rows=512, valid_rows=64, gate_rows=64)
    fitted = tuple(v.model_copy(update={"path": f"{v.name}.parquet"}) for v in written.vocabularies)
    described = written.model_copy(update={"vocabularies": fitted})
    (folder / m.TRAINSET_FILE).write_text(described.model_dump_json(), encoding="utf-8")
    return described, folder


def learner_of(conf: TrainConf, trainset: m.TrainSet) -> Learner:
    model = models.build(conf.model.name, trainset, conf.model.conf, conf.seed)
    optimiser = Optimiser(model.table, model.dense_parameters(), conf.optim)
    return Learner(model, optimiser, SingleExchange(), conf.accumulate, conf.exchange)


def scores(learner: Learner, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = learner.model.eval()(batch)
    return result


@pytest.mark.parametrize("kind", ["adagrad", "adam"])
@pytest.mark.parametrize("name", ["deepfm", "mmoe"])
def test_rows_state_and_predictions_are_those_of_the_earlier_model(
    name: str, kind: str, trainset: tuple[m.TrainSet, Path], tmp_path: Path
) -> None:
    old, folder = trainset
    optim: dict[str, Any] = {"embedding": {"kind": kind, "learning_rate": 0.1}}
    conf = conf_of(name, epochs=1, batch_size=64, optim=optim)
    run(conf, str(folder), tmp_path)
    new = changed(old, NEW_IDS)
    earlier, grown = learner_of(conf, old), learner_of(conf, new)
    assert start_warm(str(tmp_path), earlier, conf, old) == {}
    assert start_warm(str(tmp_path), grown, conf, new) == NEW_IDS

    weights, state = load_file(tmp_path / WEIGHTS_FILE), load_file(tmp_path / OPTIMISER_FILE)
    found = grown.optimiser.state_dict()
    per_row = {key for key in state if key.startswith("rows.") and key != "rows.steps"}
    assert per_row
    assert any(state[key].any() for key in per_row), "it has learnt"
    for vocabulary, start in old.offsets().items():
        was = slice(start, start + old.num_ids(vocabulary))
        now = slice(new.offsets()[vocabulary], new.offsets()[vocabulary] + old.num_ids(vocabulary))
        assert torch.equal(grown.model.table.weight[now], weights[TABLE_WEIGHT][was])
        assert all(torch.equal(found[key][now], state[key][was]) for key in per_row)
    assert all(torch.equal(found[key], value) for key, value in state.items() if key not in per_row)

    drawn = make_batch(new, rows=200).to("cpu", torch.float32)
    known = as_before(drawn, old)
    assert not torch.equal(drawn.ids, known.ids), "some rows have new ids"
    assert torch.equal(scores(grown, drawn), scores(earlier, known))
    assert torch.equal(scores(grown, known), scores(earlier, known))
