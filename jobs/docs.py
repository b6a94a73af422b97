"""What the documentation takes from the code, so that it cannot fall behind: `make docs` writes it, a test compares it.

README.md           between markers: the flow (`pipeline.plan`), the raw tables (`pipeline.sources.raw_layout`)
README.zh-CN.md     the raw tables
docs/features.md    the whole page: features, sequences and labels of the catalog
docs/airflow.md     between markers: both DAGs (`jobs.schedule`)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from pyspark.sql.types import StructField

from features import spec
from features.schema import Catalog, load_catalog
from features.spec import Feature, Label, SequenceFeature
from jobs.schedule import Place, build_schedule, picture
from jobs.schedule_conf import SchedulerConf
from pipeline.plan import flow_picture
from pipeline.sources.raw_layout import RAW_TABLES, RawTable

ROOT = Path(__file__).resolve().parent.parent
README, CHINESE_README = ROOT / "README.md", ROOT / "README.zh-CN.md"
AIRFLOW_PAGE = ROOT / "docs" / "airflow.md"
FEATURES_PAGE = ROOT / "docs" / "features.md"

WORDS: dict[type, str] = {
    spec.Sum: "sum of {measure.name} over {days} d",
    spec.Rate: "({numerator.name} + {prior:g} × {strength:g}) / ({denominator.name} + {strength:g}) over {days} d",
    spec.ActiveDays: "days with {measure.name} among {days} d",
    spec.DaysSinceLast: "days since the last {measure.name} within {days} d",
    spec.DistinctPartners: "distinct partners by {measure.name} over {days} d",
    spec.TopCategory: "category with the most {measure.name} over {days} d",
    spec.OnAir: "milliseconds on air over {days} d, at most {max_session_hours} h a session",
    spec.Snapshot: "{column}",
    spec.SnapshotAge: "days from {column} to D",
    spec.RoomLast: "{column} at the last complete minute of {minutes}",
    spec.RoomSum: "sum of {column} over {minutes} complete minutes",
    spec.RoomField: "{column} as known at the time",
    spec.RoomAge: "whole minutes since the start",
    spec.Field: "{column}",
    spec.HourOfDay: "hour of ts",
    spec.DayOfWeek: "weekday of ts",
    spec.Ids: "ids of `{vocabulary}`, minimum frequency {min_frequency}",
    spec.Buckets: "buckets from {boundaries}",
    spec.Dense: "number, {transform}",
    spec.Vector: "{dim} numbers as they are",
    spec.Position: "additive tower of {size} places, in training only",
}
"""How a declaration reads; names are those of its fields."""


def words(declared: object) -> str:
    """An operation or encoding in a few words.

    Raises:
        KeyError: when it is of a kind that `WORDS` lacks.
    """
    assert is_dataclass(declared)
    values = {field.name: getattr(declared, field.name) for field in fields(declared)}
    if isinstance(declared, spec.Buckets):
        values["boundaries"] = ", ".join(f"{boundary:.12g}" for boundary in declared.boundaries)
    return WORDS[type(declared)].format(**values)


def features_page(catalog: Catalog) -> str:
    """docs/features.md."""
    head = [
        "# Features",
        "",
        "Written by `make docs` from `features/catalog/`; do not edit. Windows are `[D − N, D)`; docs/time.md says",
        "what *as of D*, *snapshot* and *event* let a row see.",
        "",
        f"{len(catalog.features)} features, {len(catalog.sequences)} sequences, {len(catalog.labels)} labels.",
        "",
    ]
    return "\n".join([*head, *_features(catalog.features), *_sequences(catalog.sequences), *_labels(catalog.labels)])


def _features(features: Sequence[Feature]) -> Iterable[str]:
    for entity, group in itertools.groupby(sorted(features, key=lambda f: list(spec.Entity).index(f.entity)), _entity):
        yield from (f"## Per {' × '.join(entity.split('_'))}", "")
        rows = (
            (f"`{f.name}`", _clock(f.op), words(f.op), words(f.encoding), f.dtype.value, _shown(f.default), f.doc)
            for f in group
        )
        yield from _table(("name", "clock", "what it is", "encoded as", "type", "if unknown", "note"), rows)


def _entity(feature: Feature) -> str:
    return feature.entity.value


def _clock(op: spec.Op) -> str:
    if isinstance(op, spec.WindowOp):
        return "as of D"
    if isinstance(op, spec.SnapshotOp):
        return "snapshot"
    return "event" if isinstance(op, spec.RoomOp) else "impression"


def _shown(default: object) -> str:
    if default is None:
        return "zeros"  # of a vector
    return str(default) or "''"


def _sequences(sequences: Sequence[SequenceFeature]) -> Iterable[str]:
    yield from ("## Sequences, newest first", "")
    for s in sequences:
        yield f"**{s.name}**: {s.doc} The last {s.length} `{s.action}` actions, none older than {s.max_age_days} days."
        yield ""
        rows = ((f"`{field.name}`", field.source, words(field.encoding)) for field in s.fields)
        yield from _table(("field", "taken from", "encoded as"), rows)


def _labels(labels: Sequence[Label]) -> Iterable[str]:
    yield from ("## Labels", "")
    rows = ((f"`{label.name}`", label.space, label.parent or "–", label.doc) for label in labels)
    yield from _table(("task", "judged on", "parent", "positive when"), rows)


def flow_block() -> str:
    """The README's picture of the flow."""
    return f"```mermaid\n{flow_picture()}\n```"


