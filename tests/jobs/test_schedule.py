"""The plan as DAGs: every stage once, in the plan's order, each by its own door; what exit codes mean."""

from __future__ import annotations

import functools
import importlib
import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.errors import ConfError, ExitCode
from jobs.cli import app
from jobs.schedule import CLOSE, DECIDE, MEANINGS, DagSpec, Place, Schedule, build_schedule, picture, stages_before
from jobs.schedule_conf import SchedulerConf
from jobs.settings import Settings
from jobs.stage_door import run_days
from pipeline.plan import PLAN

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("deepfm", "esmm")
PLACE = Place(
    warehouse="s3a://bucket/warehouse",
    python="/env/bin/python",
    spark_submit="/env/bin/spark-submit",
    root="/code",
    properties="/conf/spark/cluster.conf",
    place="cluster",
    overrides=("days.train=3", "trigger.hours={incremental: 48, full: null}"),
)


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return build_schedule(PLACE, SchedulerConf(spark_submit=("--py-files", "limelight.zip")), MODELS, "Asia/Shanghai")


@pytest.fixture(params=[0, 1], ids=["daily", "incremental"])
def dag(schedule: Schedule, request: pytest.FixtureRequest) -> DagSpec:
    found: DagSpec = schedule.dags[request.param]
    return found


def test_every_stage_of_the_plan_appears_once_or_once_per_model(dag: DagSpec) -> None:
    found = Counter((task.stage, task.model) for task in dag.tasks if task.stage is not None)
    wanted = [(entry.name, model) for entry in PLAN for model in (MODELS if entry.per_model else (None,))]
    assert found == Counter(wanted)


def test_a_task_comes_after_those_that_write_what_it_reads(dag: DagSpec) -> None:
    ids = [task.id for task in dag.tasks]
    assert len(set(ids)) == len(ids)
    reached: dict[str, set[str]] = {}
    for task in dag.tasks:
        assert set(task.after) <= set(reached), "named before it exists"
        reached[task.id] = set(task.after).union(*(reached[before] for before in task.after))
    for task in dag.tasks:
        for feeding in PLAN:
            entry = next((stage for stage in PLAN if stage.name == task.stage), None)
            if entry is None or PLAN.index(feeding) >= PLAN.index(entry) or not set(feeding.writes) & set(entry.reads):
                continue
            own = (None, task.model) if task.model else (None, *MODELS)
            wanted = {t.id for t in dag.tasks if t.stage == feeding.name and t.model in own}
            assert wanted <= reached[task.id], f"{task.id} reads what {feeding.name} writes"


def test_edges_of_the_plan() -> None:
    assert stages_before(PLAN) == {
        "tiles": set(),
        "profiles": {"tiles"},
        "recent": {"tiles"},
        "samples": {"profiles", "recent"},
        "trainset": {"samples"},
        "train": {"trainset"},
        "gate": {"train"},
        "evaluate": {"gate"},
        "serving": {"trainset"},
    }


def test_a_model_waits_for_its_own_training_alone(dag: DagSpec) -> None:
    after = {task.id: task.after for task in dag.tasks}
    assert after["gate_deepfm"] == ("train_deepfm",)
    assert after["train_esmm"] == ("trainset",)
    assert after["evaluate"] == ("gate_deepfm", "gate_esmm")


def test_the_daily_dag_asks_nobody_and_the_incremental_one_first_of_all(schedule: Schedule) -> None:
    daily, incremental = schedule.dags
    assert daily.cron == "30 6 * * *"
    assert (incremental.cron, incremental.by_asset, daily.by_asset) == (None, True, False)
    assert DECIDE not in {task.id for task in daily.tasks}
    assert [task.id for task in incremental.tasks if not task.after] == [DECIDE]
    assert [task.id for task in daily.tasks if task.updates_asset] == ["samples"]
    assert [task.id for task in incremental.tasks if task.updates_asset] == []


def test_the_end_comes_after_all_and_always(dag: DagSpec) -> None:
    last = dag.tasks[-1]
    assert (last.id, last.rule) == (CLOSE, "all_done")
    assert set(last.after) == {task.id for task in dag.tasks} - {CLOSE}
    assert ("--decision" in last.command) == (dag.id == "limelight_incremental")


def test_one_model_that_cannot_be_trained_does_not_stop_what_follows(dag: DagSpec) -> None:
    rules = {task.id: task.rule for task in dag.tasks}
    assert rules["evaluate"] == "none_failed_min_one_success"
    assert rules["gate_deepfm"] == rules["serving"] == "all_success"


