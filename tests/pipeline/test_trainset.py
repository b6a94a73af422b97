"""A train set from committed samples: every row once, equal row groups, artefacts older than what they encode."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.encoding import Encoder
from features.errors import DataError
from features.manifest import SplitName, TrainSet
from features.schema import load_catalog
from pipeline.config import PipelineConf, TrainDays, parse
from pipeline.manifests import Provenance
from pipeline.pack import PackPlan
from pipeline.stages.names import SAMPLES
from pipeline.tables import Warehouse
from pipeline.trainset import TrainSetBuilder, load
from tests.features.random_samples import days, sample_frame, sample_rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

CATALOG = load_catalog()
DAYS = days(6)
PER_DAY = 150
TRAIN_DAYS = TrainDays(fit=tuple(DAYS[:2]), train=tuple(DAYS[2:4]), valid=(DAYS[4],), gate=DAYS[5])
CONF = parse(
    PipelineConf,
    {
        "leaves": {"trees": 3, "depth": 3, "min_child_weight": 1},
        "export": {"logical_shards": 4, "target_row_group_rows": 16, "files": 3},
        "tasks": {"min_positives": 5, "min_negatives": 5},
    },
    "",
)


@pytest.fixture(scope="module")
def warehouse(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = Warehouse(str(tmp_path_factory.mktemp("warehouse")))
    frame = sample_frame(spark, CATALOG, sample_rows(CATALOG, DAYS, PER_DAY))
    warehouse.write_days(frame, SAMPLES, DAYS, Provenance(inputs={}))
    return warehouse


def build(spark: SparkSession, warehouse: Warehouse, name: str, conf: PipelineConf = CONF, **more: Any) -> TrainSet:
    return TrainSetBuilder(spark, warehouse, CATALOG, conf, "test").build(name, TRAIN_DAYS, **more)[0]


@pytest.fixture(scope="module")
def built(spark: SparkSession, warehouse: Warehouse) -> tuple[TrainSet, str]:
    build(spark, warehouse, "one")
    return load(warehouse, "one")


def read(root: str, trainset: TrainSet, split: SplitName) -> pa.Table:
    return pa.concat_tables([pq.read_table(f"{root}/{file.path}") for file in trainset.splits[split].files])


def test_every_row_once_in_equal_row_groups(built: tuple[TrainSet, str]) -> None:
    trainset, root = built
    expected_days: dict[SplitName, int] = {"train": 2, "valid": 1, "gate": 1}
    for split, expected in expected_days.items():
        part = trainset.splits[split]
        table = read(root, trainset, split)
        assert len(set(table["row_id"].to_pylist())) == len(table) == part.rows == expected * PER_DAY
        groups = [rows for file in part.files for rows in file.row_groups]
        assert len(groups) % trainset.logical_shards == 0
        assert len({*sorted(groups)[1:]}) == 1
        assert sorted(groups)[0] <= sorted(groups)[-1]
        for file in part.files:
            metadata = pq.read_metadata(f"{root}/{file.path}")
            found = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
            assert tuple(found) == file.row_groups


def test_the_encoder_of_the_published_artefacts_gives_the_exported_rows(built: tuple[TrainSet, str]) -> None:
    trainset, root = built
    exported = read(root, trainset, "gate").sort_by("row_id")
    samples = pa.concat_tables([pq.read_table(url) for url in trainset.splits["gate"].sample_files])
    again = Encoder.load(trainset, root).encode(samples).sort_by("row_id")
    assert again.select(exported.column_names).to_pydict() == exported.to_pydict()


def test_rows_are_shuffled_over_days(built: tuple[TrainSet, str]) -> None:
    trainset, root = built
    ids = read(root, trainset, "train")["row_id"].to_pylist()
    assert ids != sorted(ids)
    median = sorted(ids)[len(ids) // 2]
    first_half = ids[: len(ids) // 2]
    assert 0.3 < sum(row < median for row in first_half) / len(first_half) < 0.7


def test_what_was_fitted_is_older_than_what_it_encodes(built: tuple[TrainSet, str]) -> None:
    trainset, root = built
    assert trainset.leaves is not None
    assert max(trainset.leaves.fit_days) < min(trainset.splits["train"].days)
    assert trainset.seen_until < trainset.splits["gate"].days[0]
    for vocabulary in trainset.vocabularies:
        if vocabulary.path is not None:
            table = pq.read_table(f"{root}/{vocabulary.path}")
            assert len(table) + 2 == vocabulary.num_ids
            last = datetime.date.fromisoformat(trainset.splits["train"].days[-1])
            assert max(table["admitted_on"].to_pylist()) <= last + datetime.timedelta(days=1)


def test_a_rerun_gives_the_same_content(spark: SparkSession, warehouse: Warehouse, built: tuple[TrainSet, str]) -> None:
    again = build(spark, warehouse, "one")
    root = load(warehouse, "one")[1]
    assert again.leaves == built[0].leaves
    assert again.vocabularies == built[0].vocabularies
    one, two = (read(where, trainset, "train") for trainset, where in (built, (again, root)))
    assert one.to_pydict() == two.to_pydict()


def test_a_lender_keeps_booster_and_normaliser(
    spark: SparkSession, warehouse: Warehouse, built: tuple[TrainSet, str]
) -> None:
    borrowed = build(spark, warehouse, "two", previous="one")
    assert (borrowed.leaves, borrowed.dense) == (built[0].leaves, built[0].dense)


def test_one_new_day_is_enough(spark: SparkSession, warehouse: Warehouse, built: tuple[TrainSet, str]) -> None:
    """What an incremental retrain has on most mornings: a single train day, and none to validate on."""
    day = TrainDays(fit=tuple(DAYS[:4]), train=(DAYS[4],), valid=(), gate=DAYS[5])
    trainset, _ = TrainSetBuilder(spark, warehouse, CATALOG, CONF, "test").build("next", day, "one", warm=True)
    assert trainset.seen_until == DAYS[4].isoformat()
    assert {split: part.rows for split, part in trainset.splits.items()} == {
        "train": PER_DAY,
        "valid": 0,
        "gate": PER_DAY,
    }
    assert trainset.tasks == built[0].tasks


def test_downsampled_negatives_weigh_their_rate_and_are_counted(spark: SparkSession, warehouse: Warehouse) -> None:
    conf = CONF.model_copy(update={"downsample": CONF.downsample.model_copy(update={"impressions": 0.5})})
    trainset = build(spark, warehouse, "three", conf)
    train, root = trainset.splits["train"], load(warehouse, "three")[1]
    assert train.rows + train.dropped == 2 * PER_DAY
    assert train.dropped > 0
    rows = read(root, trainset, "train").to_pandas()
    negatives = rows[rows["y__enter"] == 0]
    assert set(negatives["m__enter"]) == {2.0}
    assert set(rows[rows["y__enter"] == 1]["m__enter"]) == {1.0}
    assert trainset.splits["gate"].dropped == 0


def test_tasks_that_the_gate_day_cannot_judge_are_left_out_by_name(spark: SparkSession, warehouse: Warehouse) -> None:
    conf = CONF.model_copy(update={"tasks": CONF.tasks.model_copy(update={"only": ("enter", "gift")})})
    trainset = build(spark, warehouse, "four", conf)
    assert [task.name for task in trainset.tasks] == ["enter", "gift"]
    assert trainset.left_out["share"] == "the source test cannot teach it"
    strict = CONF.model_copy(update={"tasks": CONF.tasks.model_copy(update={"min_positives": 10_000})})
    with pytest.raises(DataError, match=r"the main task cannot be judged: .* positives"):
        build(spark, warehouse, "five", strict)


@pytest.mark.parametrize(("rows", "shards", "target"), [(130_000, 16, 4096), (2_000, 16, 4096), (10_000, 4, 100)])
def test_row_groups_are_near_the_target_and_a_multiple_of_the_shards(rows: int, shards: int, target: int) -> None:
    size = PackPlan.of(rows, shards, target).row_group_rows
    assert -(-rows // size) % shards == 0
    assert size <= 1.5 * target


def test_only_committed_train_sets_are_seen(warehouse: Warehouse, built: tuple[TrainSet, str], tmp_path: Path) -> None:
    assert load(warehouse, "one")[0].name == built[0].name
    with pytest.raises(DataError, match="there is no train set 'missing'"):
        load(warehouse, "missing")