def dag_blocks() -> dict[str, str]:
    """Both DAGs of one model, by the last word of their name."""
    nowhere = Place(warehouse="", python="", spark_submit="", root="", properties="", place="")
    schedule = build_schedule(nowhere, SchedulerConf(), ["deepfm"], "UTC")
    return {dag.id.split("_")[1]: f"```mermaid\n{picture(dag.tasks)}\n```" for dag in schedule.dags}


def raw_tables_block() -> str:
    """The README's table of the raw contract; a column that may be null ends in `?`."""
    rows = ((f"`{table.name}`", table.kind, ", ".join(table.key), _columns(table)) for table in RAW_TABLES.values())
    return "\n".join(_table(("table", "kind", "key", "columns"), rows)).rstrip()


def _columns(table: RawTable) -> str:
    groups = itertools.groupby(table.columns.fields, lambda field: field.dataType.simpleString())
    return "; ".join(f"{', '.join(map(_column, group))}: {kind}" for kind, group in groups)


def _column(field: StructField) -> str:
    return f"{field.name}?" if field.nullable else field.name


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def between(text: str, name: str, content: str) -> str:
    """`text` with `content` between the lines `<!-- name -->` and `<!-- /name -->`.

    Raises:
        ValueError: unless both markers stand there exactly once.
    """
    opening, closing = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    if text.count(opening) != 1 or text.count(closing) != 1:
        raise ValueError(f"the markers {opening.strip()} and {closing.strip()} must stand there exactly once")
    before, rest = text.split(opening)
    return f"{before}{opening}{content}{closing}{rest.split(closing)[1]}"


def generated() -> dict[Path, str]:
    """Each file that holds generated text → its content as it should be."""
    readme = README.read_text(encoding="utf-8")
    for name, content in (("flow", flow_block()), ("raw tables", raw_tables_block())):
        readme = between(readme, name, content)
    chinese = between(CHINESE_README.read_text(encoding="utf-8"), "raw tables", raw_tables_block())
    airflow = AIRFLOW_PAGE.read_text(encoding="utf-8")
    for name, picture_of_dag in dag_blocks().items():
        airflow = between(airflow, name, picture_of_dag)
    return {
        README: readme, CHINESE_README: chinese, AIRFLOW_PAGE: airflow, FEATURES_PAGE: features_page(load_catalog()),
    }  # fmt: skip


def main() -> None:
    """Write them."""
    for path, content in generated().items():
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
