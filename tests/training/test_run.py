"""The training function from end to end: outputs, resume, SIGTERM, warm start, tracking; alone and on real ranks."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from features import manifest as m
from features.errors import ConfError, DataError
from tests.training.launch import run_ranks
from tests.training.thread_ranks import on_ranks
from tests.training.trainset_factory import write_trainset
from training import checkpoint
from training.batch import Batch
from training.config import TrainConf
from training.feed import Feed
from training.judgement import Record
from training.run import INTERRUPTED_EXIT_CODE, TrainResult, load_model, train
from training.step import Learner, StepLosses
from training.world import World

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

ROWS, BATCH = 2048, 128  # 16 steps an epoch


@pytest.fixture(scope="module")
def trainset_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("trainset")
    write_trainset(folder, rows=ROWS, valid_rows=300, gate_rows=301)
    return str(folder)


def conf_of(name: str = "deepfm", **changes: Any) -> TrainConf:
    """Small and quick; with dropout unless said otherwise, so that random states matter."""
    model = {"name": name, "embedding_dim": 8, "dropout": 0.2} | changes.pop("model", {})
    values = {
        "batch_size": BATCH,
        "evaluation_batch_size": 256,
        "epochs": 2,
        "threads": 1,
        "optim": {"embedding": {"learning_rate": 0.1}, "dense": {"learning_rate": 0.01}},
        "early_stopping": {"patience": 9},
    }
    return TrainConf.of({**values, **changes, "model": model})


def run(conf: TrainConf, trainset_url: str, out: Path, **arguments: Any) -> TrainResult:
    return train(conf, trainset_url, str(out), show_progress=False, **arguments)


@contextmanager
def terminated_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Send this process a real SIGTERM in its n-th step."""
    learn, taken = Learner.step, 0

    def counted(self: Learner, batch: Batch, flag: bool = False) -> StepLosses:
        nonlocal taken
        taken += 1
        if taken == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, batch, flag)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", counted)
        yield


def contents(out: Path) -> dict[str, bytes]:
    """What a training leaves that must not depend on interruptions: weights, optimiser, predictions, figures."""
    names = ("model.safetensors", "optimiser.safetensors", "metrics.json")
    return {
        name: (out / name).read_bytes() for name in (*names, "predictions-valid.parquet", "predictions-gate.parquet")
    }


def train_losses(out: Path) -> list[dict[str, float]]:
    return [record["train_loss"] for record in json.loads((out / "curves.json").read_text())]


@pytest.mark.parametrize("name", ["deepfm", "esmm", "mmoe"])
def test_a_model_learns_and_writes_all_down(name: str, trainset_url: str, tmp_path: Path) -> None:
    result = run(conf_of(name, epochs=5), trainset_url, tmp_path)
    assert result.metrics["gate"]["enter"]["auc"] > 0.7  # type: ignore[operator]
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoints", "curves.json", "metrics.json", "model.json", "model.safetensors", "optimiser.safetensors",
        "predictions-gate.parquet", "predictions-valid.parquet", "result.json", "run.json", "trainset.json",
    }  # fmt: skip
    card = json.loads((tmp_path / "model.json").read_text())
    assert tuple(card["tasks"]) == result.tasks
    check_predictions(tmp_path, result, Feed(
        m.TrainSet.model_validate_json((tmp_path / "trainset.json").read_text()), trainset_url,
        split="gate", batch_size=301, world=World(), seed=0,
    ))  # fmt: skip


def check_predictions(out: Path, result: TrainResult, feed: Feed) -> None:
    """Every row of the gate day once, scored as the saved model scores it without position, and judged alike."""
    table = pq.read_table(out / "predictions-gate.parquet").to_pandas()
    assert table[m.ROW_ID_COLUMN].is_monotonic_increasing
    assert len(table) == 301
    model, _ = load_model(str(out))
    (batch,) = list(feed.evaluation())
    assert batch.position is None
    probabilities = model.probabilities(model(batch)).detach().numpy()
    scored = table.set_index(m.ROW_ID_COLUMN).loc[batch.row_id.numpy()]
    for column, task in enumerate(result.tasks):
        np.testing.assert_allclose(scored[f"p__{task}"], probabilities[:, column], atol=1e-6)
        judged = table[table[m.mask_column(task)] > 0]
        wanted = roc_auc_score(
            judged[m.label_column(task)], judged[f"p__{task}"], sample_weight=judged[m.mask_column(task)]
        )
        assert result.metrics["gate"][task]["auc"] == pytest.approx(wanted, abs=1e-12)
        assert result.metrics["gate"][task]["rows"] == len(judged)


