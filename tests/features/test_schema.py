"""The catalog as a column table, and the lock file that a reviewer reads."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from features.errors import CatalogError
from features.schema import (
    KEY_COLUMNS,
    LOCK_FILE,
    Catalog,
    bucket_count,
    bucket_vocabulary,
    label_name,
    load_catalog,
    lock_text,
    mask_name,
    sequence_name,
)
from features.spec import (
    ENTERS,
    TILED_ENTITIES,
    Buckets,
    Dense,
    DType,
    Entity,
    Feature,
    Ids,
    Label,
    RoomField,
    SequenceFeature,
    SequenceField,
    Snapshot,
    Sum,
    WindowOp,
)

CITY = Feature(
    name="user_city",
    entity=Entity.USER,
    op=Snapshot(column="city"),
    dtype=DType.STRING,
    encoding=Ids(vocabulary="city", min_frequency=5),
    default="",
    doc="City.",
)
ENTERED = Feature(
    name="enters",
    entity=Entity.ANCHOR,
    op=Sum(measure=ENTERS, days=7),
    dtype=DType.BIGINT,
    encoding=Dense(),
    default=0,
    doc="Enters.",
)
WATCHED = SequenceFeature(
    name="watched",
    action="watch",
    length=3,
    max_age_days=9,
    fields=(SequenceField(name="anchor", source="anchor_id", encoding=Ids(vocabulary="anchor")),),
    doc="Watched.",
)
GIFT = Label(name="gift", space="entered", action="gift", parent="enter")
ENTER = Label(name="enter", space="impressions", action="enter")


def test_the_lock_file_is_up_to_date() -> None:
    assert LOCK_FILE.read_text(encoding="utf-8") == lock_text(load_catalog()), (
        "the catalog changed: run `python -m features.schema` and read the diff of features/catalog.lock.json"
    )


def test_the_lock_names_every_declaration() -> None:
    catalog, lock = load_catalog(), json.loads(LOCK_FILE.read_text(encoding="utf-8"))
    assert list(lock["features"]) == [feature.name for feature in catalog.features]
    assert list(lock["sequences"]) == [sequence.name for sequence in catalog.sequences]
    assert list(lock["labels"]) == [label.name for label in catalog.labels]
    assert lock["fingerprint"] == catalog.fingerprint()


def test_our_catalog_is_as_large_as_promised() -> None:
    catalog = load_catalog()
    assert len(catalog.features) >= 40
    assert {feature.days for entity in TILED_ENTITIES for feature in catalog.windows(entity)} >= {1, 7, 30}
    assert catalog.max_days() == 30
    position = catalog.position()
    assert position is not None
    assert position.entity is Entity.IMPRESSION


def test_all_contradictions_are_named_at_once() -> None:
    twin = replace(ENTERED, encoding=Ids(vocabulary="city", min_frequency=2))
    with pytest.raises(CatalogError) as stopped:
        Catalog(features=(CITY, ENTERED, twin), sequences=(), labels=(GIFT,))
    message = str(stopped.value)
    assert "feature name 'enters' is taken" in message
    assert "vocabulary 'city' is declared with minimum frequencies [2, 5]" in message
    assert "label 'gift' has the unknown parent 'enter'" in message


@pytest.mark.parametrize("name", sorted(set(KEY_COLUMNS) - {"user_id", "anchor_id"}))
def test_key_columns_are_no_feature_names(name: str) -> None:
    with pytest.raises(CatalogError, match=f"feature name '{name}' is taken"):
        Catalog(features=(replace(ENTERED, name=name),), sequences=(), labels=())


def test_a_sequence_field_takes_its_name() -> None:
    with pytest.raises(CatalogError, match="feature name 'watched_anchor' is taken"):
        Catalog(features=(replace(ENTERED, name="watched_anchor"),), sequences=(WATCHED,), labels=())


def test_sample_columns_are_keys_features_sequences_labels() -> None:
    catalog = Catalog(features=(CITY, ENTERED), sequences=(WATCHED,), labels=(ENTER, GIFT))
    columns = [(column.name, column.sql_type) for column in catalog.sample_columns()]
    assert columns == [
        *KEY_COLUMNS.items(),
        ("user_city", "string"),
        ("enters", "bigint"),
        (sequence_name("watched", "anchor"), "array<bigint>"),
        (label_name("enter"), "int"),
        (mask_name("enter"), "int"),
        (label_name("gift"), "int"),
        (mask_name("gift"), "int"),
    ]


def test_no_sample_column_comes_twice() -> None:
    names = [column.name for column in load_catalog().sample_columns()]
    assert len(names) == len(set(names))


def test_every_window_is_found_under_its_entity() -> None:
    catalog = load_catalog()
    windows = [feature for entity in TILED_ENTITIES for feature in catalog.windows(entity)]
    assert {f.name for f in windows} == {f.name for f in catalog.features if isinstance(f.op, WindowOp)}


def test_shared_vocabularies_are_listed_once_and_buckets_not_at_all() -> None:
    aged = replace(ENTERED, name="age", encoding=Buckets(boundaries=(1, 2)))
    catalog = Catalog(features=(CITY, replace(CITY, name="anchor_city"), aged), sequences=(WATCHED,), labels=())
    assert catalog.vocabularies() == {"city": 5, "anchor": 1}
    assert bucket_vocabulary("age") not in catalog.vocabularies()


def test_ids_of_buckets_are_padding_oov_and_one_per_bucket() -> None:
    assert bucket_count(Buckets(boundaries=(0, 10))) == 2 + 3


def test_the_fingerprint_follows_meaning_and_order() -> None:
    catalog = Catalog(features=(CITY, ENTERED), sequences=(WATCHED,), labels=(ENTER,))
    reworded = replace(catalog, features=(replace(CITY, doc="Town."), ENTERED))
    longer = replace(catalog, features=(CITY, replace(ENTERED, op=Sum(measure=ENTERS, days=8))))
    assert reworded.fingerprint() == catalog.fingerprint()
    assert longer.fingerprint() != catalog.fingerprint()
    assert replace(catalog, features=(ENTERED, CITY)).fingerprint() != catalog.fingerprint()


def changed_meanings(new: Catalog) -> set[str]:
    """Columns of the samples of the catalog, or of another one, that do not mean the same in both."""
    before, after = load_catalog().sample_meanings(), new.sample_meanings()
    return {name for name in before | after if before.get(name) != after.get(name)}


def with_features(*features: Feature) -> Catalog:
    """The catalog with these in place of those of the same name, and further ones at its end."""
    named = {feature.name: feature for feature in (*load_catalog().features, *features)}
    return replace(load_catalog(), features=tuple(named.values()))


def test_meanings_are_those_of_the_columns_in_their_order() -> None:
    catalog = load_catalog()
    columns = [column.name for column in catalog.sample_columns() if column.name not in KEY_COLUMNS]
    assert list(catalog.sample_meanings()) == columns


def test_a_column_means_what_its_declaration_computes_whatever_encodes_it() -> None:
    city = next(feature for feature in load_catalog().features if feature.name == "user_city")
    assert changed_meanings(with_features(replace(city, encoding=Ids(vocabulary="town"), doc="Town."))) == set()
    assert changed_meanings(with_features(replace(city, default="nowhere"))) == {"user_city"}
    assert changed_meanings(with_features(replace(city, name="user_town"))) == {"user_town"}


def test_fields_of_rooms_are_decided_together_and_with_them_what_is_keyed_by_one() -> None:
    tags = Feature(
        name="room_language",
        entity=Entity.ROOM,
        op=RoomField(column="language"),
        dtype=DType.STRING,
        encoding=Ids(vocabulary="language"),
        default="",
        doc="Of a test.",
    )
    by_category = {feature.name for feature in load_catalog().of_entity(Entity.USER_CATEGORY)}
    assert len(by_category) > 5
    assert changed_meanings(with_features(tags)) == {"room_language", "category", "room_content"} | by_category


def test_labels_are_decided_together() -> None:
    catalog = load_catalog()
    tasks = {name for label in catalog.labels for name in (label_name(label.name), mask_name(label.name))}
    assert changed_meanings(replace(catalog, labels=catalog.labels[:-1])) == tasks


def test_a_catalog_is_cut_down_to_columns() -> None:
    catalog = load_catalog()
    wanted = ["user_city", "watched_age", label_name("gift")]
    part = catalog.only(wanted)
    assert [feature.name for feature in part.features] == ["user_city"]
    assert [(s.name, [field.name for field in s.fields]) for s in part.sequences] == [("watched", ["age"])]
    assert part.labels == catalog.labels
    assert part.sample_meanings().items() <= catalog.sample_meanings().items()
    nothing = catalog.only(())
    assert (nothing.features, nothing.sequences, nothing.labels, nothing.max_days()) == ((), (), (), 0)


def test_keys_of_profiles_are_keys_of_samples_or_fields_of_the_room() -> None:
    catalog = load_catalog()
    assert [catalog.key_column(key) for key in Entity.USER_CATEGORY.keys] == ["user_id", "category"]
    with pytest.raises(CatalogError, match=r"declare a feature of Entity\.ROOM"):
        catalog.only(["user_city"]).key_column("category")
