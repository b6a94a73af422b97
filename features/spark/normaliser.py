"""Mean and deviation of each dense feature, from integer sums so that no partitioning changes them."""

from __future__ import annotations

import math

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.manifest import DenseField
from features.schema import Catalog
from features.spec import Dense, Feature

SCALE = 10_000


def normalisers(samples: DataFrame, catalog: Catalog) -> tuple[DenseField, ...]:
    """Fit on the samples of the fit days, one pass; a constant feature gets deviation 1."""
    dense = [feature for feature in catalog.features if isinstance(feature.encoding, Dense)]
    sums: list[Column] = [F.count(F.lit(1)).alias("rows")]
    for feature in dense:
        scaled = F.round(_transformed(feature) * SCALE).cast("decimal(18,0)")
        sums += [F.sum(scaled).alias(f"sum_{feature.name}"), F.sum(scaled * scaled).alias(f"squares_{feature.name}")]
    row = samples.agg(*sums).first()
    assert row is not None
    rows = int(row["rows"]) or 1
    return tuple(
        _field(feature, int(row[f"sum_{feature.name}"] or 0), int(row[f"squares_{feature.name}"] or 0), rows)
        for feature in dense
    )


def _transformed(feature: Feature) -> Column:
    assert isinstance(feature.encoding, Dense)
    value = F.col(feature.name).cast("double")
    return F.log1p(F.greatest(value, F.lit(0.0))) if feature.encoding.transform == "log1p" else value


def _field(feature: Feature, total: int, squares: int, rows: int) -> DenseField:
    assert isinstance(feature.encoding, Dense)
    mean = total / rows / SCALE
    variance = (squares * rows - total * total) / (rows * rows) / (SCALE * SCALE)
    deviation = math.sqrt(variance) if variance > 1e-8 else 1.0
    return DenseField(name=feature.name, transform=feature.encoding.transform, mean=mean, std=deviation)
