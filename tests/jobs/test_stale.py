"""What `limelight plan -w` says, and which trainings and versions it names."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.manifest import TRAINSET_FILE, Task, TrainSet
from features.spec import SHARES, Sum
from jobs.open_run import open_run
from jobs.settings import Settings
from jobs.stale import tell_built_on, tell_left_alone, tell_plan
from pipeline.context import StageResult
from pipeline.run import StageRun
from pipeline.stale import find_stale
from tests.small_world import SAMPLE_DAYS, digests, raw_folder
from tests.training.test_registry import verdict
from training.published import Output, seal
from training.registry import Registry

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [
    pytest.mark.spark,
    # MLflow 3.17 on SQLAlchemy 2.1; ours is the pairing, theirs the call
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]

DAY = SAMPLE_DAYS[0]


def learnt_from(lineage: dict[str, str]) -> str:
    """trainset.json of a train set on some samples."""
    return TrainSet(
        name="t",
        source="test",
        seed=1,
        logical_shards=1,
        catalog_fingerprint="x",
        vocabularies=(),
        categorical=(),
        tasks=(Task(name="enter", space="impressions"),),
        splits={},
        lineage=lineage,
        seen_until=str(DAY),
    ).model_dump_json()


def publish(warehouse: Path, scratch: Path, lineage: dict[str, str]) -> None:
    """A version of deepfm that learnt from these samples, as champion."""
    folder = scratch / "published"
    folder.mkdir()
    (folder / TRAINSET_FILE).write_text(learnt_from(lineage))
    seal(folder, "deepfm", (Output(name="enter", all_of=("enter",)),))
    registry = Registry.open(*Settings.load("local").tracking(str(warehouse)))
    registry.publish("deepfm", folder, verdict("deepfm"))


def test_the_plan_and_all_that_was_built_on_it_are_told(
    spark: SparkSession,
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    samples = f"samples/dt={DAY}"
    lineage = {samples: digests(copy)[samples]}
    for model, its_lineage in {"true": lineage, "old": {samples: "another"}}.items():
        folder = copy / "runs" / "full" / model
        folder.mkdir(parents=True)
        (folder / TRAINSET_FILE).write_text(learnt_from(its_lineage))
    publish(copy, tmp_path, lineage)

    run = open_run(spark, str(copy), "local", ())
    plan = find_stale(run.context)
    tell_plan(plan)
    tell_built_on(run, str(copy), plan)
    told = capsys.readouterr().out
    assert "nothing is stale" in told
    assert f"training full/old: {samples}: another → " in told
    assert "deepfm version 1" not in told

    known = run.context.catalog
    shares = next(feature for feature in known.features if feature.name == "user_shares_30d")
    new = replace(shares, name="user_shares_3d", op=Sum(measure=SHARES, days=3))
    plan = find_stale(replace(run.context, catalog=replace(known, features=(*known.features, new))))
    tell_plan(plan)
    tell_built_on(run, str(copy), plan)
    told = capsys.readouterr().out
    assert "new: _sum_shares_3; " in told
    assert "new: user_shares_3d; 108 are kept" in told
    assert "profiles_user of the same day gets other columns" in told
    assert "4 of them only in some columns" in told
    assert f"training full/true: {samples} will be rebuilt" in told

    file = raw_folder(copy, "impressions", DAY) / "part-0.parquet"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 5_000_000_000))
    run = open_run(spark, str(copy), "local", ())
    plan = find_stale(run.context)
    tell_plan(plan)
    tell_built_on(run, str(copy), plan)
    told = capsys.readouterr().out
    assert f"raw/impressions/dt={DAY}: " in told
    assert f"training full/true: {samples} will be rebuilt" in told
    assert f"deepfm version 1 (champion): {samples} will be rebuilt" in told

    result = StageResult(computed=(), skipped=(), rows=0)
    tell_left_alone(plan, [StageRun(name="samples", seconds=0.0, result=result)])
    assert "samples: left alone, as its inputs came out the same: " in capsys.readouterr().out
