"""The plan as DAGs for a scheduler: tasks, what comes before what, the command of each, what its exit code means.

Built from `pipeline.plan` by pure functions; `limelight plan --json` writes it, and dags/limelight_dags.py, which needs
nothing of Limelight, makes Airflow's DAGs of it. What only a run knows stands in a command as {date}, {kind}, {holder}.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from features.errors import ConfError, ExitCode
from jobs.schedule_conf import SchedulerConf
from pipeline.border import Closed
from pipeline.plan import PLAN, Stage

SCHEDULE_VERSION = 1
DECIDE, CLOSE = "decide", "close"
SAMPLE_STAGE = "samples"  # what it writes is the asset that limelight_incremental waits for
RESUMABLE = "train"  # goes on with what a killed try has saved

Rule = Literal["all_success", "none_failed_min_one_success", "all_done"]
Meaning = Literal["done", "done_and_told", "skip", "wait", "retry", "fail"]

MEANINGS: Mapping[ExitCode, Meaning] = {
    ExitCode.OK: "done",
    ExitCode.FAILURE: "retry",
    ExitCode.USAGE: "fail",
    ExitCode.BAD_CONF: "fail",
    ExitCode.BAD_DATA: "fail",
    ExitCode.NOT_READY: "wait",
    ExitCode.HELD_BY_ANOTHER_RUN: "wait",
    ExitCode.GATE_STOPPED: "done_and_told",
    ExitCode.NO_RESOURCES: "retry",
    ExitCode.SKIPPED: "skip",
}
"""What a scheduler makes of an exit code. Every other one (a signal, 143 of a training that saved) is retried."""


class TaskSpec(Closed):
    """One task.

    Attributes:
        stage, model: of the plan; None for what a schedule adds.
        after: ids of tasks that come before.
        rule: of Airflow: when it runs, by the ends of those.
        updates_asset: it has written samples.
    """

    id: str
    command: tuple[str, ...]
    stage: str | None = None
    model: str | None = None
    after: tuple[str, ...] = ()
    rule: Rule = "all_success"
    timeout_seconds: float
    updates_asset: bool = False


class DagSpec(Closed):
    """One DAG: by cron, when the asset is updated, or else only when somebody asks for it."""

    id: str
    doc: str
    cron: str | None = None
    by_asset: bool = False
    tasks: tuple[TaskSpec, ...]


class Schedule(Closed):
    """Both DAGs, and what their tasks share.

    Attributes:
        environment: variables of every command, beside those that it finds.
        folder: where commands are run.
        meanings: exit code → what becomes of the task.
    """

    version: int = SCHEDULE_VERSION
    zone: str
    asset: str
    environment: Mapping[str, str]
    folder: str
    meanings: Mapping[str, Meaning]
    conf: SchedulerConf
    dags: tuple[DagSpec, ...]


class Place(Closed):
    """Where the commands of a schedule run and on what.

    Attributes:
        python, spark_submit: executables of Limelight's own environment.
        root: folder that holds `jobs/`.
        properties: Spark's properties file.
        place, overrides: of conf.
    """

    warehouse: str
    python: str
    spark_submit: str
    root: str
    properties: str
    place: str
    overrides: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}


def build_schedule(place: Place, conf: SchedulerConf, models: Sequence[str], zone: str) -> Schedule:
    """Both DAGs.

    Raises:
        ConfError: when conf names a stage that the plan has not.
    """
    known = [entry.name for entry in PLAN]
    unknown = sorted(set(conf.stage_timeout_minutes) - set(known))
    if unknown:
        raise ConfError(
            f"conf scheduler.stage_timeout_minutes: the plan has no stage {', '.join(unknown)}; "
            f"it has {', '.join(known)}"
        )
    daily = DagSpec(
        id="limelight_daily",
        doc="Every morning: a full retrain, and the serving tables.",
        cron=conf.cron,
        tasks=tuple(_tasks(place, conf, models, decides=False)),
    )
    incremental = DagSpec(
        id="limelight_incremental",
        doc="When there are new samples: asks the trigger, and retrains as it says.",
        by_asset=True,
        tasks=tuple(_tasks(place, conf, models, decides=True)),
    )
    return Schedule(
        zone=zone,
        asset=f"{place.warehouse.rstrip('/')}/{SAMPLE_STAGE}",
        environment=place.environment,
        folder=place.root,
        meanings={str(int(code)): meaning for code, meaning in MEANINGS.items()},
        conf=conf,
        dags=(daily, incremental),
    )


def _tasks(place: Place, conf: SchedulerConf, models: Sequence[str], *, decides: bool) -> list[TaskSpec]:
    """The plan's stages in order, each once or once per model, between a decision and an end."""
    seconds = conf.timeout_minutes * 60
    tasks: list[TaskSpec] = []
    if decides:
        door = _door(place, "jobs/decide.py", on_spark=False, conf=conf)
        command = (*door, "--date", "{date}", "--holder", "{holder}")
        tasks.append(TaskSpec(id=DECIDE, command=command, timeout_seconds=seconds))
    for entry in PLAN:
        for model in models if entry.per_model else [None]:
            tasks.append(_of_stage(entry, model, tasks, place, conf))
    close = [
        *_door(place, "jobs/close.py", on_spark=False, conf=conf),
        "--holder",
        "{holder}",
        "--run",
        "{kind}-{date}",
    ]
    command = (*close, "--decision") if decides else tuple(close)
    after = tuple(task.id for task in tasks)
    return [*tasks, TaskSpec(id=CLOSE, command=command, after=after, rule="all_done", timeout_seconds=seconds)]


