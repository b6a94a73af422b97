"""The catalog with other windows, to see what the length of a window costs."""

from __future__ import annotations

import dataclasses

from features.schema import Catalog
from features.spec import Feature, WindowOp


def with_longest(catalog: Catalog, days: int) -> Catalog:
    """The same features with their longest windows made `days` long, and shorter ones cut to it."""
    longest = catalog.max_days()
    features = tuple(_resized(feature, longest, days) for feature in catalog.features)
    sequences = tuple(dataclasses.replace(s, max_age_days=days) for s in catalog.sequences)
    return dataclasses.replace(catalog, features=features, sequences=sequences)


def _resized(feature: Feature, longest: int, days: int) -> Feature:
    if not isinstance(feature.op, WindowOp) or (feature.op.days < days and feature.op.days < longest):
        return feature
    return dataclasses.replace(feature, op=dataclasses.replace(feature.op, days=days))
