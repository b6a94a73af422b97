"""Thresholds and sizes of the audit."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import Section


class ProbeConf(Section):
    """When a single feature knows too much of a label; the statistics are in `probe_statistics.py`.

    Attributes:
        max_auc: a feature that ranks a label this well alone is suspected.
        lone_auc, lone_margin: so is one from `lone_auc` on that is `lone_margin` better than every other feature.
        min_class_rows: rows of each class without which a label is not checkable.
        min_purity: share of the rarer class from which on a region of values is looked at.
        max_odds_ratio: how many times the odds of the surroundings an honest region may reach.
        alpha: chance of one false alarm over all regions of all features and labels, by Bonferroni.
        min_region_rows, max_region_share: sizes of a region.
    """

    max_auc: float = Field(default=0.95, gt=0.5, le=1)
    lone_auc: float = Field(default=0.85, gt=0.5, le=1)
    lone_margin: float = Field(default=0.15, gt=0, le=0.5)
    min_class_rows: int = Field(default=20, ge=2)
    min_purity: float = Field(default=0.9, gt=0.5, le=1)
    max_odds_ratio: float = Field(default=5.0, ge=1)
    alpha: float = Field(default=1e-3, gt=0, lt=1)
    min_region_rows: int = Field(default=16, ge=4)
    max_region_share: float = Field(default=0.05, gt=0, le=0.5)
    folds: int = Field(default=5, ge=2, le=100)


class AuditConf(Section):
    """What `limelight audit` looks at.

    Attributes:
        rows: cutoffs and probe look at all rows of a set up to this size, at as many chosen by a hash of a larger one.
        recompute_rows: rows that are computed again. A leak that touches a share p of the rows is missed with
            chance (1 − p) ** recompute_rows: 2e-9 for p = 1 % and 2,000 rows.
        recount_keys: keys per vocabulary that are counted again.
        mutation_users: users whose logs are copied for the mutation trial.
    """

    rows: int = Field(default=1_000_000, ge=1_000)
    recompute_rows: int = Field(default=2_000, ge=10)
    recount_keys: int = Field(default=20_000, ge=10)
    mutation_users: int = Field(default=500, ge=1)
    probe: ProbeConf = ProbeConf()
