"""What a source says about the warehouse it wrote: `raw/_source.json`, and the report of one ingest."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pyspark.sql import SparkSession

from pipeline.sources.hadoop_files import HadoopFiles
from pipeline.sources.raw_layout import raw_folder

SOURCE_FILE = "_source.json"


class SourceTasks(BaseModel):
    """Which tasks a source's logs can teach, before the held-out day's counts have their say.

    Attributes:
        main: the task that the demo's verdict is about.
        tasks: names of the label rules (features/catalog/labels.py), `main` among them.
        esmm: (parent, conversion): the pair whose product is CTCVR.
        conversions_imply_enter: False where the platform lets a user convert without entering.
        max_room_age_days: None where a room is announced once and then lives for as long as the tables.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    main: str
    tasks: tuple[str, ...]
    esmm: tuple[str, str]
    conversions_imply_enter: bool = True
    max_room_age_days: int | None = 7

    @model_validator(mode="after")
    def _names_agree(self) -> SourceTasks:
        strangers = {self.main, *self.esmm} - set(self.tasks)
        if strangers:
            raise ValueError(f"main and esmm name tasks that are not in tasks: {sorted(strangers)}")
        return self


class SourceFacts(BaseModel):
    """Content of `<warehouse>/raw/_source.json`, read by the stages that label and by the report.

    Attributes:
        zone: business time zone in which `dt` and the days of `ts` are counted.
        sampled_scale: exposures were drawn, not logged, so PCOC is on a sampled scale.
        first_day, last_day: days of the logs (snapshots may start a day earlier).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    zone: str
    tasks: SourceTasks
    first_day: dt.date
    last_day: dt.date
    sampled_scale: bool = False
    notes: tuple[str, ...] = Field(default=())


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What one ingest wrote, and what it had to do without.

    Attributes:
        rows: table -> day -> rows written.
        absent_columns: "<file>.<column>" -> what was done instead.
        dropped: why -> input rows left out.
        notes: one sentence each, for people.
    """

    facts: SourceFacts
    rows: Mapping[str, Mapping[dt.date, int]]
    absent_columns: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def source_file(warehouse: str) -> str:
    return f"{raw_folder(warehouse)}/{SOURCE_FILE}"


def write_source_facts(spark: SparkSession, warehouse: str, facts: SourceFacts) -> None:
    """Replaces `raw/_source.json`; call it after the tables, so that it describes what is there."""
    HadoopFiles(spark, warehouse).write_text(source_file(warehouse), facts.model_dump_json(indent=2) + "\n")


def read_source_facts(spark: SparkSession, warehouse: str) -> SourceFacts | None:
    """None for a warehouse filled by its owner's own jobs, without `_source.json`.

    Raises:
        pydantic.ValidationError: the file is there and does not keep this shape.
    """
    files = HadoopFiles(spark, warehouse)
    url = source_file(warehouse)
    return SourceFacts.model_validate_json(files.read_text(url)) if files.exists(url) else None
