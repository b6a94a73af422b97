"""`limelight forget`: a user's rows taken out of everything that was derived.

Steps:
  1. search   every Parquet file of every table with the user's column, in Spark tasks     rows of the user per file
  2. rewrite  each file that a current manifest names, without those rows, one to one       a file of the same order
  3. hashes   of the rows taken out, so that digests stay those of the content              (high, low) per day
     counts   anchors count the user among their users: a delta takes it out of them        a file per day
  4. commit   a new generation of each touched partition; and of each that read one, the same files and the new
              digest of its input, so that nothing reads as stale
  5. delete   the old files and the generations that named them; train sets that hold the user go whole

A crash before 4 leaves files that no manifest names; after it, a second run finds what is left and deletes it.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from features import storage
from features.errors import DataError, HeldError, Problem
from features.manifest import GROUP_COLUMN
from features.spark.ops import ARRIVED, DAY
from features.spark.window_state import state_layout
from features.spec import TILED_ENTITIES
from pipeline.context import Context
from pipeline.forgotten_partners import without_partner_counts
from pipeline.leases import live_holders
from pipeline.manifests import DataFile, PartitionManifest
from pipeline.observed import Keys, keys_of
from pipeline.profile_state import state_of
from pipeline.stages.names import TRAINSETS, profile_table
from pipeline.user_files import USER, rewritten, rows_of_user

RAW = "raw"
RUNS = "runs"
PREDICTIONS = "predictions-"


@dataclass(frozen=True, kw_only=True)
class Held:
    """A file that holds the user: `path` below the table's folder; `rows` None when it cannot be read."""

    table: str
    path: str
    rows: int | None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Where a user is.

    Attributes:
        touched: current manifests that name a file with the user.
        unnamed: files that no current manifest names: superseded, or left by a crash.
        trainsets: names of the train sets whose rows or vocabularies hold the user.
        predictions: URLs of files with predictions for the user's rows, below runs of those train sets.
        raw: "table/partition" → rows, in the user's own tables.
    """

    user: int
    current: Sequence[Held]
    touched: Sequence[PartitionManifest]
    unnamed: Sequence[Held]
    trainsets: Sequence[str]
    predictions: Sequence[str]
    raw: Mapping[str, int]


class Eraser:
    """Finds one user, and takes it out."""

    def __init__(self, context: Context, user: int) -> None:
        self._context, self._warehouse, self._user = context, context.warehouse, user

    def find(self) -> Findings:
        """Search every file.

        Raises:
            DataError: when a file that a current manifest names cannot be read.
        """
        manifests = [manifest for table in self._derived() for manifest in self._current(table)]
        named = {(manifest.table, file.path) for manifest in manifests for file in manifest.files}
        held = self._search(dict.fromkeys(self._derived(), USER))
        current = [found for found in held if (found.table, found.path) in named]
        broken = [f"{found.table}/{found.path}" for found in current if found.rows is None]
        if broken:
            remedy = "Compute its partition again: `limelight backfill --force`"
            raise DataError([Problem(what="files cannot be read", count=len(broken), examples=broken, remedy=remedy)])
        paths = {(found.table, found.path) for found in current}
        trainsets = self._trainsets()
        return Findings(
            user=self._user,
            current=current,
            touched=[m for m in manifests if any((m.table, file.path) in paths for file in m.files)],
            unnamed=[found for found in held if (found.table, found.path) not in named],
            trainsets=trainsets,
            predictions=[url for name in trainsets for url in self._predictions(name)],
            raw=self._raw(),
        )

    def erase(self, found: Findings) -> list[PartitionManifest]:
        """Take the user out of everything that `find` found.

        Returns:
            The new generations: of touched partitions, and of those that read them.

        Raises:
            HeldError: when a live run works in this warehouse; nothing was changed.
        """
        live = {table: holders for table in self._warehouse.tables() if (holders := self._live(table))}
        if live:
            raise HeldError(f"live runs work on {live}: forget rewrites what they read. Try again when they are done")
        attempt = uuid.uuid4().hex[:12]
        replaced = self._rewrite(found.current, attempt)
        manifests = [
            *self._without_user(found, replaced, attempt),
            *without_partner_counts(self._context, self._user),
        ]
        linked = self._linked(manifests)
        with ExitStack() as leases:
            for table in dict.fromkeys(manifest.table for manifest in linked):
                partitions = sorted(manifest.partition for manifest in linked if manifest.table == table)
                leases.enter_context(self._warehouse.lease(table, partitions, f"forget-{attempt}"))
            self._warehouse.commit(linked)
            self._delete(found)
        return linked

    def _derived(self) -> list[str]:
        return [table for table in self._warehouse.tables() if table != TRAINSETS]

    def _current(self, table: str) -> list[PartitionManifest]:
        found = (self._warehouse.manifest(table, partition) for partition in self._warehouse.partitions(table))
        return [manifest for manifest in found if manifest is not None]

    def _live(self, table: str) -> set[str]:
        return live_holders(f"{self._warehouse.table_url(table)}/leases")

    def _search(self, columns: Mapping[str, str]) -> list[Held]:
        """Files of each table that hold the user in its column, or cannot be read."""
        asked = [
            (table, entry.name, entry.url, column)
            for table, column in columns.items()
            for entry in storage.list_files(f"{self._warehouse.url}/{table}", recursive=True)
            if entry.name.endswith(".parquet")
        ]
        user = self._user
        if not asked:
            return []
        spread = self._context.spark.sparkContext.parallelize(asked, min(len(asked), 1000))
        found = spread.map(lambda file: (file[0], file[1], rows_of_user(file[2], file[3], user))).collect()
        return [Held(table=table, path=path, rows=rows) for table, path, rows in found if rows != 0]

    def _trainsets(self) -> list[str]:
        """Train sets with the user's rows, or with the user among their vocabulary's keys."""
        held = self._search({TRAINSETS: GROUP_COLUMN})
        attempts = {found.path.split("/")[1] for found in held}
        names = []
        for manifest in self._current(TRAINSETS):
            vocabulary = f"{self._warehouse.table_url(TRAINSETS)}/data/{manifest.attempt}/vocabularies/user.parquet"
            known = storage.exists(vocabulary) and rows_of_user(vocabulary, "key", self._user)
            if manifest.attempt in attempts or known:
                names.append(manifest.partition.removeprefix("name="))
        return names

    def _predictions(self, trainset: str) -> list[str]:
        files = storage.list_files(f"{self._warehouse.url}/{RUNS}/{trainset}", recursive=True)
        return [entry.url for entry in files if entry.name.rpartition("/")[2].startswith(PREDICTIONS)]

    def _raw(self) -> dict[str, int]:
        tables = storage.list_folders(f"{self._warehouse.url}/{RAW}")
        rows: dict[str, int] = {}
        for held in self._search({f"{RAW}/{table}": USER for table in tables}):
            partition = f"{held.table.removeprefix(f'{RAW}/')}/{held.path.split('/')[0]}"
            rows[partition] = rows.get(partition, 0) + (held.rows or 0)
        return dict(sorted(rows.items()))

    def _rewrite(self, held: Sequence[Held], attempt: str) -> dict[tuple[str, str], tuple[str, int, int]]:
        """(table, path) → path, rows and bytes of the same file without the user, below a new attempt."""
        if not held:
            return {}
        user, asked = self._user, []
        for found in held:
            root = self._warehouse.table_url(found.table)
            target = "/".join(["data", attempt, *found.path.split("/")[1:]])  # its old attempt is part of the new path
            asked.append((found.table, found.path, f"{root}/{found.path}", target, f"{root}/{target}"))
        spread = self._context.spark.sparkContext.parallelize(asked, min(len(asked), 1000))
        written = spread.map(lambda file: (file[0], file[1], file[3], *rewritten(file[2], file[4], user))).collect()
        return {(table, old): (new, rows, size) for table, old, new, rows, size in written}

    def _without_user(
        self, found: Findings, replaced: Mapping[tuple[str, str], tuple[str, int, int]], attempt: str
    ) -> list[PartitionManifest]:
        """The next generation of every touched partition."""
        made = []
        for table, schema in dict.fromkeys((manifest.table, manifest.schema_) for manifest in found.touched):
            touched = [m for m in found.touched if (m.table, m.schema_) == (table, schema)]
            removed = self._removed(table, touched)
            for manifest in touched:
                files = tuple(_in_place_of(file, replaced.get((table, file.path))) for file in manifest.files)
                gone = removed.get(_day(manifest), Keys())
                stored = sum(file.rows for file in files) if manifest.stored_rows is not None else None
                update = {
                    "generation": manifest.generation + 1,
                    "attempt": attempt,
                    "files": files,
                    "rows": manifest.rows - gone.rows,
                    "stored_rows": stored,
                    "digest": (Keys.of_digest(manifest.digest) - gone).digest(),
                    "created_at": datetime.datetime.now(datetime.UTC),
                }
                made.append(manifest.model_copy(update=update))
        return made

    def _removed(self, table: str, touched: Sequence[PartitionManifest]) -> dict[datetime.date, Keys]:
        """Rows of the user on each day, with the sums of their hashes over what the digests of the table are over."""
        context, of_day = self._context, {_day(manifest): manifest for manifest in touched}
        for entity in TILED_ENTITIES:
            if table == profile_table(entity):  # rows of files are layers there: the content is what they add up to
                layout = state_layout(entity, context.catalog)
                rows = state_of(context, entity, of_day)
                return keys_of(rows.where(rows[USER] == self._user), DAY, (*layout.keys, *layout.columns))
        rows = self._warehouse.read_files(context.spark, table, of_day)
        day_column = ARRIVED if table.startswith("tiles_") else "dt"
        return keys_of(rows.where(rows[USER] == self._user), day_column, rows.columns)

    def _linked(self, manifests: Sequence[PartitionManifest]) -> list[PartitionManifest]:
        """The new generations, and those of partitions that read one: their inputs name the new digests."""
        made = {(manifest.table, manifest.partition): manifest for manifest in manifests}
        digests: dict[str, tuple[str, str]] = {}
        for manifest in manifests:
            before = self._warehouse.manifest(manifest.table, manifest.partition)
            assert before is not None
            digests[f"{manifest.table}/{manifest.partition}"] = (before.digest, manifest.digest)
        linked = []
        for manifest in (manifest for table in self._derived() for manifest in self._current(table)):
            # What read another content is stale, and stays so.
            new = {name: digests[name][1] for name, digest in manifest.inputs.items()
                   if name in digests and digests[name][0] == digest}  # fmt: skip
            ours = made.get((manifest.table, manifest.partition))
            if ours is None and new:
                now = datetime.datetime.now(datetime.UTC)
                ours = manifest.model_copy(update={"generation": manifest.generation + 1, "created_at": now})
            if ours is not None:
                linked.append(ours.model_copy(update={"inputs": {**manifest.inputs, **new}}))
        return linked

    def _delete(self, found: Findings) -> None:
        """Old generations first, so that no manifest names a file that is gone; then files, then train sets."""
        lost = {(held.table, held.path) for held in (*found.current, *found.unnamed)}
        for table in self._derived():
            for partition in self._warehouse.partitions(table):
                for entry in self._warehouse.manifest_files(table, partition)[:-1]:
                    manifest = PartitionManifest.model_validate_json(storage.read_bytes(entry.url))
                    if any((table, file.path) in lost for file in manifest.files):
                        storage.delete(entry.url)
        for table, path in sorted(lost):
            storage.delete(f"{self._warehouse.table_url(table)}/{path}")
        for name in found.trainsets:
            for entry in self._warehouse.manifest_files(TRAINSETS, f"name={name}"):
                attempt = PartitionManifest.model_validate_json(storage.read_bytes(entry.url)).attempt
                storage.delete(entry.url)
                storage.delete(f"{self._warehouse.table_url(TRAINSETS)}/data/{attempt}")
        for url in found.predictions:
            storage.delete(url)


def _day(manifest: PartitionManifest) -> datetime.date:
    return datetime.date.fromisoformat(manifest.partition.removeprefix("dt="))


def _in_place_of(file: DataFile, rewritten_to: tuple[str, int, int] | None) -> DataFile:
    """The rewritten file, with what else the manifest says of the old one; the old one when it was not rewritten."""
    if rewritten_to is None:
        return file
    path, rows, size = rewritten_to
    return file.model_copy(update={"path": path, "rows": rows, "bytes": size})
