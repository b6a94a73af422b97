"""A day whose columns are some of those that the catalog wants: the others are added, and it is as if made whole.

The world was computed whole, with the catalog of this installation. A copy of it is brought to a catalog that lacks
some of its columns and has others in their place, and then back: content must be that of the world again.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.errors import DataError
from features.schema import KEY_COLUMNS, Catalog, load_catalog
from features.spec import SHARES, DaysSinceLast, Entity, Feature, OnAir, Sum, TopCategory
from pipeline.context import Context
from pipeline.manifests import PartitionManifest, day_partition
from pipeline.profile_state import read_features
from pipeline.stages import profiles, recent, samples, tiles
from pipeline.stages.names import ACTION_TILES, RECENT_ACTIONS, SAMPLES
from pipeline.stale import find_stale, in_lines, rebuild
from tests.small_world import SAMPLE_DAYS, TILE_DAYS, compute, context_of, digests
from tests.warehouse_files import manifests

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

FIRST, SECOND = SAMPLE_DAYS
CATALOG = load_catalog()


def context_with(spark: SparkSession, warehouse: Path, catalog: Catalog) -> Context:
    return replace(context_of(spark, warehouse), catalog=catalog)


def without(names: Collection[str], *changed: Feature) -> Catalog:
    """The catalog without some columns, and with other features in place of those of the same name."""
    others = {feature.name: feature for feature in changed}
    columns = [name for name in CATALOG.sample_meanings() if name not in names]
    rest = CATALOG.only([*columns, *KEY_COLUMNS])
    return replace(rest, features=tuple(others.get(feature.name, feature) for feature in rest.features))


def cut_samples(context: Context) -> None:
    """Samples with the columns of the context's catalog alone, and manifests that say so."""
    stored = context.warehouse.require(SAMPLES, SAMPLE_DAYS)
    inputs = {day: samples.inputs_of(context, day) for day in SAMPLE_DAYS}
    standing = {day: context.standing(manifest, inputs[day]) for day, manifest in stored.items()}
    names = [column.name for column in context.catalog.sample_columns()]
    rows = context.warehouse.read_days(context.spark, SAMPLES, SAMPLE_DAYS).select(*names)
    context.warehouse.write_days(rows, SAMPLES, SAMPLE_DAYS, context.provenance(SAMPLES, inputs, standing))


def written_anew(before: Mapping[str, PartitionManifest], after: Mapping[str, PartitionManifest]) -> set[str]:
    """Tables of which a partition has another generation."""
    return {after[name].table for name in after if before[name].generation != after[name].generation}


def test_new_windows_are_added_to_the_states_that_need_them_and_to_the_samples(
    spark: SparkSession, world: Path, tmp_path: Path
) -> None:
    """From a carried day and one made in bulk; one feature of another meaning is computed in both directions."""
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    shutil.rmtree(copy / "profiles_user" / "manifests" / day_partition(SECOND))
    profiles.run(context_of(spark, copy), [SECOND])
    assert manifests(copy)[f"profiles_user/dt={SECOND}"].carried_from == day_partition(FIRST)
    since = next(feature for feature in CATALOG.features if feature.name == "user_days_since_enter")
    assert isinstance(since.op, DaysSinceLast)
    new = {"user_comments_30d", "user_active_days_30d", "user_anchors_30d", "user_top_category_30d"}
    new |= {"user_gifts_30d", "user_category_gift_coins_30d", "anchor_on_air_ms_7d"}
    fewer = without(new, replace(since, op=replace(since.op, days=14), default=15))

    before = manifests(copy)
    compute(context_with(spark, copy, fewer))
    narrow = manifests(copy)
    states = {"profiles_user", "profiles_user_category", "profiles_anchor"}
    assert written_anew(before, narrow) == {*states, SAMPLES}
    assert {name for name, _ in narrow[f"{SAMPLES}/dt={FIRST}"].schema_}.isdisjoint(new)
    state = {name for name, _ in narrow[f"profiles_user/dt={SECOND}"].schema_}
    assert {"_last_enters_14", "_sum_gifts_30"} <= state, "gifts are kept for a rate"
    assert {"_last_enters_30", "_sum_comments_30", "_top_watch_ms_30"}.isdisjoint(state)

    plan = find_stale(context_of(spark, copy))
    assert {entry.table for entry in plan.partitions} == {*states, SAMPLES}
    assert all(entry.keeps_columns for entry in plan.partitions)
    (line,) = (line for line in in_lines(plan) if line.table == "profiles_user_category")
    assert (line.count, line.reasons) == (2, ("new: _sum_gift_coins_30; 7 are kept",))
    told: list[str] = []
    rebuild(context_of(spark, copy), plan, told.append)
    assert any(text.startswith("samples: 2 days, new: user_gifts_30d, user_comments_30d, ") for text in told)
    assert digests(copy) == digests(world)
    after = manifests(copy)
    assert written_anew(narrow, after) == {*states, SAMPLES}
    assert after[f"{SAMPLES}/dt={FIRST}"].counts == before[f"{SAMPLES}/dt={FIRST}"].counts
    assert find_stale(context_of(spark, copy)).partitions == ()


