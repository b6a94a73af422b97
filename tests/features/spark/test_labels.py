"""Label rules one by one, then everything at once against the naive oracle."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from features.schema import Catalog, load_catalog
from features.spark.labels import CONVERSION_WITHOUT_ENTER, flag_columns, labels
from features.spec import Label
from tests.features.random_logs import LogShape, RawLogs, many_logs, to_spark
from tests.features.spark.test_sequences import SHUFFLE_PARTITIONS, Rows, by_impression
from tests.oracle.labels import LabelRules, expected_labels

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAY = dt.date(2024, 3, 5)
NOON = dt.datetime(2024, 3, 5, 12)
USUAL = LabelRules(label_delay_days=2, attribution_hours=24, conversions_imply_enter=True)

Action = tuple[str, float, float, int | None]
"""action, seconds after noon, value, days late (None: names no impression, in time)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What was done after an impression shown at noon, and what must come of it; unnamed columns are free."""

    name: str
    done: tuple[Action, ...]
    expected: dict[str, int]
    room_ends_s: float | None = None


def watch(*rows: tuple[float, float]) -> tuple[Action, ...]:
    return (("enter", 1, 1.0, 0), *(("watch", end, seconds, 0) for end, seconds in rows))


def judged(task: str, label: int | None, **flags: int) -> dict[str, int]:
    """label None: masked."""
    return {f"label_{task}": label or 0, f"mask_{task}": int(label is not None)} | flags


RULES = (
    Rule(name="nothing happened", done=(), expected=judged("enter", 0) | judged("watch", None) | judged("gift", None)),
    Rule(name="entered", done=watch(), expected=judged("enter", 1) | judged("gift", 0)),
    Rule(name="no watch row", done=watch(), expected=judged("watch", None, flag_watch_missing=1)),
    Rule(name="30 s", done=watch((40, 30.0)), expected=judged("watch", 1, flag_watch_between=0)),
    Rule(name="29.999 s", done=watch((40, 29.999)), expected=judged("watch", None, flag_watch_between=1)),
    Rule(name="2 s", done=watch((4, 2.0)), expected=judged("watch", 0, flag_watch_between=0)),
    Rule(name="2.001 s", done=watch((4, 2.001)), expected=judged("watch", None, flag_watch_between=1)),
    Rule(name="two watches are summed", done=watch((40, 16.0), (80, 15.0)), expected=judged("watch", 1)),
    Rule(name="two short watches", done=watch((4, 1.0), (8, 1.0)), expected=judged("watch", 0)),
    Rule(
        name="short, and ended by the room",
        done=watch((100, 1.0)),
        room_ends_s=100,
        expected=judged("watch", None, flag_watch_cut_off=1, flag_watch_between=0),
    ),
    Rule(
        name="within the slack of the room's end",
        done=watch((99, 1.0)),
        room_ends_s=100,
        expected=judged("watch", None, flag_watch_cut_off=1),
    ),
    Rule(name="left before the room ended", done=watch((98.9, 1.0)), room_ends_s=100, expected=judged("watch", 0)),
    Rule(
        name="long, and ended by the room",
        done=watch((100, 90.0)),
        room_ends_s=100,
        expected=judged("watch", 1, flag_watch_cut_off=0),
    ),
    Rule(
        name="watched 10 s when the window closed",
        done=watch((24 * 3600 + 100, 110.0)),
        expected=judged("watch", None, flag_watch_cut_off=1),
    ),
    Rule(name="watched 30 s when the window closed", done=watch((24 * 3600 + 70, 100.0)), expected=judged("watch", 1)),
    Rule(
        name="watched only after the window closed",
        done=watch((24 * 3600 + 100, 100.0)),
        expected=judged("watch", None, flag_watch_missing=1),
    ),
    Rule(name="gift", done=(*watch((40, 30.0)), ("gift", 9, 5.0, 0)), expected=judged("gift", 1) | judged("follow", 0)),
    Rule(name="at the window's end", done=(*watch(), ("gift", 24 * 3600, 5.0, 0)), expected=judged("gift", 0)),
    Rule(name="just in the window", done=(*watch(), ("gift", 24 * 3600 - 1, 5.0, 0)), expected=judged("gift", 1)),
    Rule(name="before the impression", done=(("enter", -0.001, 1.0, 0),), expected=judged("enter", 0)),
    Rule(name="at the impression", done=(("enter", 0, 1.0, 0),), expected=judged("enter", 1)),
    Rule(name="arrived in time", done=(*watch(), ("gift", 9, 5.0, 2)), expected=judged("gift", 1)),
    Rule(name="arrived too late", done=(*watch(), ("gift", 9, 5.0, 3)), expected=judged("gift", 0)),
    Rule(name="names no impression", done=(("enter", 5, 1.0, None),), expected=judged("enter", 1)),
    Rule(name="orphan at the impression", done=(("enter", 0, 1.0, None),), expected=judged("enter", 1)),
    Rule(name="orphan before it", done=(("enter", -0.001, 1.0, None),), expected=judged("enter", 0)),
    Rule(name="orphan after the window", done=(("enter", 24 * 3600, 1.0, None),), expected=judged("enter", 0)),
)
CONVERSIONS = (
    (True, judged("enter", 1) | judged("gift", 1) | judged("follow", 0) | judged("watch", None)),
    (False, judged("enter", 0) | judged("gift", None) | judged("follow", None) | judged("watch", None)),
)


def table_of(rules: tuple[Rule, ...]) -> RawLogs:
    """Rule i is impression i + 1 of user i + 1 in room i + 1."""
    impressions: list[dict[str, Any]] = []
    actions: list[dict[str, Any]] = []
    rooms: list[dict[str, Any]] = []
    for number, rule in enumerate(rules, start=1):
        keys = {"user_id": number, "anchor_id": 1, "room_id": number}
        context = {"scene": "feed", "device": "phone", "position": 0}
        impressions.append({"impression_id": number, **keys, "ts": NOON, **context, "dt": DAY})
        for action, after, value, late in rule.done:
            ts = NOON + dt.timedelta(seconds=after)
            arrived = ts.date() if late is None else DAY + dt.timedelta(days=max(late, (ts.date() - DAY).days))
            row = {"action_id": len(actions), "impression_id": None if late is None else number, **keys}
            actions.append({**row, "ts": ts, "action": action, "value": value, "dt": arrived})
        room = {"room_id": number, "anchor_id": 1, "started_at": NOON - dt.timedelta(hours=1), "category": "music"}
        ended = None if rule.room_ends_s is None else NOON + dt.timedelta(seconds=rule.room_ends_s)
        rooms.append({**room, "ended_at": ended, "tags": [], "content": None, "dt": DAY})
    frames = {"impressions": impressions, "actions": actions, "rooms": rooms}
    typed = {name: pd.DataFrame(rows) for name, rows in frames.items()}
    typed["actions"]["impression_id"] = typed["actions"]["impression_id"].astype("Int64")
    typed["rooms"]["ended_at"] = pd.to_datetime(typed["rooms"]["ended_at"])
    return typed


def compute(
    spark: SparkSession, logs: RawLogs, rules: LabelRules, *, catalog: Catalog | None = None, **options: Any
) -> Rows:
    tables = to_spark(spark, logs)
    found = labels(
        catalog or load_catalog(),
        tables["impressions"],
        tables["actions"],
        tables["rooms"],
        **dataclasses.asdict(rules),
        **options,
    )
    return by_impression(found)


@pytest.mark.spark
def test_rules(spark: SparkSession) -> None:
    found = compute(spark, table_of(RULES), USUAL)
    wrong = {
        rule.name: {name: row[name] for name in rule.expected}
        for rule, row in zip(RULES, (found[number] for number in sorted(found)), strict=True)
        if not rule.expected.items() <= row.items()
    }
    assert wrong == {}


@pytest.mark.spark
@pytest.mark.parametrize(("imply", "expected"), CONVERSIONS)
def test_conversion_without_enter(spark: SparkSession, imply: bool, expected: dict[str, int]) -> None:
    rules = (Rule(name="a gift alone", done=(("gift", 9, 5.0, 0),), expected=expected),)
    row = compute(spark, table_of(rules), dataclasses.replace(USUAL, conversions_imply_enter=imply))[1]
    assert expected.items() <= row.items()
    assert row[CONVERSION_WITHOUT_ENTER] == 1


def other_tasks() -> Catalog:
    """The catalog, and tasks of the kinds that it has none of."""
    catalog = load_catalog()
    more = (
        Label(name="shown_gift", space="impressions", action="gift"),
        Label(name="rich", space="entered", action="gift", parent="enter", positive_from=100.0, negative_to=10.0),
        Label(name="long", space="impressions", action="watch", positive_from=60.0),
    )
    return dataclasses.replace(catalog, labels=(*catalog.labels, *more))


@pytest.fixture(scope="module")
def logs() -> RawLogs:
    return many_logs(range(40, 52), LogShape(users=3, rooms=3))


@pytest.mark.spark
@pytest.mark.parametrize(
    "rules", [USUAL, LabelRules(label_delay_days=1, attribution_hours=30, conversions_imply_enter=False)]
)
def test_labels_equal_the_oracle(spark: SparkSession, logs: RawLogs, rules: LabelRules) -> None:
    expected = expected_labels(other_tasks(), logs, rules)
    assert compute(spark, logs, rules, catalog=other_tasks()) == expected
    counts = pd.DataFrame.from_dict(expected, orient="index").sum()
    assert (counts[[*flag_columns(load_catalog()), "label_rich", "flag_rich_between", "label_long"]] > 0).all()


@pytest.mark.spark
def test_an_end_that_arrived_too_long_before_is_forgotten(spark: SparkSession, logs: RawLogs) -> None:
    forgetful = dataclasses.replace(USUAL, max_room_age_days=0)
    expected = expected_labels(load_catalog(), logs, forgetful)
    assert compute(spark, logs, forgetful) == expected
    assert expected != expected_labels(load_catalog(), logs, USUAL)


@pytest.mark.spark
def test_a_day_alone_equals_the_day_in_bulk_whatever_the_partitions(spark: SparkSession, logs: RawLogs) -> None:
    day = LogShape().first_day + dt.timedelta(days=3)
    delay = dt.timedelta(days=USUAL.label_delay_days)
    until_mature = {name: frame[frame["dt"] <= day + delay] for name, frame in logs.items()}
    before = spark.conf.get(SHUFFLE_PARTITIONS)
    try:
        spark.conf.set(SHUFFLE_PARTITIONS, "1")
        bulk = compute(spark, logs, USUAL)
        spark.conf.set(SHUFFLE_PARTITIONS, "7")
        alone = compute(spark, until_mature, USUAL, days=[day])
    finally:
        spark.conf.set(SHUFFLE_PARTITIONS, before or "4")
    assert alone
    assert alone == {impression: bulk[impression] for impression in alone}
