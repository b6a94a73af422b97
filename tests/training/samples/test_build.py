"""Somebody's own samples as a train set, against a row-by-row reading of the same files; all that can be wrong."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from features import manifest as m
from features.errors import ConfError, DataError
from tests.training.samples.own_files import SCHEMA, rows, write
from training.feed import Feed
from training.samples.build import build, newest_first, row_group_sizes
from training.samples.schema import SampleSchema
from training.world import World

Made = tuple[m.TrainSet, Path, dict[m.SplitName, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("own")
    splits = write(folder)
    schema = SampleSchema.load(folder / "schema.yaml")
    trainset = build(schema, splits, str(folder / "out"), name="own", seed=3, report=lambda _: None)
    return trainset, folder / "out", splits


def read(folder: str) -> list[dict[str, Any]]:
    files = sorted(Path(folder).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def encoded(trainset: m.TrainSet, root: Path, split: m.SplitName) -> list[dict[str, Any]]:
    tables = [pq.read_table(root / file.path) for file in trainset.splits[split].files]
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["row_id"])


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_every_row_is_encoded_as_its_schema_says(made: Made, split: m.SplitName) -> None:
    trainset, root, splits = made
    train = read(splits["train"])
    items = Counter(row["item"] for row in train) + Counter(item for row in train for item in row["bought"])
    kept = sorted((key for key, count in items.items() if count >= 2), key=lambda key: (-items[key], key))
    item_ids = {key: 2 + place for place, key in enumerate(kept)}
    countries = Counter(row["country"] for row in train if row["country"] is not None)
    country_ids = {key: 2 + n for n, key in enumerate(sorted(countries, key=lambda key: (-countries[key], key)))}
    prices = [math.log1p(row["price"]) for row in train]
    ages = [30 if row["age"] is None else row["age"] for row in train]
    own = read(splits[split])
    found = encoded(trainset, root, split)
    assert len(found) == len(own) == trainset.splits[split].rows
    assert [row["row_id"] for row in found] == list(range(len(own)))
    devices: dict[str, int] = {}
    for row, source in zip(found, own, strict=True):
        assert row["c__item"] == item_ids.get(source["item"], m.OOV_ID)
        assert row["c__country"] == country_ids.get(source["country"], m.OOV_ID)
        assert 2 <= devices.setdefault(source["device"], row["c__device"]) == row["c__device"] < 9
        wanted = (math.log1p(source["price"]) - np.mean(prices)) / np.std(prices)
        assert row["d__price"] == pytest.approx(wanted, abs=1e-5)
        age = 30 if source["age"] is None else source["age"]
        assert row["d__age"] == pytest.approx((age - np.mean(ages)) / np.std(ages), abs=1e-5)
        sequence = [item_ids.get(item, m.OOV_ID) for item in source["bought"][:4]]
        assert row["s__bought__bought"] == sequence + [0] * (4 - len(sequence))
        assert row["v__picture"] == pytest.approx(source["picture"], abs=1e-6)
        assert (row["y__click"], row["m__click"]) == (float(source["click"]), source["importance"])
        is_judged = source["click"] and source["buy_known"]
        assert row["m__buy"] == (source["importance"] if is_judged else 0)
        assert row["y__buy"] == (source["buy"] if is_judged else 0)
    assert len(set(devices.values())) == 7
    people: dict[str, int] = {}
    for row, source in zip(found, own, strict=True):
        assert people.setdefault(source["person"], row["group"]) == row["group"]
    assert len(set(people.values())) == len(people)


def test_train_is_mixed_and_the_rest_is_not(made: Made) -> None:
    trainset, root, _ = made
    for split in ("train", "valid"):
        tables = [pq.read_table(root / file.path, columns=["row_id"]) for file in trainset.splits[split].files]
        order = pa.concat_tables(tables)["row_id"].to_numpy()
        assert (np.diff(order) == 1).all() == (split == "valid")
        if split == "train":
            assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.1


def test_the_feed_reads_it(made: Made) -> None:
    trainset, root, _ = made
    feed = Feed(trainset, str(root), split="train", batch_size=64, world=World(rank=0, size=1), seed=1)
    batch = next(feed.epoch(0))
    assert batch.ids.shape == (64, 3)
    assert batch.sequences["bought.bought"].shape == (64, 4)


@pytest.mark.parametrize(("count", "groups"), [(5, 5), (1000, 16), (65_536, 16), (1_000_000, 240)])
def test_row_groups_differ_by_one_row_at_most(count: int, groups: int) -> None:
    sizes = row_group_sizes(count)
    assert (sum(sizes), len(sizes)) == (count, groups)
    assert max(sizes) - min(sizes) <= 1


def test_lists_the_other_way_round() -> None:
    lists = pa.array([[1, 2, 3], [], None, [4], [5, 6]])
    assert newest_first(lists).to_pylist() == [[3, 2, 1], [], [], [4], [6, 5]]


def schema_of(**changes: Any) -> SampleSchema:
    values = yaml.safe_load(SCHEMA)
    values["columns"] = {name: role for name, role in (values["columns"] | changes).items() if role is not None}
    return SampleSchema.model_validate(values)


def spoil(table: pa.Table, column: str, values: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    """The same table with the first values of a column replaced."""
    column_type = kind or table[column].type
    whole = values + table[column].cast(column_type).to_pylist()[len(values) :]
    return table.set_column(table.column_names.index(column), column, pa.array(whole, column_type))


def test_all_problems_of_values_are_told_at_once(tmp_path: Path) -> None:
    splits = write(tmp_path, train=300, valid=100, test=50)
    train = spoil(rows(300, 0), "price", [float("nan"), float("inf"), -1.0])
    train = spoil(train, "click", [2, 3, None], pa.int64())
    train = spoil(train, "picture", [[1.0], [1.0, 2.0, float("nan")]])
    pq.write_table(train, tmp_path / "train" / "a.parquet")
    pq.write_table(spoil(rows(60, 1), "age", [float("inf")], pa.float64()), tmp_path / "valid" / "a.parquet")
    (tmp_path / "train" / "b.parquet").unlink()
    (tmp_path / "valid" / "b.parquet").unlink()
    pq.write_table(rows(50, 1).slice(0, 0), tmp_path / "test" / "a.parquet")
    (tmp_path / "test" / "b.parquet").unlink()
    with pytest.raises(DataError) as caught:
        build(schema_of(), splits, str(tmp_path / "out"), name="own", seed=0, report=lambda _: None)
    told = str(caught.value)
    for line in (
        "table=train column=price: NaN or infinity (2); e.g. nan, inf",
        "table=train column=price: below 0, log1p is for counts and amounts (1); e.g. -1.0",
        "table=train column=click: neither 0 nor 1 (3); e.g. 2, 3, None",
        "table=train column=picture: lists not of length 3 (1); e.g. 1",
        "table=train column=picture: NaN or infinity (1)",
        "table=valid column=age: NaN or infinity (1); e.g. inf",
        "table=test: no row",
    ):
        assert line in told
    assert not (tmp_path / "out").exists()


def test_all_problems_of_columns_are_told_at_once(tmp_path: Path) -> None:
    splits = write(tmp_path, train=100, valid=100, test=50)
    train = rows(100, 0).drop_columns(["person"]).append_column("extra", pa.array([1] * 100))
    train = spoil(train, "price", ["cheap"] * 100, pa.string())
    train = spoil(train, "bought", [["a"]] * 100, pa.list_(pa.string()))
    pq.write_table(train, tmp_path / "train" / "a.parquet")
    with pytest.raises(DataError) as caught:
        build(schema_of(), splits, str(tmp_path / "out"), name="own", seed=0, report=lambda _: None)
    told = str(caught.value)
    for line in (
        "table=train column=extra: unknown column",
        "table=train column=person: missing column",
        "table=train column=price: type string, the role dense wants numbers",
        "table=train column=bought: a sequence of string against the vocabulary of item, which holds int32",
    ):
        assert line in told


def test_a_split_of_one_class_and_a_column_of_too_many_values_stop(tmp_path: Path) -> None:
    splits = write(tmp_path, train=400, valid=100, test=50)
    pq.write_table(spoil(rows(100, 1), "click", [False] * 100), tmp_path / "valid" / "a.parquet")
    (tmp_path / "valid" / "b.parquet").unlink()
    schema = schema_of(item={"role": "categorical", "max_values": 20})
    with pytest.raises(DataError) as caught:
        build(schema, splits, str(tmp_path / "out"), name="own", seed=0, report=lambda _: None)
    told = str(caught.value)
    assert "table=valid column=click: only zeros among 100 judged rows: AUC is undefined" in told
    assert "table=train column=item: more distinct values than max_values=20 (30)" in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"click": None, "buy": None, "buy_known": None}, "no column has the role label"),
        (
            {"bought": {"role": "sequence", "of": "price", "length": 3}},
            "bought: of='price' is not a categorical column",
        ),
        ({"buy": {"role": "label", "given": "bye"}}, "buy: given='bye' is not another label"),
        ({"note": {"role": "group"}}, "note, person: only one column may have the role group"),
        ({"note": {"role": "mask", "of": "buy"}}, "buy_known: buy has more than one mask"),
        ({"note": {"role": "labl"}}, "role"),
    ],
)
def test_roles_that_contradict_each_other(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    values = yaml.safe_load(SCHEMA)
    values["columns"] = {name: role for name, role in (values["columns"] | changes).items() if role is not None}
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfError, match=told.replace("(", r"\(")):
        SampleSchema.load(tmp_path / "schema.yaml")
