"""Carried windows against the bulk recompute and the oracle, day after day, over random logs."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from pyspark.sql import functions as F

from features.schema import load_catalog
from features.spark.carried import (
    BESIDE,
    DIGEST_CHANGES,
    IMPOSSIBLE,
    carried_day,
    delta,
    merged_state,
)
from features.spark.ops import DAY, ActiveBits, LastActive, Total, epoch_days
from features.spark.profiles import profile_state
from features.spark.row_hash import high_half, low_half
from features.spark.window_state import as_features, state_layout, stored_entities
from features.spec import Entity
from tests.features.random_logs import LOG_STRIDE, LogShape, joined, many_logs, moved, random_logs
from tests.features.spark.profile_rows import SparkProfiles, by_day_and_key
from tests.features.spark.short_windows import FIRST_DAY, LONG, SHORT_WINDOWS
from tests.oracle import profiles as oracle

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from features.schema import Catalog
    from tests.features.random_logs import RawLogs

pytestmark = pytest.mark.spark

ONE_DAY = dt.timedelta(days=1)
SEEDS = [5, 35, 8, 97]
LATER_THAN_WINDOWS = LogShape(max_lateness_days=9, quiet_share=0.4)
"""Rows arrive later than every short window is long."""
SINCE_LONG = replace(LONG, first_day=FIRST_DAY - 66 * ONE_DAY)
"""While the short logs go on, rows of this one leave a window of 70 days, whose bit set has two words."""
DAYS = [FIRST_DAY + offset * ONE_DAY for offset in range(3, 7)]

Digest = tuple[int, int, int]


def history() -> RawLogs:
    """Short logs, logs with rows later than every short window, and a long sparse one."""
    late = [moved(random_logs(seed, LATER_THAN_WINDOWS), (10 + place) * LOG_STRIDE) for place, seed in enumerate(SEEDS)]
    return joined([many_logs(SEEDS), *late, moved(random_logs(SEEDS[0], SINCE_LONG), 20 * LOG_STRIDE)])


@pytest.fixture(scope="module")
def computed(spark: SparkSession) -> SparkProfiles:
    return SparkProfiles(spark, history(), partitions=2)


def digest_of(state: DataFrame, columns: list[str]) -> dict[dt.date, Digest]:
    row_hash = F.xxhash64(*columns)
    sums = (F.count(F.lit(1)), F.sum(high_half(row_hash)), F.sum(low_half(row_hash)))
    return {row[0]: (row[1], row[2], row[3]) for row in state.groupBy(DAY).agg(*sums).collect()}


@dataclass
class Chain:
    """The state of one entity, carried: the rows of its base and deltas, and its digest."""

    layers: DataFrame
    digest: Digest

    def add(self, rows: DataFrame) -> None:
        rows = rows.localCheckpoint()
        impossible = F.max(IMPOSSIBLE)
        changes = rows.agg(*(F.coalesce(F.sum(name), F.lit(0)) for name in DIGEST_CHANGES), impossible).collect()[0]
        assert not changes[3], changes[3]
        self.digest = (self.digest[0] + changes[0], self.digest[1] + changes[1], self.digest[2] + changes[2])
        self.layers = self.layers.unionByName(rows.drop(*BESIDE)).coalesce(2).localCheckpoint()


@pytest.mark.parametrize(
    ("catalog", "days"), [(SHORT_WINDOWS, DAYS), (load_catalog(), DAYS[2:4])], ids=["short windows", "our catalog"]
)
def test_carried_day_after_day_is_the_bulk_recompute_and_the_oracle(
    computed: SparkProfiles, catalog: Catalog, days: list[dt.date]
) -> None:
    on_air, layouts = computed.on_air(catalog), {e: state_layout(e, catalog) for e in stored_entities(catalog)}
    bulk = {
        entity: profile_state(entity, catalog=catalog, tiles=computed.tiles, on_air=on_air, days=days).localCheckpoint()
        for entity in layouts
    }
    digests = {entity: digest_of(bulk[entity], [*of.keys, *of.columns]) for entity, of in layouts.items()}
    chains = {e: Chain(layers=bulk[e].where(F.col(DAY) == days[0]), digest=digests[e][days[0]]) for e in layouts}
    for day in days[:-1]:
        states = {entity: chain.layers for entity, chain in chains.items()}
        now = carried_day(
            catalog, states=states, tiles=computed.tiles, on_air=on_air, day=day, keep=lambda f: f.localCheckpoint()
        )
        for entity, chain in chains.items():
            chain.add(delta(layouts[entity], now[entity], day=day))
            assert chain.digest == digests[entity][day + ONE_DAY], (entity, day)
    last = days[-1]
    for entity, chain in chains.items():
        layout = layouts[entity]
        state = (
            merged_state(layout, chain.layers, layout.keys).withColumn(DAY, F.lit(last)).select(bulk[entity].columns)
        )
        assert sorted(map(repr, state.collect())) == sorted(map(repr, bulk[entity].where(F.col(DAY) == last).collect()))
        expected = oracle.profiles(entity, catalog.windows(entity), history(), [last])
        assert by_day_and_key(as_features(entity, catalog, state), entity) == expected
        assert expected


def test_what_no_tiles_can_have_made_is_named(spark: SparkSession) -> None:
    layout = state_layout(Entity.USER, SHORT_WINDOWS)
    day, newest = FIRST_DAY, epoch_days(FIRST_DAY) + 1
    fine = {column.name: 1 if isinstance(column, Total) else 0 for column in layout.sums}
    last = next(column for column in layout.sums if isinstance(column, LastActive))
    bits = next(column for column in layout.sums if isinstance(column, ActiveBits))
    short, long = (Total(source="impressions", days=days).name for days in (1, 3))
    cases = [
        ("", {}),
        ("", {last.name: newest, bits.name: 1 << (epoch_days(day) % bits.period)}),
        (last.name, {last.name: newest + 1}),
        (last.name, {last.name: newest - last.days}),
        (bits.name, {bits.name: 1 << ((epoch_days(day) + 1) % bits.period)}),
        (last.name, {**dict.fromkeys(fine, 0), last.name: newest}),
        (short, {short: 2}),
        ("", {short: 2, long: 2}),
        (",".join(fine), dict.fromkeys(fine, -1)),
    ]
    names = [*layout.keys, *(f"_was{name}" for name in fine), *fine]
    rows = [(user, *[0] * len(fine), *(fine | changed).values()) for user, (_, changed) in enumerate(cases)]
    moved = spark.createDataFrame(rows, ", ".join(f"`{name}` bigint" for name in names))
    for top in layout.tops:
        moved = moved.withColumns({top: F.lit(None).cast("string"), f"_was{top}": F.lit(None).cast("string")})
    found = delta(layout, moved, day=day).orderBy(*layout.keys).select(IMPOSSIBLE).collect()
    assert [row[0] for row in found] == [named for named, _ in cases]
