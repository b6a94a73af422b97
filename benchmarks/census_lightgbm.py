"""LightGBM on the census splits, in .venv-parity: `python -m benchmarks.census_lightgbm FOLDER`; prints JSON.

Per task every setting of a small grid is trained on train, stopped early and chosen on valid, and judged on test.
Strings are its own categorical columns; numbers are taken once, as numbers.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import lightgbm
import pandas as pd
import yaml
from sklearn.metrics import roc_auc_score

GRID = {"num_leaves": (15, 31, 63), "learning_rate": (0.05, 0.02), "feature_fraction": (0.5, 0.9)}
ROUNDS, PATIENCE = 3000, 50
FIXED = {"objective": "binary", "metric": "auc", "num_threads": 2, "seed": 0, "min_data_in_leaf": 50, "verbosity": -1}


def load(folder: Path) -> tuple[dict[str, pd.DataFrame], dict[str, list[str]]]:
    """Split → rows, strings as categories known from train; role → columns."""
    columns: dict[str, dict[str, Any]] = yaml.safe_load((folder / "schema.yaml").read_text(encoding="utf-8"))["columns"]
    by_role: dict[str, list[str]] = {}
    for name, role in columns.items():
        twice = name.endswith("_id") and name.removesuffix("_id") in columns
        by_role.setdefault("again" if twice else role["role"], []).append(name)
    splits = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "valid", "test")}
    for name in by_role["categorical"]:
        kind = pd.CategoricalDtype(sorted(splits["train"][name].unique()))
        for split in splits.values():
            split[name] = split[name].astype(kind)
    return splits, by_role


def best_of(splits: dict[str, pd.DataFrame], inputs: list[str], task: str) -> dict[str, Any]:
    """The setting with the best AUC on valid: its AUC on test, and what it was."""
    found: list[dict[str, Any]] = []
    for values in itertools.product(*GRID.values()):
        setting = dict(zip(GRID, values, strict=True))
        train = lightgbm.Dataset(splits["train"][inputs], splits["train"][task])
        valid = lightgbm.Dataset(splits["valid"][inputs], splits["valid"][task], reference=train)
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        booster = lightgbm.train(FIXED | setting, train, ROUNDS, valid_sets=[valid], callbacks=[stop])
        scores = booster.predict(splits["test"][inputs])
        found.append(
            {
                "valid": booster.best_score["valid_0"]["auc"],
                "test": float(roc_auc_score(splits["test"][task], scores)),
                "setting": setting,
                "rounds": booster.best_iteration,
            }
        )
        print(f"{task} {setting}: valid {found[-1]['valid']:.4f}", file=sys.stderr)
    return max(found, key=lambda one: one["valid"])


def main(folder: Path) -> None:
    """Judge both tasks."""
    splits, by_role = load(folder)
    inputs = by_role["categorical"] + by_role["dense"]
    print(json.dumps({task: best_of(splits, inputs, task) for task in by_role["label"]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