def test_what_is_no_window_is_added_without_the_profiles(spark: SparkSession, world: Path, tmp_path: Path) -> None:
    """Fields of impression, room and user; a sequence of another action; all labels, for there is one more."""
    copy = Path(shutil.copytree(world, tmp_path / "copy"))
    new = {"hour", "scene", "user_city", "anchor_signed_days", "room_content", "room_viewers", "watched_category"}
    watched, _ = without(new).sequences
    fewer = replace(without(new), sequences=(watched,), labels=CATALOG.labels[:-1])

    before = manifests(copy)
    tiles.run(context_with(spark, copy, fewer), TILE_DAYS)
    recent.run(context_with(spark, copy, fewer), SAMPLE_DAYS)
    cut_samples(context_with(spark, copy, fewer))
    narrow = manifests(copy)
    assert written_anew(before, narrow) == {ACTION_TILES, RECENT_ACTIONS, SAMPLES}
    plan = find_stale(context_of(spark, copy))
    assert all(entry.keeps_columns for entry in plan.partitions if entry.table != RECENT_ACTIONS)
    lines = {line.table: (line.count, line.reasons[0]) for line in in_lines(plan)}
    assert list(lines) == [ACTION_TILES, RECENT_ACTIONS, SAMPLES]
    assert lines[ACTION_TILES] == (len(TILE_DAYS), "new: gift; 1 are kept")
    assert [line.count for line in in_lines(plan) if line.table == SAMPLES] == [1, 1], "they wait for other tiles"
    rebuild(context_of(spark, copy), plan, lambda _: None)
    assert digests(copy) == digests(world)
    after = manifests(copy)
    for day in SAMPLE_DAYS:
        now, was = after[f"{SAMPLES}/dt={day}"], before[f"{SAMPLES}/dt={day}"]
        assert (now.counts, now.inputs, now.schema_) == (was.counts, was.inputs, was.schema_)
        assert now.same_rows_as == (narrow[f"{SAMPLES}/dt={day}"].digest, was.digest)


def test_a_longer_window_brings_keys_so_its_state_is_made_whole(spark: SparkSession, world: Path) -> None:
    since = next(feature for feature in CATALOG.features if feature.name == "user_days_since_enter")
    assert isinstance(since.op, DaysSinceLast)
    longer = replace(CATALOG, features=(*CATALOG.features, replace(since, name="new", op=replace(since.op, days=60))))
    plan = find_stale(context_with(spark, world, longer))
    whole = {entry.table for entry in plan.partitions if not entry.keeps_columns}
    assert whole == {"profiles_user"}
    (told,) = (line.reasons for line in in_lines(plan) if line.table == SAMPLES)
    assert told == ("new: new; 108 are kept", "profiles_user of the same day will be rebuilt")


def test_a_state_that_no_feature_wants_any_more_is_not_stale(spark: SparkSession, world: Path) -> None:
    by_category = {feature.name for feature in CATALOG.of_entity(Entity.USER_CATEGORY)}
    tops = {feature.name for feature in CATALOG.features if isinstance(feature.op, TopCategory)}
    airs = {feature.name for feature in CATALOG.features if isinstance(feature.op, OnAir)}
    plan = find_stale(context_with(spark, world, without(by_category | tops | airs)))
    assert {line.table for line in in_lines(plan)} == {"profiles_user", "profiles_anchor", SAMPLES}
    assert {entry.table for entry in plan.partitions if entry.keeps_columns} == {"profiles_user", SAMPLES}


def test_reading_state_that_lacks_columns_says_so(spark: SparkSession, world: Path) -> None:
    shares = next(feature for feature in CATALOG.features if feature.name == "user_shares_30d")
    new = replace(shares, name="new", op=Sum(measure=SHARES, days=3))
    more = replace(CATALOG, features=(*CATALOG.features, new))
    with pytest.raises(DataError, match=r"lacks columns that the catalog wants \(1\); e\.g\. _sum_shares_3\. `lime"):
        read_features(context_with(spark, world, more), Entity.USER, SAMPLE_DAYS)
