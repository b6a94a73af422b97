"""The facts of a run from real manifests, a real registry and files as a training leaves them. No Spark."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from features.errors import DataError, NotReadyError
from jobs.champions import Champions
from jobs.console import Steps
from jobs.evaluate import evaluate_new
from jobs.page.command import chosen_runs, draw_page, keep_and_draw
from jobs.page.files import page_of, written_pages
from jobs.page.gather import gather
from jobs.page.lineage import trace
from jobs.settings import Settings
from jobs.status import pages_line
from pipeline.manifests import PartitionManifest
from pipeline.stages.names import SAMPLES
from pipeline.tables import Warehouse
from tests.jobs.page.built_facts import result, summary
from tests.jobs.trigger_world import MODEL, NEXT_DAY, World, make_world
from tests.training.raw_trainset import GATE_DAY
from tests.training.test_registry import verdict
from training.result import RESULT_FILE
from training.verdict import VERDICT_FILE

RUN, LATER = f"full-{GATE_DAY}", f"incremental-{NEXT_DAY}"


@dataclass(frozen=True)
class Ready:
    """A world with a run folder, and evaluations of its champion on the gate day and the day after it."""

    world: World

    @property
    def warehouse(self) -> Warehouse:
        return self.world.warehouse

    @property
    def settings(self) -> Settings:
        return self.world.settings

    @property
    def runs(self) -> Path:
        return self.world.root / "runs"

    @property
    def history(self) -> Callable:
        return self.world.registry.history


def write_run(root: Path, name: str, published: Path, *, passed: bool = True) -> None:
    """A run's folder with one model, as a retrain leaves it."""
    folder = root / name / MODEL
    folder.mkdir(parents=True)
    (folder / VERDICT_FILE).write_text(verdict(MODEL, passed=passed).model_dump_json())
    (folder / RESULT_FILE).write_text(result(MODEL).model_dump_json())
    if passed:
        shutil.copytree(published, folder / "published")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    world = make_world(tmp_path_factory.mktemp("world"))
    found = Ready(world)
    write_run(found.runs, RUN, world.folder)
    write_run(found.runs, LATER, world.folder, passed=False)
    evaluate_new(world.warehouse, Champions(world.registry).of([MODEL]), NEXT_DAY, Steps())
    return found


def test_a_run_is_gathered_with_its_models_verdicts_and_versions(ready: Ready) -> None:
    facts = gather(ready.warehouse, ready.settings, ready.history, RUN)
    (model,) = facts.models
    assert facts.run.verdicts[MODEL].passed
    assert [version.state for version in model.versions] == ["champion"]
    assert facts.run.digests[MODEL] == model.versions[0].digest
    assert facts.gate_days == {model.versions[0].digest: str(GATE_DAY)}
    assert model.result is not None
    assert model.result.rows_per_second == 45_678
    assert [found.day for found in model.evaluations][-1] == GATE_DAY  # none from after the run
    assert facts.earlier == ()
    assert facts.summary is None
    assert facts.profiles == {"profiles_user": None, "profiles_anchor": None}


def test_earlier_runs_are_those_before_it(ready: Ready) -> None:
    facts = gather(ready.warehouse, ready.settings, ready.history, LATER)
    assert [run.name for run in facts.earlier] == [RUN]
    assert not facts.run.verdicts[MODEL].passed
    assert facts.run.digests == {}


def test_a_run_that_is_not_there_is_named_with_those_that_are(ready: Ready) -> None:
    with pytest.raises(NotReadyError, match=f"full-2020-01-01.*{RUN}"):
        gather(ready.warehouse, ready.settings, ready.history, "full-2020-01-01")
    with pytest.raises(NotReadyError, match="no run of 2020"):
        chosen_runs(ready.warehouse, ready.settings, None, GATE_DAY.replace(year=2020))
    for name in ("..", "a/b"):
        with pytest.raises(NotReadyError):
            gather(ready.warehouse, ready.settings, ready.history, name)


def test_runs_are_chosen_by_name_by_date_and_by_age(ready: Ready) -> None:
    assert chosen_runs(ready.warehouse, ready.settings, RUN, None) == [RUN]
    assert chosen_runs(ready.warehouse, ready.settings, None, GATE_DAY) == [RUN]
    assert chosen_runs(ready.warehouse, ready.settings, None, None) == [LATER]


