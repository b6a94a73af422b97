"""A train set that goes on from another: new days, rows of earlier days once more, keys evicted and come back.

Ten days. `champion` is fitted on days 0 and 1, trained on 2 and 3. `next` is trained on 4 and 5, `later` on 6 to 8.
Keys are evicted after two days: GONE has no rows on days 2 to 5, BACK none on 2 and 3, FRESH none before 6.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from features.encoding import Encoder
from features.errors import DataError
from features.manifest import FIRST_KEY_ID, OOV_ID, SplitName, TrainSet
from features.schema import load_catalog
from pipeline.artefacts import moved_keys
from pipeline.audit.conf import AuditConf
from pipeline.audit.fitted import fitted_artefacts
from pipeline.audit.report import Verdict
from pipeline.audit.sample_set import own_trainset
from pipeline.config import PipelineConf, TrainDays, parse
from pipeline.manifests import Provenance
from pipeline.stages.names import SAMPLES
from pipeline.tables import Warehouse
from pipeline.trainset import TrainSetBuilder, load
from tests.features.random_samples import days, sample_frame, sample_rows
from tests.small_world import context_of
from training.config import TrainConf
from training.result import TABLE_WEIGHT, WEIGHTS_FILE
from training.run import train

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

CATALOG = load_catalog()
NAMES = [column.name for column in CATALOG.sample_columns()]
DAYS = days(10)
PER_DAY = 120
GONE, BACK, FRESH = (number << 55 for number in (1, 2, 3))
AWAY = {GONE: DAYS[2:6], BACK: DAYS[2:4], FRESH: DAYS[:6]}
CONF = parse(
    PipelineConf,
    {
        "days": {"evict_after_days": 2, "replay_share": 0.5},
        "leaves": {"trees": 2, "depth": 2, "min_child_weight": 1, "workers": 1},
        "export": {"logical_shards": 2, "target_row_group_rows": 32, "files": 1},
        "tasks": {"min_positives": 5, "min_negatives": 5, "only": ("enter",)},
    },
    "",
)
FULL = TrainDays(fit=tuple(DAYS[:2]), train=tuple(DAYS[2:4]), valid=(DAYS[4],), gate=DAYS[5])
NEXT = TrainDays(fit=tuple(DAYS[:4]), train=tuple(DAYS[4:6]), valid=(), gate=DAYS[6], replay=tuple(DAYS[2:4]))
LATER = TrainDays(fit=tuple(DAYS[:6]), train=tuple(DAYS[6:9]), valid=(), gate=DAYS[9], replay=tuple(DAYS[3:6]))
Built = tuple[TrainSet, str]


@pytest.fixture(scope="module")
def rows() -> list[tuple[Any, ...]]:
    user, day = NAMES.index("user_id"), NAMES.index("dt")
    return [row for row in sample_rows(CATALOG, DAYS, PER_DAY) if row[day] not in AWAY.get(row[user], ())]


@pytest.fixture(scope="module")
def warehouse(spark: SparkSession, rows: list[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = Warehouse(str(tmp_path_factory.mktemp("warehouse")))
    warehouse.write_days(sample_frame(spark, CATALOG, rows), SAMPLES, DAYS, Provenance(inputs={}))
    TrainSetBuilder(spark, warehouse, CATALOG, CONF, "test").build("champion", FULL)
    return warehouse


def build(spark: SparkSession, warehouse: Warehouse, name: str, its_days: TrainDays, previous: str) -> Built:
    TrainSetBuilder(spark, warehouse, CATALOG, CONF, "test").build(name, its_days, previous, warm=True)
    return load(warehouse, name)


@pytest.fixture(scope="module")
def champion(warehouse: Warehouse) -> Built:
    return load(warehouse, "champion")


@pytest.fixture(scope="module")
def following(spark: SparkSession, warehouse: Warehouse) -> Built:
    return build(spark, warehouse, "next", NEXT, "champion")


@pytest.fixture(scope="module")
def later(spark: SparkSession, warehouse: Warehouse, following: Built) -> Built:
    return build(spark, warehouse, "later", LATER, following[0].name)


def read(built: Built, split: SplitName) -> pa.Table:
    trainset, root = built
    tables = [pq.read_table(f"{root}/{file.path}") for file in trainset.splits[split].files]
    return pa.concat_tables(tables).sort_by("row_id")


def users(built: Built) -> dict[int, dict[str, Any]]:
    """Key → its row of the vocabulary."""
    table = pq.read_table(f"{built[1]}/vocabularies/user.parquet")
    return {row["key"]: row for row in table.to_pylist()}


def samples_of(warehouse: Warehouse, *its_days: datetime.date) -> pa.Table:
    manifests = warehouse.require(SAMPLES, its_days).values()
    tables = [pq.read_table(url) for manifest in manifests for url in warehouse.file_urls(manifest)]
    return pa.concat_tables(tables).sort_by("impression_id")


def test_a_key_without_a_row_before_the_train_days_is_evicted_and_keeps_its_number(
    champion: Built, following: Built, later: Built
) -> None:
    assert users(champion)[GONE]["evicted_on"] is None
    for built, its_days in ((following, NEXT), (later, LATER)):
        trainset = built[0]
        (vocabulary,) = [v for v in trainset.vocabularies if v.name == "user"]
        table = users(built)
        evicted = {key for key, row in table.items() if row["evicted_on"] is not None}
        assert {row["evicted_on"] for row in table.values()} == {None, its_days.train[0]}
        assert (vocabulary.evicted, vocabulary.num_ids) == (len(evicted), len(table) + FIRST_KEY_ID)
        assert trainset.evict_after_days == 2
        assert GONE in evicted, "he is there on the train days of `later`, which have no say"
        assert {key: row["id"] for key, row in table.items() if key in users(champion)} == {
            key: row["id"] for key, row in users(champion).items()
        }
    assert users(following)[BACK]["evicted_on"] == DAYS[4]
    assert users(later)[BACK]["evicted_on"] is None
    assert users(later)[FRESH]["evicted_on"] is None, "he was admitted after the first train day"


@pytest.mark.parametrize("split", ["train", "gate"])
def test_exported_rows_have_the_id_of_their_key_as_of_their_day(
    warehouse: Warehouse, later: Built, split: SplitName
) -> None:
    its_days = {"train": (*LATER.replay, *LATER.train), "gate": (LATER.gate,)}[split]
    samples = samples_of(warehouse, *its_days).select(["impression_id", "user_id", "dt"])
    known, found = users(later), read(later, split)
    wanted = {}
    for row in samples.to_pylist():
        key = known.get(row["user_id"])
        is_known = (
            key is not None
            and key["admitted_on"] <= row["dt"]
            and (key["evicted_on"] is None or row["dt"] < key["evicted_on"])
        )
        wanted[row["impression_id"]] = key["id"] if key is not None and is_known else OOV_ID
    ids = dict(zip(found["row_id"].to_pylist(), found["c__user_id"].to_pylist(), strict=True))
    assert ids == {row: wanted[row] for row in ids}
    gone = [row["impression_id"] for row in samples.to_pylist() if row["user_id"] == GONE]
    assert gone
    assert {ids[row] for row in gone} == {OOV_ID}


def test_the_encoder_that_serves_gives_the_exported_rows(warehouse: Warehouse, later: Built) -> None:
    samples = samples_of(warehouse, *LATER.replay, *LATER.train)
    splits: list[tuple[SplitName, pa.Table]] = [("train", samples), ("gate", samples_of(warehouse, LATER.gate))]
    for split, rows in splits:
        exported = read(later, split)
        encoded = Encoder.load(*later).encode(rows).sort_by("row_id")
        again = encoded.filter(pc.is_in(encoded["row_id"], value_set=exported["row_id"].combine_chunks()))
        assert again.select(exported.column_names).to_pydict() == exported.to_pydict()


def test_replayed_rows_are_told_by_day_and_are_of_no_other_day(warehouse: Warehouse, later: Built) -> None:
    trainset, train = later[0], read(later, "train")
    by_day = dict(
        zip(*(samples_of(warehouse, *DAYS)[name].to_pylist() for name in ("impression_id", "dt")), strict=True)
    )
    found = [by_day[row] for row in train["row_id"].to_pylist()]
    assert set(found) <= {*LATER.train, *LATER.replay}
    assert trainset.replayed == {str(day): found.count(day) for day in LATER.replay}
    assert trainset.splits["train"].days == tuple(map(str, LATER.train))
    new = sum(found.count(day) for day in LATER.train)
    assert new == sum(day in LATER.train for day in by_day.values())
    assert len(found) == trainset.splits["train"].rows == new + sum(trainset.replayed.values())
    assert trainset.splits["train"].dropped == 0
    wanted = 0.5 * new
    assert abs(sum(trainset.replayed.values()) - wanted) < 5 * wanted**0.5, (
        "chosen one by one, half as many as new ones"
    )
    assert (trainset.trained_from, trainset.seen_until) == (str(DAYS[2]), str(DAYS[8]))


def test_sql_over_the_samples_evicts_the_same_keys(spark: SparkSession, warehouse: Warehouse, later: Built) -> None:
    own = own_trainset(context_of(spark, Path(warehouse.url.removeprefix("file://"))), later[0].name).own
    assert own is not None
    findings = fitted_artefacts(own, AuditConf(), lambda _: None)
    assert [found for found in findings if found.verdict is not Verdict.PASS] == []
    (of_users,) = [found for found in findings if found.subject == "evicted keys of user"]
    assert of_users.what.startswith(f"{later[0].evicted()['user']} keys are evicted")


def test_the_same_rows_are_replayed_again_and_others_for_another_train_set(
    spark: SparkSession, warehouse: Warehouse, following: Built, later: Built
) -> None:
    first = read(later, "train")["row_id"].to_pylist()
    again = build(spark, warehouse, "later", LATER, following[0].name)
    assert read(again, "train")["row_id"].to_pylist() == first
    other = build(spark, warehouse, "another", LATER, following[0].name)
    assert read(other, "train")["row_id"].to_pylist() != first


def test_a_full_train_set_starts_its_numbers_anew_and_evicts_nothing(
    spark: SparkSession, warehouse: Warehouse, champion: Built
) -> None:
    fresh = TrainDays(fit=tuple(DAYS[3:5]), train=tuple(DAYS[5:7]), valid=(DAYS[7],), gate=DAYS[8])
    trainset, _ = TrainSetBuilder(spark, warehouse, CATALOG, CONF, "test").build("fresh", fresh, champion[0].name)
    assert {vocabulary.evicted for vocabulary in trainset.vocabularies} == {0}
    assert (trainset.evict_after_days, trainset.replayed, trainset.trained_from) == (None, {}, str(DAYS[5]))
    assert trainset.leaves == champion[0].leaves


def test_numbers_that_have_moved_are_refused(spark: SparkSession, warehouse: Warehouse, following: Built) -> None:
    """The samples of a counted day were computed again meanwhile, and an old key would now have another row."""
    path = f"{following[1]}/vocabularies/user.parquet"
    honest = pq.read_table(path)
    first, second, *rest = honest["key"].to_pylist()
    swapped = honest.set_column(0, "key", pa.array([second, first, *rest], honest["key"].type))
    assert moved_keys(honest, honest) == []
    assert moved_keys(swapped, honest) == [str(second), str(first)]
    pq.write_table(swapped, path)
    try:
        with pytest.raises(DataError, match=r"keys of user have not the numbers that next gave them.*\(2\).*in full"):
            build(spark, warehouse, "refused", LATER, "next")
    finally:
        pq.write_table(honest, path)


def test_a_model_that_goes_on_twice_keeps_the_row_of_a_key_that_is_evicted_meanwhile(
    champion: Built, following: Built, later: Built, tmp_path: Path
) -> None:
    """GONE is OOV in both later train sets: nothing touches his row, and it is there for whoever sees him again."""
    optim = {"embedding": {"kind": "adagrad", "learning_rate": 0.1, "l2": 0.01}}
    values = {"batch_size": 32, "epochs": 1, "threads": 1, "optim": optim}
    conf = TrainConf.of({**values, "model": {"name": "deepfm", "embedding_dim": 4, "hidden": [8]}})
    rows, earlier = [], None
    for trainset, root in (champion, following, later):
        out = str(tmp_path / trainset.name)
        result = train(conf, root, out, show_progress=False, init_from=earlier)
        assert ("user" in result.added) == (trainset is later[0]), "FRESH is new there"
        table = load_file(f"{out}/{WEIGHTS_FILE}")[TABLE_WEIGHT]
        start = trainset.offsets()["user"]
        rows.append((table[start + users(champion)[GONE]["id"]], table[start + OOV_ID]))
        earlier = out
    (own, oov), *afterwards = rows
    assert all(torch.equal(row, own) for row, _ in afterwards)
    assert not any(torch.equal(row, oov) for _, row in afterwards)
