"""`limelight tune`: what is searched, what is pruned, what goes on, what is refused."""

from __future__ import annotations

import fcntl
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
import yaml

from features.errors import ConfError, HeldError, LimelightError, NotReadyError
from jobs import search
from jobs.console import Steps
from jobs.fit import values_of
from jobs.search_charts import Judged, search_picture
from jobs.search_report import SearchReport, shortest
from jobs.search_space import SearchSpace, with_values
from jobs.study import LOCK_FILE, STUDY, open_study, study_url
from jobs.train import run_rank
from jobs.trial_link import DIVERGED, PRUNED, TrialLink
from jobs.tune import TuneOptions, tune
from tests.jobs.own_models import TINY, write_conf
from tests.training.samples.own_files import rows, write
from tests.training.thread_ranks import on_ranks
from training.config import TrainConf
from training.evaluation import score
from training.result import TrainResult, load_model
from training.run import train

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

RATE, HIDDEN = "optim.dense.learning_rate", "model.hidden"
SPACE: dict[str, Any] = {
    RATE: {"low": 0.001, "high": 0.1, "log": True},
    "model.dropout": {"low": 0.0, "high": 0.4, "step": 0.1},
    HIDDEN: {"choices": [[4], [8, 4]]},
}
CONF = TINY | {"epochs": 2, "model": {"name": "deepfm", "task": "enter", "embedding_dim": 4}}


def options_in(folder: Path, **changes: Any) -> TuneOptions:
    """Of samples, conf and space that are written there if they are not yet."""
    samples = folder / "own"
    if not samples.exists():
        write(samples, train=400, valid=300, test=200)
        write_conf(folder, "conf", CONF)
        (folder / "space.yaml").write_text(json.dumps(SPACE))
    options = TuneOptions(
        train=str(samples / "train"),
        valid=str(samples / "valid"),
        test=None,
        schema=samples / "schema.yaml",
        model="deepfm",
        conf=folder / "conf.yaml",
        space=folder / "space.yaml",
        trials=4,
        ranks=1,
        out=folder / "out",
        unpruned=2,
    )
    return replace(options, **changes)


def argument(arguments: Sequence[str], name: str) -> Path:
    return Path(arguments[arguments.index(name) + 1])


def train_here(_settings: Any, arguments: Sequence[str]) -> None:
    run_rank(arguments)


class Killed(BaseException):
    """Nothing is tidied up after it, as after SIGKILL."""


