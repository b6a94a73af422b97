"""What every stage of one run shares: session, tables, raw input, catalog, conf."""

from __future__ import annotations

import datetime
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import Traversable
from importlib.resources import files
from typing import TYPE_CHECKING

from features.schema import Catalog
from pipeline.checks import BorderRules
from pipeline.config import PipelineConf, day_range
from pipeline.freshness import Making, Standing, compare
from pipeline.manifests import PartitionManifest, Provenance, day_partition
from pipeline.meanings import meanings
from pipeline.raw_input import RawInput
from pipeline.tables import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What decides the content of rows; the rest of the code may change without making a table stale.
COMPUTING = (
    "features/spark",
    "features/spec.py",
    "features/schema.py",
    "pipeline/stages",
    "pipeline/profile_state",
    "pipeline/recent_state",
    "pipeline/raw_",
)
ONE_DAY = datetime.timedelta(days=1)


@functools.cache
def code_fingerprint() -> str:
    """Changes when any source file of COMPUTING changes; a zip of the same code has the same."""
    digest = hashlib.sha256()
    for package in ("features", "pipeline"):
        for path, source in sorted(_sources(files(package), package)):
            if path.startswith(COMPUTING):
                digest.update(source)
    return digest.hexdigest()[:16]


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    """Path and content of every Python file below a folder, which may lie in a zip."""
    for entry in folder.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            yield from _sources(entry, path)
        elif entry.name.endswith(".py"):
            yield path, entry.read_bytes()


@dataclass(frozen=True, kw_only=True)
class Context:
    """One run.

    Attributes:
        force: compute also what is up to date.
        report: told in a few words what is being done.
    """

    spark: SparkSession
    warehouse: Warehouse
    raw: RawInput
    catalog: Catalog
    conf: PipelineConf
    source: str = "unknown"
    force: bool = False
    report: Callable[[str], None] = field(default=lambda _: None)

    def conf_fingerprint(self) -> str:
        """Of what conf says of the meaning of rows: the rules of time."""
        return hashlib.sha256(self.conf.time.model_dump_json().encode()).hexdigest()[:16]

    def making(self, table: str) -> Making:
        """What the rows of a table are made by and of, now."""
        meaning = meanings(table, self.catalog)
        return Making(code=code_fingerprint(), conf=self.conf_fingerprint(), meanings=meaning)

    def raw_days(self, table: str, first: datetime.date, last: datetime.date) -> list[datetime.date]:
        """Days of a raw table from first to last, without those before its history begins."""
        return self.raw.listing.since_history(table, day_range(first, last))

    def raw_inputs(self, table: str, first: datetime.date, last: datetime.date) -> dict[str, str]:
        """Input partitions of a raw table with the digests of their listing."""
        digests = self.raw.listing.digests(table, self.raw_days(table, first, last))
        return {f"raw/{partition}": digest for partition, digest in digests.items()}

    def first_raw_day(self, table: str) -> datetime.date | None:
        """Where the history of a raw table begins."""
        return self.raw.listing.first_day(table)

    def first_room_day(self, cutoff: datetime.date) -> datetime.date:
        """The first arrival day of rooms that counts for a cutoff."""
        age = self.conf.time.max_room_age_days
        return (self.first_raw_day("rooms") or cutoff) if age is None else cutoff - ONE_DAY * age

    def derived_inputs(self, table: str, days: Iterable[datetime.date]) -> dict[str, str]:
        """Input partitions of a derived table with their content digests; days never computed are absent."""
        found = {day: self.warehouse.manifest(table, day_partition(day)) for day in days}
        return {f"{table}/{day_partition(day)}": manifest.digest for day, manifest in found.items() if manifest}

    def standing(self, manifest: PartitionManifest, inputs: Mapping[str, str]) -> Standing:
        """What stands of a committed partition, given its inputs of now."""
        return compare(manifest, inputs, self.making(manifest.table), self._keeps_rows_of)

    def _keeps_rows_of(self, name: str, digest: str) -> bool:
        """Whether a derived partition kept the columns of an earlier content."""
        manifest = self.warehouse.manifest(*name.rsplit("/", 1)) if not name.startswith("raw/") else None
        return manifest is not None and digest in manifest.same_rows_as

    def is_fresh(self, table: str, day: datetime.date, inputs: Mapping[str, str]) -> bool:
        """Whether a partition was computed from exactly these inputs by this code, conf and catalog."""
        manifest = self.warehouse.manifest(table, day_partition(day))
        return manifest is not None and not self.force and self.standing(manifest, inputs).is_fresh

    def stale_days(self, table: str, inputs: Mapping[datetime.date, Mapping[str, str]]) -> list[datetime.date]:
        """Days that have to be computed."""
        return [day for day, its_inputs in inputs.items() if not self.is_fresh(table, day, its_inputs)]

    def partly_standing(
        self, table: str, inputs: Mapping[datetime.date, Mapping[str, str]]
    ) -> list[dict[datetime.date, Standing]]:
        """Of stale days those that keep columns, in groups that have the same ones and lack the same ones."""
        groups: dict[object, dict[datetime.date, Standing]] = {}
        for day, its_inputs in inputs.items():
            manifest = self.warehouse.manifest(table, day_partition(day))
            if manifest is None or self.force:
                continue
            standing = self.standing(manifest, its_inputs)
            if standing.is_partial:
                groups.setdefault((manifest.schema_, standing.kept), {})[day] = standing
        return list(groups.values())

    def provenance(
        self,
        table: str,
        inputs: Mapping[datetime.date, Mapping[str, str]],
        kept_of: Mapping[datetime.date, Standing] | None = None,
    ) -> Provenance:
        """For the manifests of what is computed from these inputs, and from columns that stand."""
        making = self.making(table)
        return Provenance(
            inputs=inputs,
            code=making.code,
            conf=making.conf,
            meanings=making.meanings,
            same_rows_as={day: standing.like for day, standing in (kept_of or {}).items()},
            border=BorderRules(catalog=self.catalog, conf=self.conf.checks),
        )


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage did: rows per table and day are in the manifests."""

    computed: Sequence[datetime.date]
    skipped: Sequence[datetime.date]
    rows: int
    counts: Mapping[str, int] = field(default_factory=dict)


def summarise(
    manifests: Iterable[PartitionManifest], computed: Sequence[datetime.date], skipped: Sequence[datetime.date]
) -> StageResult:
    """Rows and counts added up over partitions."""
    rows = 0
    counts: dict[str, int] = {}
    for manifest in manifests:
        rows += manifest.rows
        for name, value in manifest.counts.items():
            counts[name] = counts.get(name, 0) + value
    return StageResult(computed=tuple(computed), skipped=tuple(skipped), rows=rows, counts=counts)
