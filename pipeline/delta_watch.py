"""What is seen of a delta while it is written: how it changes the content digest, and whether its state can be.

A delta holds changes; its border checks are about the state that they lead to, which is there in the same pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from pyspark.sql import DataFrame, Observation, Window
from pyspark.sql import functions as F

from features.errors import MAX_EXAMPLES
from features.spark.carried import BESIDE, HIGH, IMPOSSIBLE, LOW, ROWS
from pipeline.border import CarriedSeen
from pipeline.checks import DaySeen, Impossible
from pipeline.footers import Span
from pipeline.observed import Keys

TOUCHED, BORN, ODD = "touched", "born", "odd"


class DeltaWatch:
    """Watches the rows of `features.spark.carried.delta`; `rows` are what to write of them."""

    def __init__(self, delta: DataFrame, keys: Sequence[str]) -> None:
        self._delta, self._keys, self._observation = delta, tuple(keys), Observation()
        sums = {name: F.sum(name) for name in (ROWS, HIGH, LOW)} | {BORN: F.sum(F.greatest(ROWS, F.lit(0)))}
        self.rows = delta.observe(
            self._observation,
            *(F.coalesce(value, F.lit(0)).alias(name) for name, value in sums.items()),
            F.count(F.lit(1)).alias(TOUCHED),
            F.count_if(F.col(IMPOSSIBLE) != "").alias(ODD),
        ).drop(*BESIDE)

    def change(self) -> Keys:
        """What the delta adds to the digest of what lies below; after the write, as all that follows."""
        seen = self._observation.get
        return Keys(rows=int(seen[ROWS]), high=int(seen[HIGH]), low=int(seen[LOW]))

    def seen(self, rows: int, spans: Mapping[str, Span]) -> DaySeen:
        """What the border checks judge of a day with so many rows.

        Args:
            spans: of the files written: nulls of the changes. Their range says nothing of the state.
        """
        seen = self._observation.get
        born = int(seen[BORN])
        return DaySeen(
            rows=rows,
            spans={name: Span(nulls=span.nulls) for name, span in spans.items()},
            histograms={},
            carried=CarriedSeen(touched=int(seen[TOUCHED]), born=born, died=born - int(seen[ROWS])),
            impossible=self._impossible() if seen[ODD] else (),
        )

    def _impossible(self) -> list[Impossible]:
        """Which columns, how often, and of which keys: computes the delta again, as only a corrupted state needs it."""
        key = F.concat_ws(", ", *(F.concat(F.lit(f"{name}="), F.col(name)) for name in self._keys))
        # Kept, for Spark infers constraints from a filter for as many combinations of columns as it finds below.
        looked_at = self._delta.select(IMPOSSIBLE, key.alias("key")).persist()
        named = looked_at.where(F.col(IMPOSSIBLE) != "").select(
            F.explode(F.split(IMPOSSIBLE, ",")).alias("column"), "key"
        )
        of_column = Window.partitionBy("column")
        counted = named.withColumn("keys", F.count(F.lit(1)).over(of_column))
        numbered = counted.withColumn("place", F.row_number().over(of_column.orderBy("key")))
        shown = numbered.where(F.col("place") <= MAX_EXAMPLES).orderBy("column", "place").collect()
        looked_at.unpersist()
        return [
            Impossible(column=column, keys=rows[0]["keys"], examples=tuple(row["key"] for row in rows))
            for column, rows in ((name, [*group]) for name, group in groupby(shown, key=lambda row: str(row["column"])))
        ]
