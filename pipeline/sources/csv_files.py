"""Official CSV layouts read by column name: what is absent becomes null and is reported, what is odd is counted."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from features.errors import DataError, Problem
from pipeline.sources.hadoop_files import HadoopFiles

ENDINGS = (".csv", ".csv.gz")


@dataclass
class CsvFolder:
    """A folder of CSV files (plain or .gz) behind any Hadoop URL.

    Attributes:
        absent: "<file>.<column>" -> what was done instead; filled as tables are read.
    """

    spark: SparkSession
    url: str
    absent: dict[str, str] = field(default_factory=dict)

    def matching(self, stem: str) -> list[str]:
        """URLs of the files `<stem>*.csv` and `<stem>*.csv.gz`, by name."""
        names = [entry.name for entry in HadoopFiles(self.spark, self.url).entries(self.url) if not entry.is_folder]
        fitting = [name for name in names if any(fnmatch.fnmatch(name, f"{stem}*{ending}") for ending in ENDINGS)]
        return [f"{self.url.rstrip('/')}/{name}" for name in fitting]

    def read(self, stem: str, columns: Mapping[str, str], *, required: tuple[str, ...] = ()) -> DataFrame | None:
        """All files of one kind as one table.

        Each file is read by its own header: Spark would take the first file's header for all of them.

        Args:
            columns: wanted column -> Spark SQL type; further columns of the files are left out.
            required: columns without which a file cannot be used.

        Returns:
            Exactly `columns`, values that are not of their type as null; None where there is no such file.

        Raises:
            DataError: a required column is absent from a file.
        """
        files = {url: self.spark.read.csv(url, header=True) for url in self.matching(stem)}
        problems = [
            Problem(what="required column is absent", table=url.rsplit("/", 1)[1], column=name, remedy="Add it.")
            for url, table in files.items()
            for name in required
            if name not in table.columns
        ]
        if problems:
            raise DataError(problems)
        for url, table in files.items():
            for name in columns:
                if name not in table.columns:
                    self.absent[f"{url.rsplit('/', 1)[1]}.{name}"] = "null"
        tables = [
            table.select(*(_typed(table, name, kind) for name, kind in columns.items())) for table in files.values()
        ]
        return reduce(DataFrame.unionByName, tables) if tables else None

    def require(self, stem: str, columns: Mapping[str, str], *, required: tuple[str, ...]) -> DataFrame:
        """As `read`; a folder without such a file stops.

        Raises:
            DataError: no such file, or one without a required column.
        """
        table = self.read(stem, columns, required=required)
        if table is None:
            remedy = f"Put {stem}*.csv or {stem}*.csv.gz there, or name another folder."
            raise DataError([Problem(what=f"no {stem} file in {self.url}", table=stem, remedy=remedy)])
        return table


def _typed(table: DataFrame, name: str, kind: str) -> Column:
    if name not in table.columns:
        return F.lit(None).cast(kind).alias(name)
    if kind in ("bigint", "int"):
        # Exports from pandas write integers beside nulls as 1.0; a double would lose digits of a long id.
        return F.expr(f"try_cast(try_cast(`{name}` AS decimal(22, 3)) AS {kind})").alias(name)
    return F.expr(f"try_cast(`{name}` AS {kind})").alias(name)