def test_commands_are_those_of_the_doors(schedule: Schedule) -> None:
    commands = {task.id: " ".join(task.command) for task in schedule.dags[0].tasks}
    common = "--warehouse s3a://bucket/warehouse --place cluster --set days.train=3"
    hours = "--set trigger.hours={incremental: 48, full: null}"
    of_retrain = "--retrain {kind} --date {date} --holder {holder}"
    submit = "/env/bin/spark-submit --properties-file /conf/spark/cluster.conf --py-files limelight.zip"
    assert commands["tiles"] == f"{submit} /code/jobs/tiles.py {common} {hours} {of_retrain}"
    assert commands["gate_esmm"] == (
        f"{submit} /code/jobs/gate.py {common} {hours} --trainset {{kind}}-{{date}} --model esmm --holder {{holder}}"
    )
    assert commands["train_esmm"] == (
        f"/env/bin/python /code/jobs/train_model.py {common} {hours} {of_retrain} --model esmm --resume"
    )
    assert commands["evaluate"] == f"/env/bin/python /code/jobs/evaluate.py {common} {hours} --date {{date}}"


def test_every_door_is_there(schedule: Schedule) -> None:
    doors = {word.removeprefix("/code/") for dag in schedule.dags for task in dag.tasks for word in task.command
             if word.startswith("/code/")}  # fmt: skip
    assert len(doors) == len(PLAN) + 2
    assert [door for door in sorted(doors) if not (ROOT / door).is_file()] == []


def test_every_exit_code_has_a_meaning_and_no_other(schedule: Schedule) -> None:
    assert set(MEANINGS) == set(ExitCode)
    assert schedule.meanings["7"] == "done_and_told"
    assert {code for code, meaning in schedule.meanings.items() if meaning == "wait"} == {"5", "6"}
    assert {code for code, meaning in schedule.meanings.items() if meaning == "fail"} == {"2", "3", "4"}


def test_a_timeout_of_its_own_is_a_stage_s(schedule: Schedule) -> None:
    seconds = {task.id: task.timeout_seconds for task in schedule.dags[0].tasks}
    assert (seconds["train_deepfm"], seconds["tiles"]) == (720 * 60, 240 * 60)
    with pytest.raises(ConfError, match="the plan has no stage trian; it has tiles, "):
        build_schedule(PLACE, SchedulerConf(stage_timeout_minutes={"trian": 5}), MODELS, "Asia/Shanghai")


def test_a_turn_outlives_the_longest_try() -> None:
    with pytest.raises(ConfError, match="a run would lose its turn while it waits"):
        Settings.load("local", ["scheduler.keep_hours=12"])
    with pytest.raises(ConfError, match="is not minute, hour, day, month and weekday"):
        Settings.load("local", ["scheduler.cron=daily"])


def test_the_picture_has_every_task(dag: DagSpec) -> None:
    drawn = picture(dag.tasks)
    assert all(task.id in drawn for task in dag.tasks)
    assert "  evaluate --> close" in drawn


def test_the_command_prints_what_the_dags_read(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["plan", "-w", str(tmp_path), "--json", "--set", "training.models=[deepfm]"])
    assert told.exit_code == 0, told.output
    schedule = Schedule.model_validate(json.loads(told.stdout))
    assert [dag.id for dag in schedule.dags] == ["limelight_daily", "limelight_incremental"]
    assert schedule.asset == f"{tmp_path}/samples"
    assert {task.model for dag in schedule.dags for task in dag.tasks} == {None, "deepfm"}
    assert CliRunner().invoke(app, ["plan", "--json"]).exit_code == ExitCode.USAGE


def test_every_command_is_one_that_its_door_understands(tmp_path: Path) -> None:
    """A conf value that is wrong is told only after the command line was read: exit code 3, not 2."""
    place = PLACE.model_copy(update={"warehouse": str(tmp_path), "place": "local", "overrides": ("days.trian=3",)})
    schedule = build_schedule(place, SchedulerConf(), MODELS, "Asia/Shanghai")
    filled = {"{date}": "2026-01-19", "{kind}": "incremental", "{holder}": "limelight_incremental manual run"}
    for task in schedule.dags[1].tasks:
        words = list(task.command)
        for name, value in filled.items():
            words = [word.replace(name, value) for word in words]
        door = next(word for word in words if word.endswith(".py"))
        module = importlib.import_module(f"jobs.{Path(door).stem}")
        main = getattr(module, "main", None) or functools.partial(run_days, Path(door).stem)
        with pytest.raises(SystemExit) as ended:
            main(words[words.index(door) + 1 :])
        assert ended.value.code == ExitCode.BAD_CONF, task.id
