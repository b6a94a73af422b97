"""The flow, on one page: every stage with what it reads, what it writes and the function that does it.

raw logs → tiles → profiles · sequences · labels → samples → GBDT leaves → export → Petastorm feed →
Horovod training → gate → registry

Stages never import each other; only this file orders them. Stages of the training side live beyond the
import border: they are named by the door that runs them.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.context import Context, StageResult
from pipeline.stages import profiles, recent, samples, serving, tiles

StageFunction = Callable[[Context, Sequence[datetime.date]], StageResult]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the flow.

    Attributes:
        span: which days it works on, in terms of the sample day D.
        run: the function, for stages that work day by day; None for those behind `door`.
        for_samples: whether samples rest on it, so that a backfill runs it.
        per_model: whether it works for each model by itself.
        on_spark: whether its door is for spark-submit; the others are for Python.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    span: str
    door: str
    run: StageFunction | None = None
    for_samples: bool = True
    per_model: bool = False
    on_spark: bool = True


PLAN = (
    Stage(
        name="tiles",
        reads=("raw/impressions", "raw/actions", "raw/rooms"),
        writes=(
            "tiles_user",
            "tiles_anchor",
            "tiles_user_category",
            "tiles_user_anchor",
            "tiles_on_air",
            "tiles_actions",
        ),
        span="arrival days [D − 32, D)",
        door="jobs/tiles.py",
        run=tiles.run,
    ),
    Stage(
        name="profiles",
        reads=("profiles_*", "tiles_user", "tiles_anchor", "tiles_user_category", "tiles_user_anchor", "tiles_on_air"),
        writes=("profiles_user", "profiles_anchor", "profiles_user_category", "profiles_user_anchor"),
        span="as of D, from the state of D − 1",
        door="jobs/profiles.py",
        run=profiles.run,
    ),
    Stage(
        name="recent",
        reads=("recent_actions", "tiles_actions"),
        writes=("recent_actions",),
        span="as of some D, from the state of an earlier day",
        door="jobs/recent.py",
        run=recent.run,
    ),
    Stage(
        name="samples",
        reads=("profiles_*", "recent_actions", "tiles_actions", "raw/*"),
        writes=("samples",),
        span="impressions of D, mature at D + label_delay_days",
        door="jobs/samples.py",
        run=samples.run,
    ),
    Stage(
        name="trainset",
        reads=("samples",),
        writes=("trainsets",),
        span="fit < train < valid < gate days",
        door="jobs/trainset.py",
    ),
    Stage(
        name="train",
        reads=("trainsets",),
        writes=("runs", "MLflow runs"),
        span="a train set, per model",
        door="jobs/train_model.py",
        per_model=True,
        on_spark=False,
    ),
    Stage(
        name="gate",
        reads=("runs", "samples", "MLflow registry"),
        writes=("verdicts", "MLflow registry"),
        span="the gate day, per model",
        door="jobs/gate.py",
        per_model=True,
    ),
    Stage(
        name="evaluate",
        reads=("samples", "MLflow registry"),
        writes=("evaluations_*",),
        span="mature days that a champion has not seen, per model",
        door="jobs/evaluate.py",
        on_spark=False,
    ),
    Stage(
        name="serving",
        reads=("profiles_*", "recent_actions", "tiles_actions", "raw/users", "raw/anchors", "trainsets"),
        writes=("serving_user", "serving_anchor", "serving_user_category", "serving_user_anchor"),
        span="as of D",
        door="jobs/serving.py",
        run=serving.run,
        for_samples=False,
    ),
)


def sample_stages() -> list[Stage]:
    """The stages that run day by day up to the samples, in order."""
    return [entry for entry in PLAN if entry.run is not None and entry.for_samples]


def stage(name: str) -> Stage:
    """A stage by name.

    Raises:
        KeyError: when the plan has no such stage.
    """
    found = {entry.name: entry for entry in PLAN}
    return found[name]


def flow_picture() -> str:
    """The plan as a Mermaid flowchart; the README's picture of the flow is this text."""
    lines = ["flowchart LR"]
    tables: dict[str, str] = {}

    def node(table: str) -> str:
        group = table.split("_")[0].split("/")[0]
        label = {"raw": "raw logs"}.get(group, group if group in ("tiles", "profiles", "evaluations") else table)
        return tables.setdefault(label, f"t{len(tables)}[({label})]")

    for entry in PLAN:
        lines += [f"  {node(table)} --> {entry.name}" for table in entry.reads]
        lines += [f"  {entry.name} --> {node(table)}" for table in entry.writes]
    return "\n".join(dict.fromkeys(lines))