class Played:
    """Stands in for `launch`: tells the study what a training would, its AUC made from settings and trial alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends: Mapping[int, BaseException] | None = None) -> None:
        self.trials: list[int] = []
        self.ends = dict(ends or {})
        self.auc: Callable[[Mapping[str, Any], int], float] = lambda conf, epoch: 0.6 + conf["model"]["dropout"] / 4
        monkeypatch.setattr(search, "launch", self)

    def __call__(self, _settings: Any, arguments: Sequence[str]) -> None:
        run, conf = argument(arguments, "--out"), json.loads(argument(arguments, "--conf").read_text())
        assert not conf["judge_test"]
        self.trials.append(int(run.parent.name))
        if self.trials[-1] in self.ends:
            raise self.ends.pop(self.trials[-1])
        link, curves = TrialLink.model_validate_json(argument(arguments, "--trial").read_text()), []
        for epoch in range(conf["epochs"]):
            curves.append({"epoch": epoch, "valid": {"click": {"auc": self.auc(conf, epoch)}}})
            if link.gives_up(curves[-1]):
                return
        (run / "curves.json").write_text(json.dumps(curves))
        result = TrainResult(
            model="deepfm", tasks=("click",), interrupted=False, epochs=2, best_epoch=1, world_size=1, steps=1,
            dropped_per_epoch=0,
        )  # fmt: skip
        (run / "result.json").write_text(result.model_dump_json())


def drawn(report: SearchReport) -> list[tuple[str, Mapping[str, Any]]]:
    return [(trial.state, trial.values) for trial in report.trials if trial.state != "cut off"]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    options_in(folder)
    return folder


@pytest.fixture(scope="module")
def searched(samples: Path) -> SearchReport:
    """Three real trainings; the search is called for two, then for one more."""
    options = options_in(samples, test=str(samples / "own" / "test"), unpruned=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "launch", train_here)
        first = tune(replace(options, trials=2), Steps())
        report = tune(replace(options, trials=3), Steps())
    assert drawn(report)[:2] == drawn(first)
    return report


def test_the_best_trial_is_kept_and_can_be_trained_again(samples: Path, searched: SearchReport) -> None:
    out = samples / "out"
    assert [trial.state for trial in searched.trials] == ["complete"] * 3
    best = max(searched.trials, key=lambda trial: trial.value or 0)
    assert searched.best == best.number
    assert SearchReport.model_validate_json((out / "trials.json").read_text()) == searched
    assert [path.name for path in (out / "trials").iterdir()] == [f"{best.number:04d}"]
    again = TrainConf.of(values_of("deepfm", out / "best.yaml"))
    model, _ = load_model(str(out / "trials" / f"{best.number:04d}" / "run"))
    assert again.model.conf["hidden"] == best.values[HIDDEN]
    assert again.optim.dense.learning_rate == best.values[RATE]
    assert (again.judge_train, again.judge_test, again.tracking.uri) == (True, True, None)
    metrics = json.loads((out / "trials" / f"{best.number:04d}" / "run" / "metrics.json").read_text())
    assert set(metrics) == {"valid"}
    assert metrics["valid"]["click"]["auc"] == pytest.approx(best.value, abs=1e-12)
    assert model.tasks == ("click",)
    shown = (out / "trials.md").read_text()
    assert shown.splitlines()[2].startswith(f"| {best.number} | {best.value:.4f} | ")
    ET.fromstring((out / "trials.svg").read_text())


def test_every_trial_is_a_run(samples: Path, searched: SearchReport) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{samples}/out/mlflow.db")
    for trial in searched.trials:
        assert trial.run_id is not None
        seen = client.get_run(trial.run_id)
        assert (seen.info.status, seen.data.tags["limelight.trial"]) == ("FINISHED", str(trial.number))
        assert seen.data.tags["limelight.state"] == "complete"
        assert float(seen.data.params[RATE]) == trial.values[RATE]
        assert seen.data.params[HIDDEN] == str(trial.values[HIDDEN])
        history = client.get_metric_history(trial.run_id, "valid.click.auc")
        assert {point.step: point.value for point in history} == trial.epochs
        assert trial.value == max(trial.epochs.values())


def test_the_test_split_is_judged_once_for_the_best_trial(
    samples: Path, searched: SearchReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert searched.test is not None
    assert searched.test["click"]["rows"] == 200
    judged = []

    def counted(*arguments: Any, **named: Any) -> Any:
        judged.append(arguments)
        return score(*arguments, **named)

    monkeypatch.setattr(search, "score", counted)
    options = options_in(samples, test=str(samples / "own" / "test"), trials=3, unpruned=9)
    assert tune(options, Steps()).test == searched.test
    assert len(judged) == 1


def test_a_real_training_is_given_up_on_all_ranks(samples: Path, searched: SearchReport, tmp_path: Path) -> None:
    """Against a complete trial with an AUC that no training reaches."""
    study = open_study(tmp_path, "maximize", {})
    perfect = optuna.trial.create_trial(value=1.0, intermediate_values={0: 1.0, 1: 1.0})
    study.add_trial(perfect)
    trial = study.ask()
    link = TrialLink(
        storage=study_url(tmp_path), study=STUDY, trial_id=trial._trial_id, task="click", metric="auc", unpruned=1
    )
    conf = TrainConf.of(with_values(CONF, {"model.task": "click", "epochs": 5}))
    trainset, out = str(samples / "out" / "trainset"), tmp_path / "run"

    def rank(exchange: Any) -> TrainResult:
        asked = link.gives_up if exchange.world.is_first else lambda _record: pytest.fail("only rank 0 is asked")
        return train(conf, trainset, str(out), exchange=exchange, show_progress=False, gives_up=asked)

    results = on_ranks(2, rank)
    assert [(result.given_up, result.interrupted, result.epochs) for result in results] == [(True, False, 1)] * 2
    assert [record["epoch"] for record in json.loads((out / "curves.json").read_text())] == [0]
    assert not (out / "result.json").exists()
    told = study.get_trials()[trial.number]
    assert (told.user_attrs[PRUNED], list(told.intermediate_values)) == (0, [0])


def test_a_trial_worse_than_the_median_is_pruned(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(monkeypatch)
    played.auc = lambda _conf, epoch: 0.8 - 0.05 * played.trials[-1] + 0.01 * epoch
    report = tune(options_in(samples, out=tmp_path, trials=5), Steps())
    assert [trial.state for trial in report.trials] == ["complete", "complete", *["pruned"] * 3]
    assert [list(trial.epochs) for trial in report.trials] == [[0, 1], [0, 1], [0], [0], [0]]
    assert (report.best, report.said_of_best()) == (0, "auc of click on valid 0.8100")
    assert report.counts() == "2 complete, 3 pruned"
    assert [path.name for path in (tmp_path / "trials").iterdir()] == ["0000"]


def test_the_seed_fixes_what_is_drawn_whatever_cuts_the_search_off(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eleven trials: the sampler learns from ten."""
    Played(monkeypatch)
    options = options_in(samples, out=tmp_path / "whole", trials=11)
    whole = tune(options, Steps())
    assert len({json.dumps(values) for _, values in drawn(whole)}) > 6
    assert max(whole.importance, key=lambda key: whole.importance[key]) == "model.dropout"
    assert sum(whole.importance.values()) == pytest.approx(1.0)
    Played(monkeypatch, {2: Killed(), 5: KeyboardInterrupt()})
    cut = replace(options, out=tmp_path / "cut")
    with pytest.raises(Killed):
        tune(cut, Steps())
    with pytest.raises(NotReadyError, match=r"interrupted after 4 of 11 trials\. The same"):
        tune(cut, Steps())
    report = tune(cut, Steps())
    assert [trial.number for trial in report.trials if trial.state == "cut off"] == [2, 5]
    assert drawn(report) == drawn(whole)
    Played(monkeypatch)
    assert drawn(tune(replace(options, out=tmp_path / "other", seed=1, trials=2), Steps())) != drawn(whole)[:2]


