"""How every stage reads raw rows: only whole, ready days; only rows that the contract lets count.

Steps for one table and some days:
  1. ready     every day has its marker; late and missing days stop, empty days are counted      days
  2. shapes    contract columns present and of the right type, day by day, from footers          days x columns
  3. read      the files that were listed, with an explicit schema; `dt` is a date, never inferred
  4. times     rows that happened after the end of the day they arrived on stop the run; rows that arrived more
               than `max_lateness_days` after they happened are quarantined                      one row per day
  5. repeats   logs are delivered at least once: of the rows of one key the first by (dt, ts) counts, over the days
               read and the `max_lateness_days` before them, of which only row groups whose keys may be the same are
               read (none, where ids ascend in time); the run stops when the copies differ, or above a share

What counting costs: steps 4 and 5 are one narrow scan each (times; keys), and a third of the payloads where keys are
repeated; once per run if the widest set of days is read first, however many stages then read. Spark's Observation
would save the first scan, but its metrics arrive only after the stage's own action, hence after a stage has written
what must stop it, and they are lost when adaptive execution drops an empty stage. A table without repeats, the usual
case, pays nothing afterwards: what stages read is a filter. Only the rows of repeated keys are ever sorted.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from features.errors import MAX_EXAMPLES, ConfError, DataError, Problem
from pipeline.raw_listing import RawListing, require_ready
from pipeline.raw_repeats import COPIES, DIFFER, copies, first_of_each, lateness_days, later_copies, repeats
from pipeline.raw_shapes import RawColumns, raw_schema
from pipeline.raw_times import PUNCTUALITY, DayFound, times_by_day
from pipeline.sources.raw_layout import DAY_COLUMN, RAW_TABLES, RawTable, table_folder

SESSION_ZONE_KEY = "spark.sql.session.timeZone"


@dataclass(frozen=True, kw_only=True)
class RawCounts:
    """What reading one table found, over the days read.

    Attributes:
        rows: rows in the files.
        quarantined: day of arrival -> rows that arrived too late to count anywhere.
        repeated: day of arrival -> rows left out because an earlier one has their key.
        empty_days: ready days without a row.
    """

    rows: int
    quarantined: Mapping[dt.date, int]
    repeated: Mapping[dt.date, int]
    empty_days: tuple[dt.date, ...]


@dataclass(frozen=True, kw_only=True)
class _Examined:
    """One table's days as they were found; it answers for any subset of them too."""

    days: frozenset[dt.date]
    found: Mapping[dt.date, DayFound]
    repeated_keys: DataFrame | None


