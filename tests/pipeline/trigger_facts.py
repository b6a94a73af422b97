"""Facts in which nothing is wrong, and ways to change one of them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from features.evaluation import Evaluation, Oov, TaskFigures
from pipeline.trigger_facts import Champion, Committed, Facts, Limits, Making, ModelFacts, TriggerConf

GATE_DAY = datetime.date(2026, 1, 10)
MATURE = GATE_DAY + datetime.timedelta(days=1)
SEEN = GATE_DAY - datetime.timedelta(days=1)
TRAINED = SEEN - datetime.timedelta(days=1)
MAKING = Making(catalog="features-1", trainset="days-1", model="net-1")
CONF = TriggerConf(
    every_seconds=60,
    max_attempts=3,
    min_rows=1000,
    min_positives=50,
    empty_share=1e-4,
    new_rows=Limits(incremental=50_000, full=None),
    hours=Limits(incremental=72, full=240),
    auc_drop=Limits(incremental=0.01, full=0.05),
    calibration=Limits(incremental=0.1, full=None),
    score_psi=Limits(incremental=0.1, full=0.5),
    feature_psi=Limits(incremental=0.25, full=None),
    oov=Limits(incremental=0.05, full=None),
)


def figures(**changes: Any) -> TaskFigures:
    found = {"rows": 20_000, "positives": 4000, "auc": 0.73, "gauc": 0.71, "logloss": 0.4, "pcoc": 1.02, **changes}
    return TaskFigures.model_validate(found)


def evaluation(day: datetime.date = GATE_DAY, **changes: Any) -> Evaluation:
    found: Mapping[str, Any] = {
        "model": "deepfm",
        "version": "3",
        "digest": "folder",
        "day": day,
        "samples": f"samples of {day}",
        "rows": 20_000,
        "tasks": {"enter": figures()},
        "scores": {"enter": (0, 5000, 10_000, 5000)},
        "features": {"user_watch_ms_7d": (0, 8000, 12_000), "room_viewers": (0, 10_000, 10_000)},
        "oov": {"user": Oov(values=20_000, oov=2000), "anchor": Oov(values=80_000, oov=800)},
        "score_edges": (0.1, 0.5),
        "feature_edges": (0.0,),
        **changes,
    }
    return Evaluation.model_validate(found)


def champion(**changes: Any) -> Champion:
    found: Mapping[str, Any] = {
        "version": "3",
        "digest": "folder",
        "trainset": "full-2026-01-12",
        "trained_until": TRAINED,
        "seen_until": SEEN,
        "gate_day": GATE_DAY,
        "making": MAKING,
        "reference": evaluation(),
        "newest": evaluation(MATURE),
        **changes,
    }
    return Champion.model_validate(found)


def facts(*models: Champion | None, **changes: Any) -> Facts:
    """Of one model or several; a day of 20,000 unseen rows, so that there is something to train on."""
    listed = models or (champion(),)
    found: Mapping[str, Any] = {
        "mature": MATURE,
        "main_task": "enter",
        "samples": {day: Committed(rows=20_000, digest=f"samples of {day}") for day in (GATE_DAY, MATURE)},
        "models": tuple(
            ModelFacts(model=name, making=MAKING, champion=model)
            for name, model in zip(("deepfm", "mmoe", "esmm"), listed, strict=False)
        ),
        **changes,
    }
    return Facts.model_validate(found)