def test_sigterm_saves_and_a_resumed_run_is_identical(
    trainset_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf, whole, cut = conf_of(), tmp_path / "whole", tmp_path / "cut"
    run(conf, trainset_url, whole)
    with terminated_at(21, monkeypatch):  # inside the second epoch
        stopped = run(conf, trainset_url, cut)
    assert (stopped.interrupted, stopped.steps, stopped.metrics) == (True, 24, {})
    assert not (cut / "model.safetensors").exists()
    resumed = run(conf, trainset_url, cut, resume=True)
    assert not resumed.interrupted
    assert contents(cut) == contents(whole)
    assert train_losses(cut) == train_losses(whole)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert INTERRUPTED_EXIT_CODE == 128 + signal.SIGTERM


def test_a_crash_resumes_from_the_last_checkpoint_of_its_steps(
    trainset_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf, whole, cut = conf_of(checkpoint={"every_steps": 5, "keep": 1}), tmp_path / "whole", tmp_path / "cut"
    run(conf, trainset_url, whole)
    learn, taken = Learner.step, iter(range(100))

    def crashing(self: Learner, batch: Batch, flag: bool = False) -> StepLosses:
        if next(taken) == 27:
            raise OSError("the node is gone")
        return learn(self, batch, flag)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "step", crashing)
        with pytest.raises(OSError, match="the node is gone"):
            run(conf, trainset_url, cut)
    run(conf, trainset_url, cut, resume=True)
    assert contents(cut) == contents(whole)


class Steps:
    """What the ranks of a training learn from, step by step; all ranks crash in their n-th step if one is named."""

    def __init__(self) -> None:
        self.crash_at: int | None = None
        self.taken: dict[int, list[tuple[list[int], StepLosses]]] = defaultdict(list)

    def learn(self, learner: Learner, batch: Batch, flag: bool = False) -> StepLosses:
        own = self.taken[learner.exchange.world.rank]
        if len(own) == self.crash_at:
            raise OSError("the cluster is gone")
        losses = _LEARN(learner, batch, flag)
        own.append((batch.row_id.tolist(), losses))
        return losses

    def forget_from(self, step: int) -> None:
        """Steps behind the last checkpoint."""
        for own in self.taken.values():
            del own[step:]

    def rows(self, steps: int) -> list[int]:
        return [row for own in self.taken.values() for rows, _ in own[:steps] for row in rows]

    def losses(self, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums and weights [T] of all ranks' rows."""
        own = [losses.sums.double() for taken in self.taken.values() for _, losses in taken[:steps]]
        return torch.stack(own).sum(0), torch.stack([losses.weights for _, losses in self.taken[0][:steps]]).sum(0)


_LEARN = Learner.step


def test_other_ranks_take_a_checkpoint_over_and_learn_each_row_left_once(
    trainset_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks save after 5 of 16 steps and crash; three, which have other streams, read what is left."""
    conf, first, then = conf_of("mmoe", checkpoint={"every_steps": 5, "keep": 1}), Steps(), Steps()
    first.crash_at = 7
    monkeypatch.setattr(Learner, "step", lambda *given, **named: first.learn(*given, **named))
    with pytest.raises(OSError, match="the cluster is gone"):
        on_ranks(2, lambda exchange: run(conf, trainset_url, tmp_path, exchange=exchange))
    first.forget_from(5)
    monkeypatch.setattr(Learner, "step", lambda *given, **named: then.learn(*given, **named))
    results = on_ranks(3, lambda exchange: run(conf, trainset_url, tmp_path, exchange=exchange, resume=True))
    assert results[0] == results[2]
    rows = first.rows(5) + then.rows(11)
    assert len(rows) == len(set(rows)) == ROWS
    sums, weights = (before + after for before, after in zip(first.losses(5), then.losses(11), strict=True))
    told = train_losses(tmp_path)[0]
    assert list(told.values()) == pytest.approx((sums / weights).tolist(), rel=1e-9)
    assert results[0].steps == 16 + len(then.taken[0]) - 11 > 16


def test_resuming_what_is_complete_or_was_never_begun(trainset_url: str, tmp_path: Path) -> None:
    first = run(conf_of(epochs=1), trainset_url, tmp_path, resume=True)
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert run(conf_of(epochs=1), trainset_url, tmp_path, resume=True) == first
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before


def test_a_checkpoint_of_another_model_is_refused(
    trainset_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminated_at(2, monkeypatch):
        run(conf_of(), trainset_url, tmp_path)
    with pytest.raises(ConfError, match="another model or optimiser"):
        run(conf_of(model={"hidden": [7]}), trainset_url, tmp_path, resume=True)


def test_memory_stays_flat_over_fifty_epochs(trainset_url: str, tmp_path: Path) -> None:
    """Feed, steps, evaluation and checkpoints. A batch is 0.25 MB: one kept per epoch would be 10 MB."""

    def look(_: Record) -> bool:
        gc.collect()
        resident.append(psutil.Process().memory_info().rss)
        return False

    resident: list[int] = []
    run(conf_of(batch_size=1024, epochs=50, early_stopping={"patience": 99}), trainset_url, tmp_path, gives_up=look)
    assert len(resident) == 50
    assert max(resident[10:]) - resident[9] < 6e6


def test_the_best_epoch_is_what_is_kept(trainset_url: str, tmp_path: Path) -> None:
    """A rate far too high: later epochs are worse, and the model is that of the first."""
    optim = {"embedding": {"learning_rate": 0.9}, "dense": {"learning_rate": 0.01}}
    result = run(conf_of(epochs=6, optim=optim, early_stopping={"patience": 2}), trainset_url, tmp_path)
    curves = json.loads((tmp_path / "curves.json").read_text())
    values = [record["valid"]["enter"]["auc"] for record in curves]
    assert result.best_epoch == int(np.argmax(values))
    assert result.best_epoch < len(values) - 1
    assert result.metrics["valid"]["enter"]["auc"] == max(values)


def test_no_train_set_and_no_such_task_are_said(trainset_url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no trainset\.json in .*absent"):
        run(conf_of(), str(tmp_path / "absent"), tmp_path / "out")
    with pytest.raises(ConfError, match=r"early_stopping\.task='gift' is not predicted"):
        run(conf_of(early_stopping={"task": "gift"}), trainset_url, tmp_path / "out")


def test_a_training_that_diverged_names_the_batch_and_keeps_the_last_good_checkpoint(
    trainset_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, taken = Learner.step, iter(range(100))

    def spoilt(self: Learner, batch: Batch, flag: bool = False) -> StepLosses:
        if next(taken) == 20:  # step 4 of epoch 1, behind the checkpoints of steps 16 and 20
            batch.dense[5, 0] = torch.nan
            seen.append(int(batch.row_id[5]))
        return learn(self, batch, flag)

    seen: list[int] = []
    monkeypatch.setattr(Learner, "step", spoilt)
    with pytest.raises(DataError, match=r"diverged.*optim\.\*\.learning_rate") as caught:
        run(conf_of(checkpoint={"every_steps": 4, "keep": 1}), trainset_url, tmp_path)
    assert "epoch 1, step 4: the loss is not a number" in str(caught.value)
    assert f"diverged (1); e.g. {seen[0]}." in str(caught.value)
    assert f"checkpoint of step 20, before it, is kept in {tmp_path}" in str(caught.value)
    kept = checkpoint.latest(str(tmp_path / "checkpoints"))
    assert kept is not None
    assert (kept.step, all(bool(value.isfinite().all()) for value in kept.model.values())) == (20, True)


def test_all_options_together_resume_identically_and_repeat_by_seed(
    trainset_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One seed gives the same figures, and so does a run that was cut off after its learning rates fell."""
    rows = {"kind": "adam", "learning_rate": 0.02, "lazy": False, "regularise": "all", "l1": 1e-6, "l2": 1e-5}
    conf = conf_of(
        epochs=3,
        accumulate=3,
        model={"negatives_kept": {"enter": 0.5}},
        optim={"embedding": rows, "dense": {"learning_rate": 0.01, "l1": 1e-5, "l2": 1e-4}, "clip_norm": 1.0},
        plateau={"patience": 1, "min_gain": 0.5, "factor": 0.5, "min_learning_rate": 0.006},
    )
    for name in ("whole", "again"):
        run(conf, trainset_url, tmp_path / name)
    with terminated_at(37, monkeypatch):  # inside the third epoch
        assert run(conf, trainset_url, tmp_path / "cut").interrupted
    run(conf, trainset_url, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "again") == contents(tmp_path / "whole")
    for name in ("whole", "again", "cut"):
        curves = json.loads((tmp_path / name / "curves.json").read_text())
        rates = [(record["learning_rate"]["embedding"], record["learning_rate"]["dense"]) for record in curves]
        assert rates == [(0.02, 0.01), (0.02, 0.01), (0.01, 0.006)]


def test_tracking_has_parameters_curves_and_artefacts(trainset_url: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    tracking = {"uri": f"sqlite:///{tmp_path}/mlflow.db", "artifacts": (tmp_path / "artefacts").as_uri()}
    result = run(conf_of(tracking=tracking), trainset_url, tmp_path / "out")
    assert result.run_id is not None
    client = MlflowClient(tracking_uri=tracking["uri"])
    seen = client.get_run(result.run_id)
    assert seen.info.status == "FINISHED"
    assert seen.data.params["optim.dense.learning_rate"] == "0.01"
    assert len(client.get_metric_history(result.run_id, "valid.enter.auc")) == 2
    assert {item.path for item in client.list_artifacts(result.run_id)} == {"curves.json", "metrics.json", "model.json"}


def test_a_warm_start_goes_on_from_the_earlier_model(trainset_url: str, tmp_path: Path) -> None:
    earlier = run(conf_of(), trainset_url, tmp_path / "earlier")
    warm = run(conf_of(epochs=1), trainset_url, tmp_path / "warm", init_from=str(tmp_path / "earlier"))
    run(conf_of(epochs=1), trainset_url, tmp_path / "cold")
    assert warm.added == {}
    losses = {name: train_losses(tmp_path / name)[0]["enter"] for name in ("earlier", "warm", "cold")}
    assert losses["warm"] < losses["cold"] == losses["earlier"]
    assert earlier.best_epoch is not None
    with pytest.raises(DataError, match="the conf asks for another"):
        run(conf_of("mmoe"), trainset_url, tmp_path / "other", init_from=str(tmp_path / "earlier"))


# 208 steps in float64; in float32, where only the figures at the end are compared, fewer will do.
EXACT = {"float64": {"precision": "float64", "epochs": 13}, "float32": {"precision": "float32", "epochs": 4}}
START_AND_TRAIN_S = 500.0  # 15 s on idle cores


def _exact_conf(precision: str) -> TrainConf:
    return conf_of("mmoe", model={"dropout": 0.0}, early_stopping={"patience": 99}, **EXACT[precision])


def _train_on_a_rank(trainset_url: str, folder: str) -> dict[str, Any]:
    import horovod.torch as horovod

    horovod.init()
    results = {p: run(_exact_conf(p), trainset_url, Path(folder) / f"two-{p}") for p in EXACT}
    horovod.shutdown()
    return {precision: json.loads(result.model_dump_json()) for precision, result in results.items()}


@pytest.mark.horovod
@pytest.mark.timeout(600)
def test_two_real_ranks_against_one(trainset_url: str, tmp_path: Path) -> None:
    """Losses of 208 steps within 1e-9 in float64; AUC within 1e-3 in both precisions."""
    both = run_ranks(
        _train_on_a_rank, ranks=2, timeout_s=START_AND_TRAIN_S, trainset_url=trainset_url, folder=str(tmp_path)
    )
    for precision in EXACT:
        alone = run(_exact_conf(precision), trainset_url, tmp_path / f"one-{precision}")
        first, second = (results[precision] for results in both)
        assert first["world_size"] == 2
        assert first["metrics"] == second["metrics"]
        losses = [train_losses(tmp_path / f"{ranks}-{precision}") for ranks in ("one", "two")]
        if precision == "float64":
            assert losses[1] == [pytest.approx(one, abs=1e-9) for one in losses[0]]
        for split, tasks in alone.metrics.items():
            for task, figures in tasks.items():
                assert first["metrics"][split][task]["rows"] == figures["rows"]
                assert first["metrics"][split][task]["auc"] == pytest.approx(figures["auc"], abs=1e-3)


def _stop_and_resume_on_a_rank(trainset_url: str, folder: str) -> dict[str, Any]:
    """Whole; cut off by a SIGTERM to rank 1 alone, and resumed: in one launch, for starting ranks is slow."""
    import horovod.torch as horovod

    horovod.init()
    conf = conf_of()
    run(conf, trainset_url, Path(folder) / "whole")
    patch = pytest.MonkeyPatch()
    with terminated_at(21 if horovod.rank() == 1 else 0, patch):
        stopped = run(conf, trainset_url, Path(folder) / "cut")
    resumed = run(conf, trainset_url, Path(folder) / "cut", resume=True)
    horovod.shutdown()
    return {"stopped_at": stopped.steps, "interrupted": [stopped.interrupted, resumed.interrupted]}


@pytest.mark.horovod
@pytest.mark.timeout(600)
def test_a_sigterm_to_one_real_rank_stops_both_and_they_resume_identically(trainset_url: str, tmp_path: Path) -> None:
    results = run_ranks(
        _stop_and_resume_on_a_rank,
        ranks=2,
        timeout_s=START_AND_TRAIN_S,
        trainset_url=trainset_url,
        folder=str(tmp_path),
    )
    assert results == [{"stopped_at": 24, "interrupted": [True, False]}] * 2
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