def test_what_diverges_counts_and_what_fails_does_not(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Diverging(Played):
        def __call__(self, settings: Any, arguments: Sequence[str]) -> None:
            if int(argument(arguments, "--out").parent.name) == 1:
                TrialLink.model_validate_json(argument(arguments, "--trial").read_text()).diverged("no number")
                raise LimelightError("training ended with exit code 4")
            super().__call__(settings, arguments)

    Diverging(monkeypatch, {0: LimelightError("exit code 9")})
    report = tune(options_in(samples, out=tmp_path, trials=2), Steps())
    assert [(trial.state, trial.why) for trial in report.trials] == [
        ("failed", "exit code 9"),
        ("diverged", "no number"),
        ("complete", None),
    ]
    assert report.best == 2
    Played(monkeypatch, {number: LimelightError("exit code 9") for number in (3, 4, 5)})
    with pytest.raises(LimelightError, match="3 trials in a row failed; the last one: exit code 9"):
        tune(options_in(samples, out=tmp_path, trials=9), Steps())


def test_a_real_divergence_is_told(samples: Path, searched: SearchReport, tmp_path: Path) -> None:
    study = open_study(tmp_path, "maximize", {})
    trial = study.ask()
    link = TrialLink(
        storage=study_url(tmp_path), study=STUDY, trial_id=trial._trial_id, task="click", metric="auc", unpruned=1
    )
    (tmp_path / "trial.json").write_text(link.model_dump_json())
    rates = {"optim.dense.kind": "sgd", "optim.dense.learning_rate": 1e30}
    write_conf(tmp_path, "conf", with_values(CONF, {"model.task": "click"} | rates))
    arguments = ["--trainset", f"{samples}/out/trainset", "--out", f"{tmp_path}/run"]
    with pytest.raises(LimelightError, match="diverged"):
        run_rank([*arguments, "--conf", f"{tmp_path}/conf.yaml", "--trial", f"{tmp_path}/trial.json"])
    assert "diverged" in study.get_trials()[trial.number].user_attrs[DIVERGED]


def test_another_search_in_the_folder_is_refused(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Played(monkeypatch)
    write(tmp_path / "own", train=100, valid=60, test=30)
    write_conf(tmp_path, "conf", CONF)
    (tmp_path / "space.yaml").write_text(json.dumps(SPACE))
    options = options_in(tmp_path, trials=1)
    first = tune(options, Steps())
    (tmp_path / "space.yaml").write_text(json.dumps(dict(reversed(SPACE.items()))))
    assert drawn(tune(options, Steps())) == drawn(first)
    (tmp_path / "space.yaml").write_text(json.dumps({RATE: SPACE[RATE]}))
    with pytest.raises(ConfError, match="holds a search of another space; its trials cannot be compared"):
        tune(options, Steps())
    (tmp_path / "space.yaml").write_text(json.dumps(SPACE))
    with pytest.raises(ConfError, match="another training conf, metric or task and seed"):
        tune(replace(options, metric="logloss", seed=3), Steps())
    made = (tmp_path / "out" / "trainset" / "made_from.json").read_text()
    pq.write_table(rows(60, 9), tmp_path / "own" / "valid" / "b.parquet")
    with pytest.raises(ConfError, match="another sample files; "):
        tune(options, Steps())
    assert (tmp_path / "out" / "trainset" / "made_from.json").read_text() == made
    with (tmp_path / "out" / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(HeldError, match="another search is at work"):
            tune(options, Steps())


def test_all_that_is_wrong_with_a_space_is_said_before_anything_is_read(samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    wrong = {
        "a": {"low": 1, "high": 1},
        "b": {"low": 0.0, "high": 1.0, "log": True},
        "c": {"low": 1.0, "high": 2.0, "step": 0.3},
        "d": {"low": 1, "high": 9, "log": True, "step": 2},
        "e": {"choices": [[4], [4]]},
        "f": {"low": "little", "hihg": 2},
        "g": [1, 2],
        "h": {"choices": ["one"]},
        "model.task": {"choices": ["click", "buy"]},
        "optim": {"choices": [{}, {"clip_norm": 1.0}]},
        "optim.clip_norm": {"low": 0.5, "high": 5.0},
    }
    path.write_text(yaml.safe_dump(wrong))
    with pytest.raises(ConfError) as told:
        tune(options_in(samples, space=path, out=tmp_path / "out"), Steps())
    lines = str(told.value).splitlines()
    for line in (
        "a: low=1 is not below high=1",
        "b: log: true wants low above 0, it is 0.0",
        "c: high=2.0 is not low=1.0 plus a whole number of steps of 0.3",
        "d: log: true and step exclude each other",
        "e: repeated choices: [4]",
        "f: hihg is unknown; a range has low, high, log and step, or choices",
        "g: [1, 2] is no range; write {low: …, high: …} or {choices: […]}",
        "model.task: it is the same for all trials; set it in the training conf (--conf), or leave it out",
        "optim: optim.clip_norm is a part of it; name one of the two",
    ):
        assert line in lines
    assert any(line.startswith("f: low='little'") for line in lines)
    assert any(line.startswith("h: choices=['one']") for line in lines)
    assert not (tmp_path / "out").exists()


def test_keys_and_values_that_the_conf_refuses_are_all_named(samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    unknown = {
        "optim.dense.learning_rat": {"low": 0.1, "high": 0.2},
        "model.layers": {"low": 1, "high": 4},
        "model.dropout": {"low": 0.0, "high": 1.5},
        "batch_size": {"low": 16.0, "high": 64.0},
        "epochs.first": {"low": 1, "high": 2},
        HIDDEN: {"choices": [[8], "wide"]},
    }
    path.write_text(yaml.safe_dump(unknown | SPACE | unknown))
    with pytest.raises(ConfError) as told:
        tune(options_in(samples, space=path, out=tmp_path / "out"), Steps())
    for words in (
        "optim.dense.learning_rat=0.1: Extra inputs are not permitted",
        "model.layers=1: Extra inputs are not permitted (model deepfm)",
        "model.dropout=1.5: ",
        "batch_size=34.336: ",
        "epochs.first: epochs is no mapping, it holds 2",
        "model.hidden='wide'",
    ):
        assert words in str(told.value)
    assert RATE not in str(told.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": "kauf"}, "'kauf'"),
        ({"task": "kauf", "model": "lr", "conf": None}, "'kauf'"),
        ({"space": Path("nowhere.yaml")}, "--space: there is no nowhere.yaml"),
    ],
)
def test_what_cannot_be_chosen_by_is_refused(
    samples: Path, tmp_path: Path, changes: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Played(monkeypatch)
    (tmp_path / "space.yaml").write_text(json.dumps({RATE: SPACE[RATE]}))
    options = options_in(samples, out=tmp_path, space=tmp_path / "space.yaml")
    with pytest.raises(LimelightError, match=told):
        tune(replace(options, **changes), Steps())


def test_gauc_wants_a_group(samples: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.yaml"
    schema.write_text((samples / "own" / "schema.yaml").read_text().replace("role: group", "role: ignore"))
    with pytest.raises(ConfError, match="gauc wants a group"):
        tune(options_in(samples, schema=schema, metric="gauc", out=tmp_path / "out"), Steps())


def test_values_go_to_their_places() -> None:
    conf = {"model": {"name": "lr"}, "plateau": None}
    changed = with_values(conf, {"plateau.factor": 0.5, "model.hidden": [4]})
    assert changed == {"model": {"name": "lr", "hidden": [4]}, "plateau": {"factor": 0.5}}
    assert conf == {"model": {"name": "lr"}, "plateau": None}


def test_numbers_in_yaml_may_have_any_notation(tmp_path: Path) -> None:
    """YAML reads 1e-4 as text."""
    path = tmp_path / "space.yaml"
    path.write_text("a: {low: 1e-4, high: 1e-2, log: true}\nb: {low: 2, high: 8}\n")
    space = SearchSpace.load(path)
    assert space.document() == {"a": {"low": 1e-4, "high": 1e-2, "log": True}, "b": {"low": 2, "high": 8}}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    values = [space.suggest(study.ask()) for _ in range(20)]
    assert {one["b"] for one in values} <= set(range(2, 9))
    assert all(1e-4 <= one["a"] <= 1e-2 for one in values)


def test_a_column_is_named_by_what_tells_it_apart() -> None:
    keys = ["optim.dense.learning_rate", "optim.embedding.learning_rate", "model.dropout", "epochs"]
    assert shortest(keys) == ["dense.learning_rate", "embedding.learning_rate", "dropout", "epochs"]
    assert shortest(["a.b", "b"]) == ["a.b", "b"]


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_the_picture_has_a_dot_per_trial_and_a_bar_per_key(lower_is_better: bool) -> None:
    trials = [
        Judged(number=0, value=0.6, complete=True),
        Judged(number=1, value=0.9, complete=False),
        Judged(number=3, value=0.7, complete=True),
    ]
    picture = search_picture("auc of <click>", trials, {"a": 0.75, "b": 0.25}, lower_is_better=lower_is_better)
    elements = list(ET.fromstring(picture).iter())
    dots = [e.get("fill") for e in elements if e.tag.endswith("circle")]
    assert (len(dots), dots.count("#ffffff")) == (3, 1)
    texts = [e.text for e in elements if e.tag.endswith("text")]
    assert {"auc of <click>", "a", "0.75", "b", "0.25"} <= set(texts)
    assert len([e for e in elements if e.tag.endswith("rect")]) == 1 + 2