def _of_stage(
    entry: Stage, model: str | None, earlier: Sequence[TaskSpec], place: Place, conf: SchedulerConf
) -> TaskSpec:
    """A stage, for one model or for all, after those of the tasks so far that it rests on, or else after a decision."""
    feeding = stages_before(PLAN)[entry.name]
    after = [task for task in earlier if task.stage in feeding and (model is None or task.model in (None, model))]
    decision = [task for task in earlier if task.id == DECIDE]
    return TaskSpec(
        id=entry.name if model is None else f"{entry.name}_{model}",
        stage=entry.name,
        model=model,
        command=(*_door(place, entry.door, on_spark=entry.on_spark, conf=conf), *_arguments(entry, model)),
        after=tuple(task.id for task in after or decision),
        rule="none_failed_min_one_success" if model is None and any(task.model for task in after) else "all_success",
        timeout_seconds=conf.stage_timeout_minutes.get(entry.name, conf.timeout_minutes) * 60,
        updates_asset=entry.name == SAMPLE_STAGE and not decision,
    )


def _door(place: Place, door: str, *, on_spark: bool, conf: SchedulerConf) -> list[str]:
    submit = [place.spark_submit, "--properties-file", place.properties, *conf.spark_submit]
    command = [*submit, f"{place.root}/{door}"] if on_spark else [place.python, f"{place.root}/{door}"]
    overrides = [part for value in place.overrides for part in ("--set", value)]
    return [*command, "--warehouse", place.warehouse, "--place", place.place, *overrides]


def _arguments(entry: Stage, model: str | None) -> list[str]:
    """Of a stage's door, for the retrain of {kind} on the morning of {date}."""
    of_retrain = ["--retrain", "{kind}", "--date", "{date}", "--holder", "{holder}"]
    if entry.name == "gate":
        return ["--trainset", "{kind}-{date}", "--model", str(model), "--holder", "{holder}"]
    if entry.name == "evaluate":
        return ["--date", "{date}"]
    if model is not None:
        of_retrain += ["--model", model]
    return [*of_retrain, "--resume"] if entry.name == RESUMABLE else of_retrain


def stages_before(plan: Sequence[Stage]) -> dict[str, set[str]]:
    """Stage → those right before it: earlier ones that write what it reads, but what follows from the others."""
    reached: dict[str, set[str]] = {}
    direct: dict[str, set[str]] = {}
    for at, entry in enumerate(plan):
        feeding = {earlier.name for earlier in plan[:at] if _feeds(earlier, entry)}
        direct[entry.name] = {name for name in feeding if not any(name in reached[other] for other in feeding)}
        reached[entry.name] = feeding.union(*(reached[name] for name in feeding))
    return direct


def _feeds(earlier: Stage, later: Stage) -> bool:
    return any(_is_same_table(written, read) for written in earlier.writes for read in later.reads)


def _is_same_table(written: str, read: str) -> bool:
    return fnmatchcase(written, read) or fnmatchcase(read, written)


def picture(tasks: Collection[TaskSpec]) -> str:
    """A DAG as a Mermaid flowchart, without its end, which every task has before it."""
    shown = [task for task in tasks if task.id != CLOSE]
    edges = [f"  {before} --> {task.id}" for task in shown for before in task.after]
    followed = {before for task in shown for before in task.after}
    ends = [f"  {task.id} --> {CLOSE}" for task in shown if task.id not in followed]
    return "\n".join(["flowchart LR", *edges, *ends])
