"""`limelight tune`: a search over settings of one model, by Optuna; pruned, resumable, each trial an MLflow run.

<out>/trainset/      the samples, encoded once
<out>/study.db       the study; the same command goes on with it
<out>/trials/NNNN/   the training of the best trial so far; `limelight explain` takes it. Others leave their figures
<out>/mlflow.db      a run per trial, unless conf tracking.uri names another store
<out>/best.yaml      the best trial's settings, for `limelight fit --conf`
<out>/trials.json, trials.md, trials.svg   see jobs/search_report.py

A trial is a training like that of `fit`: in a process of its own, or on several ranks. What it must tell the study
after each epoch goes through jobs/trial_link.py. Trials are judged on valid alone; test is judged once, for the best.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from features.errors import ConfError
from jobs.console import Steps
from jobs.fit import encoded, made_from, values_of
from jobs.search import LOWER_IS_BETTER, TRAINSET, Search, TuneOptions
from jobs.search_report import SearchReport
from jobs.search_space import SearchSpace
from jobs.study import Direction, alone_in, open_study
from training import models
from training.config import TrainConf
from training.samples.schema import SampleSchema


def tune(options: TuneOptions, steps: Steps) -> SearchReport:
    """Encode, search, write down.

    Raises:
        ConfError: conf or space are wrong, all of it at once; or the folder holds another search.
        DataError: the samples are wrong.
        HeldError: another search is at work in the folder.
        NotReadyError: it was interrupted; the same command goes on.
        LimelightError: several trainings in a row failed.
    """
    schema = SampleSchema.load(options.schema)
    space, values = SearchSpace.load(options.space), _values(options, schema)
    space.check(values, _readable, options.space)
    with alone_in(options.out), _terminated_as_interrupted():
        falls = values["early_stopping"]["metric"] in LOWER_IS_BETTER
        direction: Direction = "minimize" if falls else "maximize"
        study = open_study(options.out, direction, _made_of(options, schema, space, values))
        trainset = encoded(schema, options.splits, options.out.absolute() / TRAINSET, options.out.name, steps)
        return Search(options, space, values, trainset, study, steps).run()


def _values(options: TuneOptions, schema: SampleSchema) -> dict[str, Any]:
    """What all trials share."""
    values = values_of(options.model, options.conf)
    stopping = values.get("early_stopping") or {}
    values["early_stopping"] = {"metric": "auc"} | stopping | ({"metric": options.metric} if options.metric else {})
    if options.task is not None:
        values["early_stopping"]["task"] = options.task
        if "task" in values["model"]:
            values["model"]["task"] = options.task
    if values["early_stopping"]["metric"] == "gauc" and schema.plain("group") is None:
        raise ConfError(f"gauc wants a group, and no column of {options.schema} is one; choose by auc or logloss")
    return values


def _readable(values: dict[str, Any]) -> None:
    """What can be said of settings before the samples are known."""
    conf = TrainConf.of(values)
    models.check_conf(conf.model.name, conf.model.conf)


def _made_of(
    options: TuneOptions, schema: SampleSchema, space: SearchSpace, values: Mapping[str, Any]
) -> dict[str, Any]:
    """What trials must share to be compared, as digests but for the space. Test is not a part of it."""
    chosen_by = dict(options.splits)
    chosen_by.pop("test", None)
    source = json.loads(made_from(chosen_by, schema))
    shared = TrainConf.of(dict(values)).model_dump(mode="json", exclude={"tracking"})
    return {
        "space": space.document(),
        "sample files": _digest(source["files"]),
        "schema": source["schema"],
        "training conf, metric or task": _digest(shared),
        "seed": options.seed,
    }


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM is Ctrl-C inside the block; a child is stopped, and the study is left in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


__all__ = ["TuneOptions", "tune"]
