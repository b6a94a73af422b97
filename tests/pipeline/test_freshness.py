"""What stands of a partition when its inputs, code, conf, keys or columns are others."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

import pytest

from pipeline.freshness import KEYS_CHANGED, Making, Standing, compare
from pipeline.manifests import PartitionManifest
from pipeline.meanings import KEYS

INPUTS = {"profiles_user/dt=2025-03-04": "p1", "raw/actions/dt=2025-03-04": "r1"}
MADE = Making(code="c1", conf="t1", meanings={"age": "a1", "gifts": "g1", "label": "l1"})


def manifest(
    table: str = "samples", *, inputs: Mapping[str, str] | None = None, meanings: Mapping[str, str] | None = None
) -> PartitionManifest:
    return PartitionManifest(
        table=table,
        partition="dt=2025-03-04",
        generation=1,
        attempt="x",
        files=(),
        rows=0,
        digest="d1",
        schema=(),
        inputs=INPUTS if inputs is None else inputs,
        code="c1",
        conf="t1",
        meanings=MADE.meanings if meanings is None else meanings,
        same_rows_as=("d0",),
        created_at=datetime.datetime.now(datetime.UTC),
    )


def now(
    found: PartitionManifest,
    meanings: Mapping[str, str] | None = None,
    *,
    inputs: Mapping[str, str] | None = None,
    code: str = "c1",
    conf: str = "t1",
) -> Standing:
    """Compared with what it would be made of now; of inputs only the profiles were widened, from p1."""
    making = Making(code=code, conf=conf, meanings=dict(MADE.meanings if meanings is None else meanings))
    widened = {("profiles_user/dt=2025-03-04", "p1")}
    return compare(found, INPUTS if inputs is None else inputs, making, lambda *asked: asked in widened)


def test_the_same_is_fresh() -> None:
    standing = now(manifest())
    assert standing.is_fresh
    assert not standing.is_partial
    assert standing.like == ("d1", "d0")


def test_columns_that_came_went_or_changed_are_told_and_the_others_stand() -> None:
    standing = now(manifest(), {"likes": "k1", "age": "a2", "gifts": "g1"})
    assert standing.is_partial
    assert (standing.kept, standing.computed) == (("gifts",), ("likes", "age"))
    assert standing.told() == "new: likes; changed: age; gone: label; 1 are kept"


def test_another_order_keeps_all_columns_and_is_not_fresh() -> None:
    standing = now(manifest(), {"gifts": "g1", "age": "a1", "label": "l1"})
    assert standing.is_partial
    assert (standing.kept, standing.computed) == (("gifts", "age", "label"), ())
    assert "all 3 columns are kept" in standing.told()


@pytest.mark.parametrize("what", ["code", "conf time", "raw/actions/dt=2025-03-04"])
def test_nothing_stands_when_what_all_columns_are_made_by_is_another(what: str) -> None:
    others = {
        "code": now(manifest(), {**MADE.meanings, "likes": "k1"}, code="c2"),
        "conf time": now(manifest(), conf="t2"),
        "raw/actions/dt=2025-03-04": now(manifest(), inputs={**INPUTS, "raw/actions/dt=2025-03-04": "r2"}),
    }
    standing = others[what]
    assert not standing.is_partial
    assert not standing.is_fresh
    assert what in {change.what for change in standing.whole}


def test_an_input_that_was_widened_is_the_one_that_was_read() -> None:
    widened = {**INPUTS, "profiles_user/dt=2025-03-04": "p2"}
    standing = now(manifest(), {**MADE.meanings, "likes": "k1"}, inputs=widened)
    assert standing.is_partial
    assert standing.computed == ("likes",)
    only_widened = now(manifest(), inputs=widened)
    assert only_widened.is_partial, "its manifest has to name the input that is there"


def test_an_input_that_came_for_new_columns_alone_takes_nothing_from_the_others() -> None:
    more = {**MADE.meanings, "likes": "k1"}
    for_new_columns = {**INPUTS, "profiles_anchor/dt=2025-03-04": "p3", "raw/users/dt=2025-03-03": "r3"}
    assert now(manifest(), more, inputs=for_new_columns).is_partial
    assert now(manifest(), inputs=for_new_columns).whole, "without a new column nothing explains it"
    fewer = {"age": "a1", "gifts": "g1"}
    without = {name: digest for name, digest in INPUTS.items() if not name.startswith("profiles")}
    assert now(manifest(), fewer, inputs=without).is_partial
    assert now(manifest(), more, inputs=without).whole, "what no column went for is lost"
    # Room stats are read for whichever columns there are: that they had none and have some changes values.
    assert now(manifest(), more, inputs={**INPUTS, "raw/room_stats/dt=2025-03-03": "r4"}).whole
    # And another day of a table that was read is another content.
    assert now(manifest(), more, inputs={**INPUTS, "profiles_user/dt=2025-03-03": "p4"}).whole


def test_other_keys_and_tables_without_parts_stand_or_fall_whole() -> None:
    state = manifest("profiles_user", meanings={KEYS: "k1", "_tiles_30": "t", "_sum_gifts_7": "g"})
    longer = now(state, {KEYS: "k2", "_tiles_60": "t", "_sum_gifts_7": "g"})
    assert [change.what for change in longer.whole] == [KEYS_CHANGED]
    on_air = now(manifest("tiles_on_air", meanings={"ms_24h": "24"}), {"ms_24h": "24", "ms_12h": "12"})
    assert [(change.what, change.was) for change in on_air.whole] == [("catalog: ms_12h", None)]
    recent = now(manifest("tiles_actions", meanings={"watch": "w1"}), {"watch": "w1", "gift": "g1"})
    assert recent.is_partial


def test_nothing_in_common_is_nothing_to_keep() -> None:
    assert now(manifest(), {"likes": "k1"}).whole
    assert now(manifest(meanings={}), {"likes": "k1"}).whole, "an older manifest says nothing of its columns"
