"""The Complete Journey: mapping and sampled negatives, on a small stand-in of the package's own tables."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from features.errors import DataError, ResourceError
from pipeline.sources import completejourney
from pipeline.sources.assembly import UNKNOWN_ANCHOR_BASE
from pipeline.sources.negatives import NegativesConf
from pipeline.sources.report import IngestReport, read_source_facts

CONF = completejourney.CompleteJourneyConf(
    last_day=dt.date(2017, 3, 5), days=2, negatives=NegativesConf(ratio=1.0, seed=1, pool_days=2)
)


def _transactions() -> pd.DataFrame:
    """Five days, 30 lines a day: household 1..6, product 101..115; every 10th line free, every 5th of several units.

    The last line of all is the first of product 116.
    """
    lines = [
        {
            "household_id": 1 + line % 6,
            "store_id": 7,
            "basket_id": 31_000_000_000 + 10 * on + line % 6,
            "product_id": 116 if (on, line) == (4, 29) else 101 + (line // 2 + on) % 15,
            "quantity": 2 if line % 5 == 0 else 1,
            "sales_value": 0.0 if line % 10 == 0 else 1.25,
            # 23:30 in New York is 04:30 UTC of the day after: the last line of each day.
            "transaction_timestamp": pd.Timestamp(2017, 3, 1 + on, 17, 0) + pd.Timedelta(minutes=line)
            if line < 29
            else pd.Timestamp(2017, 3, 2 + on, 4, 30),
        }
        for on in range(5)
        for line in range(30)
    ]
    return pd.DataFrame(lines)


def _tables(which: list[str]) -> dict[str, pd.DataFrame]:
    products = pd.DataFrame(
        {
            "product_id": range(101, 115),
            "manufacturer_id": [1 + k % 3 for k in range(14)],
            "department": "GROCERY",
            "brand": "National",
            "product_category": ["MILK"] * 7 + ["BREAD"] * 6 + [None],
            "product_type": None,
        }
    )
    demographics = pd.DataFrame({"household_id": [1, 2], "age": ["65+", "25-34"]})
    tables = {"transactions": _transactions(), "products": products, "demographics": demographics}
    return {name: tables[name] for name in which}


@pytest.fixture(scope="module")
def package() -> Iterator[None]:
    """The package's one function, with tables of its layout."""
    before = sys.modules.get(completejourney.PACKAGE)
    module = ModuleType(completejourney.PACKAGE)
    module.get_data = _tables  # type: ignore[attr-defined]
    sys.modules[completejourney.PACKAGE] = module
    yield
    if before is None:
        del sys.modules[completejourney.PACKAGE]
    else:
        sys.modules[completejourney.PACKAGE] = before


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("completejourney")


@pytest.fixture(scope="module")
def report(spark: SparkSession, warehouse: Path, package: None) -> IngestReport:
    return completejourney.ingest(spark, CONF, str(warehouse))


@pytest.fixture
def read(spark: SparkSession, warehouse: Path, report: IngestReport) -> dict[str, DataFrame]:
    return {table: spark.read.parquet(str(warehouse / "raw" / table)) for table in report.rows}


def test_purchases_are_impressions_of_their_stores_day(read: dict[str, DataFrame]) -> None:
    bought = read["impressions"].where(~F.col("sampled_negative"))
    days = sorted(row["dt"].day for row in bought.select("dt").collect())
    assert days == [4] * 30 + [5] * 29
    assert bought.select("impression_id").distinct().count() == 59
    late = bought.where(F.hour("ts") == 23).select(F.minute("ts")).collect()
    assert [row[0] for row in late] == [30]


def test_what_no_negative_could_be_counts_in_profiles_only(read: dict[str, DataFrame], report: IngestReport) -> None:
    unshown = read["actions"].where(F.col("impression_id").isNull()).select("action", "room_id").collect()
    assert {tuple(row) for row in unshown} == {("enter", 116), ("gift", 116)}
    assert read["impressions"].where(F.col("room_id") == 116).count() == 0
    assert "for 59 of 60 purchases" in report.notes[0]


def test_actions_carry_cents_and_several_units(read: dict[str, DataFrame]) -> None:
    counted = {
        row["action"]: row for row in read["actions"].groupBy("action").agg(F.count("*"), F.sum("value")).collect()
    }
    assert {action: row[1] for action, row in counted.items()} == {"enter": 60, "gift": 54, "like": 12}
    assert counted["gift"][2] == 54 * 125


def test_negatives_are_marked_and_no_purchase_of_the_day(read: dict[str, DataFrame], report: IngestReport) -> None:
    shown = read["impressions"]
    negatives = shown.where("sampled_negative")
    assert negatives.count() > 30
    bought = shown.where("NOT sampled_negative").select("user_id", "room_id", "dt")
    assert negatives.join(bought, ["user_id", "room_id", "dt"], "left_semi").count() == 0
    assert report.facts.sampled_scale


def test_a_product_of_unknown_maker_is_its_own_anchor(read: dict[str, DataFrame]) -> None:
    anchors = {row["room_id"]: row["anchor_id"] for row in read["impressions"].collect()}
    assert anchors[115] == UNKNOWN_ANCHOR_BASE + 115
    assert {anchor for room, anchor in anchors.items() if room != 115} == {1, 2, 3}
    categories = {row["room_id"]: row["category"] for row in read["rooms"].collect()}
    assert (categories[101], categories[114], categories[115]) == ("MILK", "GROCERY", None)


def test_households_without_demographics_have_no_age(read: dict[str, DataFrame]) -> None:
    newest = read["users"].where(F.col("dt") == F.lit(dt.date(2017, 3, 5))).collect()
    assert {row["user_id"]: row["age"] for row in newest} == {1: 65, 2: 25, 3: None, 4: None, 5: None, 6: None}
    assert {row["registered_on"] for row in newest} == {dt.date(2017, 3, 1)}
    assert {row["dt"].day for row in read["users"].select("dt").distinct().collect()} == {3, 4, 5}


def test_the_warehouse_says_what_it_is(spark: SparkSession, warehouse: Path, report: IngestReport) -> None:
    facts = read_source_facts(spark, str(warehouse))
    assert facts == report.facts
    assert facts is not None
    assert (facts.tasks.main, facts.tasks.esmm, facts.zone) == ("enter", ("enter", "like"), "Asia/Shanghai")


def test_days_without_purchases_are_refused(spark: SparkSession, tmp_path: Path, package: None) -> None:
    with pytest.raises(DataError, match="no transaction from 2018-01-01 to 2018-01-02"):
        completejourney.ingest(spark, CONF.model_copy(update={"last_day": dt.date(2018, 1, 2)}), str(tmp_path))


def test_without_the_package_the_make_target_is_named(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, completejourney.PACKAGE, None)
    with pytest.raises(ResourceError, match="make demo SOURCE=completejourney"):
        completejourney.ingest(spark, CONF, str(tmp_path))