def test_a_page_is_the_same_when_it_is_drawn_again(ready: Ready) -> None:
    page, index = draw_page(ready.warehouse, ready.settings, ready.history, RUN)
    first = page.read_bytes()
    assert draw_page(ready.warehouse, ready.settings, ready.history, RUN) == (page, index)
    assert page.read_bytes() == first
    assert page == page_of(ready.runs, RUN)
    assert b"Users now get this run" in first
    assert index.read_text().count("page.html") == len(written_pages(ready.runs))
    assert str(index) in pages_line(ready.warehouse, ready.settings)
    assert not [path for path in ready.runs.rglob("*") if path.suffix == ".draft"]


def test_a_retrain_keeps_its_summary_beside_its_page(ready: Ready) -> None:
    (page,) = keep_and_draw(ready.warehouse, ready.settings, ready.history, summary(), LATER)
    assert page == page_of(ready.runs, LATER)
    assert gather(ready.warehouse, ready.settings, ready.history, LATER).summary == summary()


def test_a_page_that_cannot_be_drawn_is_a_warning(ready: Ready, capsys: pytest.CaptureFixture[str]) -> None:
    def unreachable(model: str) -> list:
        raise OSError("the registry [is] away")

    before = page_of(ready.runs, LATER).read_bytes() if page_of(ready.runs, LATER).is_file() else None
    assert keep_and_draw(ready.warehouse, ready.settings, unreachable, summary(), LATER) == []
    told = capsys.readouterr().err
    assert "OSError: the registry [is] away" in told
    assert f"--run {LATER}" in told
    after = page_of(ready.runs, LATER)
    assert (after.read_bytes() if after.is_file() else None) == before


def test_a_verdict_that_cannot_be_read_is_named(ready: Ready, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    write_run(root, RUN, ready.world.folder)
    (root / RUN / MODEL / VERDICT_FILE).write_text("{")
    settings = Settings.load("local", [*ready.world.overrides, f"training.runs={root}"])
    with pytest.raises(DataError, match=r"verdict\.json"):
        gather(ready.warehouse, settings, ready.history, RUN)


def manifests_of(ready: Ready, **inputs: dict[str, str]) -> Callable[[str, str], PartitionManifest | None]:
    """Partitions by "table/partition", each with what it read; all else as a real one of samples."""
    real = ready.warehouse.manifest(SAMPLES, f"dt={GATE_DAY}")
    assert real is not None
    changed = {
        name.replace("__", "/"): real.model_copy(update={"inputs": read, "digest": f"of {name.replace('__', '/')}"})
        for name, read in inputs.items()
    }
    return lambda table, partition: changed.get(f"{table}/{partition}")


def test_lineage_follows_every_partition_once_and_ends_at_raw_and_at_what_is_gone(ready: Ready) -> None:
    find = manifests_of(
        ready,
        trainsets__t={"samples/a": "of samples/a", "samples/b": "of samples/b"},
        samples__a={"profiles/p": "of profiles/p", "raw/rooms/dt=1": "r1"},
        samples__b={"profiles/p": "of profiles/p", "raw/rooms/dt=1": "r1", "tiles/gone": "g"},
        profiles__p={"raw/users/dt=1": "u1", "profiles/q": "another digest"},
        profiles__q={"profiles/p": "of profiles/p"},  # a circle would not hang it
    )
    found = trace("trainsets", "t", find)
    assert list(found.tables) == ["trainsets", "samples", "profiles", "tiles", "raw/rooms", "raw/users"]
    states = {f"{read.table}/{read.partition}": read.state for reads in found.tables.values() for read in reads}
    assert states == {
        "trainsets/t": "as it was read", "samples/a": "as it was read", "samples/b": "as it was read",
        "profiles/p": "as it was read", "profiles/q": "computed anew since", "tiles/gone": "no longer there",
        "raw/rooms/dt=1": "raw", "raw/users/dt=1": "raw",
    }  # fmt: skip
    assert found.made_from("samples") == ("profiles", "raw/rooms", "tiles")
    assert trace("trainsets", "none", find).tables == {}