class RawInput:
    """The raw tables as one run reads them; make one per run, so that each table is examined once."""

    def __init__(
        self, spark: SparkSession, listing: RawListing, *, zone: str, max_lateness_days: int, max_repeat_share: float
    ) -> None:
        """
        Args:
            zone: business time zone; the session's own must be the same, as it decides which day a `ts` is on.
            max_lateness_days: rows with dt - day(ts) above it are quarantined.
            max_repeat_share: repeated rows above this share of all rows stop the run.

        Raises:
            ConfError: the session runs in another time zone.
        """
        session_zone = spark.conf.get(SESSION_ZONE_KEY)
        if session_zone != zone:
            raise ConfError(
                f"{SESSION_ZONE_KEY} is {session_zone}, time.zone is {zone}: start the session with the latter"
            )
        self._spark = spark
        self.listing = listing
        self._max_lateness_days = max_lateness_days
        self._max_repeat_share = max_repeat_share
        self._examined: dict[str, list[_Examined]] = {}
        self.columns = RawColumns(spark, listing)

    def read(self, table: str, days: Iterable[dt.date]) -> DataFrame:
        """The rows of `days` that count: contract columns, then further ones as found, then `dt` as a date.

        Raises:
            NotReadyError: a day is late.
            DataError: a day is missing, a column is absent or of another type, rows happened after their day's end,
                too many rows are repeated or repeats differ. All problems of the kind at once.
        """
        wanted = tuple(sorted(set(days)))
        spec = RAW_TABLES[table]
        repeated_keys = self._examine(spec, wanted).repeated_keys
        if repeated_keys is None:
            return self._in_time(spec, self._load(table, wanted))
        rows = self._in_time(spec, self._load(table, self._with_look_back(spec, wanted)))
        return first_of_each(rows, repeated_keys, spec).where(F.col(DAY_COLUMN).isin(*wanted))

    def counts(self, table: str, days: Iterable[dt.date]) -> RawCounts:
        """What `read` found for the same days; raises as it does."""
        wanted = sorted(set(days))
        examined = self._examine(RAW_TABLES[table], tuple(wanted))
        found = {day: examined.found[day] for day in wanted if day in examined.found}
        return RawCounts(
            rows=sum(of_day.rows for of_day in found.values()),
            quarantined={day: of_day.late for day, of_day in found.items() if of_day.late},
            repeated=self._repeats_by_day(RAW_TABLES[table], tuple(wanted), examined.repeated_keys),
            empty_days=tuple(day for day in wanted if day not in found),
        )

    def close(self) -> None:
        """Frees the repeated keys that were kept."""
        for examined in itertools.chain.from_iterable(self._examined.values()):
            if examined.repeated_keys is not None:
                examined.repeated_keys.unpersist()
        self._examined.clear()

    def _with_look_back(self, spec: RawTable, days: tuple[dt.date, ...]) -> tuple[dt.date, ...]:
        """`days` and, for logs, the listed days before them that may hold the first copy of one of their rows.

        Copies that count have the same ts and both arrive within `max_lateness_days` of it.
        """
        if spec.kind == "snapshot":
            return days
        offsets = range(self._max_lateness_days + 1)
        reached = {day - dt.timedelta(days=offset) for day in days for offset in offsets}
        known = {day for day, partition in self.listing.partitions[spec.name].items() if partition.ready}
        return tuple(sorted(set(days) | (reached & known)))

    def _examine(self, spec: RawTable, days: tuple[dt.date, ...]) -> _Examined:
        """Examines the days, unless that was done for them or for more days than them."""
        known = self._examined.setdefault(spec.name, [])
        for examined in known:
            if examined.days.issuperset(days):
                return examined
        require_ready(self.listing, {spec.name: days})
        known.append(self._examine_now(spec, days))
        return known[-1]

    def _examine_now(self, spec: RawTable, days: tuple[dt.date, ...]) -> _Examined:
        seen = self._load(spec.name, days)
        found = times_by_day(seen, spec, self._max_lateness_days)
        examined = _Examined(days=frozenset(days), found=found, repeated_keys=None)
        if spec.kind == "updates" or not found:
            return examined
        if earlier := [day for day in self._with_look_back(spec, days) if day not in days]:
            seen = seen.unionByName(self._rows_of_like_keys(spec, tuple(earlier), found), allowMissingColumns=True)
        seen = self._in_time(spec, seen)
        # The usual case is told from the keys alone; what copies hold is read only where there are some.
        if not copies(seen, spec, of=F.col(DAY_COLUMN).isin(*days)).count():
            return examined
        keys = repeats(seen, spec, of=F.col(DAY_COLUMN).isin(*days)).persist()
        self._check_repeats(spec, keys, sum(of_day.rows for of_day in found.values()))
        return replace(examined, repeated_keys=keys)

    def _rows_of_like_keys(
        self, spec: RawTable, earlier: tuple[dt.date, ...], found: Mapping[dt.date, DayFound]
    ) -> DataFrame:
        """Rows of days before those read, with keys in their ranges; other row groups of Parquet are not read."""
        is_like = F.lit(False)
        for kind in PUNCTUALITY:
            ranges = [of_day.keys[kind] for of_day in found.values() if kind in of_day.keys]
            if ranges:
                low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
                is_like = is_like | F.col(spec.key[0]).between(low, high)
        return self._load(spec.name, earlier).where(is_like)

    def _repeats_by_day(
        self, spec: RawTable, days: tuple[dt.date, ...], repeated_keys: DataFrame | None
    ) -> dict[dt.date, int]:
        """Later copies per day of arrival; a pass over the rows only where there are repeats."""
        if repeated_keys is None:
            return {}
        rows = self._in_time(spec, self._load(spec.name, self._with_look_back(spec, days)))
        later = later_copies(rows, repeated_keys, spec).where(F.col(DAY_COLUMN).isin(*days))
        return {row[DAY_COLUMN]: int(row["count"]) for row in later.groupBy(DAY_COLUMN).count().collect()}

    def _load(self, table: str, days: tuple[dt.date, ...]) -> DataFrame:
        shapes = self.columns.shapes(table, days)
        return read_files(self._spark, self.listing, table, shapes, raw_schema(table, shapes))

    def _in_time(self, spec: RawTable, df: DataFrame) -> DataFrame:
        if not spec.event_time:
            return df
        return df.where(lateness_days(spec) <= self._max_lateness_days)

    def _check_repeats(self, spec: RawTable, repeated_keys: DataFrame, rows: int) -> None:
        """Raises DataError when copies differ, or are too many."""
        differing = F.col(DIFFER)
        example = F.to_json(F.struct(*spec.key))
        found = repeated_keys.agg(
            F.coalesce(F.sum(F.col(COPIES) - 1), F.lit(0)).alias("repeated"),
            F.count(F.when(differing, 1)).alias("differing"),
            F.slice(F.array_sort(F.collect_list(F.when(differing, example))), 1, MAX_EXAMPLES).alias("examples"),
        ).collect()[0]
        repeated = int(found["repeated"])
        name = ", ".join(spec.key)
        problems = []
        if found["differing"]:
            problems.append(
                Problem(
                    what=f"rows of the same {name} differ",
                    table=spec.name,
                    column=name,
                    count=found["differing"],
                    examples=found["examples"],
                    remedy="Give each event an id of its own, or replace the day by its right rows.",
                )
            )
        if repeated > self._max_repeat_share * rows:
            problems.append(
                Problem(
                    what=f"repeated {name} above the share of {self._max_repeat_share:.2%} of {rows:,} rows",
                    table=spec.name,
                    column=name,
                    count=repeated,
                    remedy="Find what delivers twice, or raise raw.max_repeat_share.",
                )
            )
        if problems:
            raise DataError(problems)


def read_files(
    spark: SparkSession, listing: RawListing, table: str, days: Iterable[dt.date], schema: StructType
) -> DataFrame:
    """The listed files of `days`, no others, with exactly `schema` (which ends in `dt`)."""
    urls = [url for day in days for url in listing.partitions[table][day].file_urls()]
    if not urls:
        return spark.createDataFrame([], schema)
    folder = table_folder(listing.warehouse, table)
    return spark.read.schema(schema).option("basePath", folder).parquet(*urls)
