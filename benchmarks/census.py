"""Census-Income (KDD): two tasks of one person, as in section 6.2 of the MMoE paper, by `limelight fit`.

    python -m benchmarks.census SOURCE OUT      splits, schema.yaml and <model>.yaml, for docs/census.md

data/census-income.data.gz → shuffled once; 1/8 to test, 1/8 of the rest to valid, the others to train
  labels  income: over 50,000; never_married: marital status is "Never married"
  not read: marital_stat, income_50k, and instance_weight, which is no property of a person
  numbers of few values (age, weeks worked, …) are read twice: as numbers, and as ids
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import yaml

from benchmarks.known_truth import Training
from jobs.console import Steps
from jobs.fit import FitOptions, fit

DATA_FILE, COLUMNS_FILE = "census-income.data.gz", "columns.txt"
TASKS = ("income", "never_married")
MODELS = ("shared_bottom", "mmoe", "ple")
DROPPED = ("marital_stat", "income_50k", "instance_weight")
AMOUNTS = ("wage_per_hour", "capital_gains", "capital_losses", "stock_dividends")
COUNTS = ("age", "num_emp", "weeks_worked")
SHUFFLED_BY = 2026
SHARE = 8
SETTINGS: Mapping[str, Any] = {
    "batch_size": 512,
    "epochs": 12,
    "early_stopping": {"task": "income", "metric": "auc", "patience": 2},
}
LAYERS: Mapping[str, Mapping[str, Any]] = {
    "shared_bottom": {"bottom_hidden": [128], "tower_hidden": [32]},
    "mmoe": {"experts": 8, "expert_hidden": [64], "tower_hidden": [32]},
    "ple": {"layers": 1, "task_experts": 4, "shared_experts": 4, "expert_hidden": [64], "tower_hidden": [32]},
}


@dataclass(frozen=True, kw_only=True)
class Census:
    """Folders of the splits, and the schema beside them."""

    root: Path

    @property
    def schema(self) -> Path:
        """The schema file."""
        return self.root / "schema.yaml"

    def split(self, name: str) -> str:
        """A split's Parquet file."""
        return str(self.root / f"{name}.parquet")


def prepare(source: Path, root: Path) -> Census:
    """Write splits and schema, once.

    Args:
        source: folder of census-income.data.gz and columns.txt.
    """
    made = Census(root=root)
    if made.schema.is_file():
        return made
    root.mkdir(parents=True, exist_ok=True)
    rows = _read(source)
    order = np.random.default_rng(SHUFFLED_BY).permutation(len(rows))
    held_out = len(rows) // SHARE
    valid = (len(rows) - held_out) // SHARE
    parts = {"test": order[:held_out], "valid": order[held_out : held_out + valid], "train": order[held_out + valid :]}
    for name, places in parts.items():
        pq.write_table(rows.take(pa.array(places)), made.split(name))
    made.schema.write_text(yaml.safe_dump({"columns": _roles(rows)}, sort_keys=False), encoding="utf-8")
    return made


def _read(source: Path) -> pa.Table:
    names = (source / COLUMNS_FILE).read_text(encoding="utf-8").split()
    with gzip.open(source / DATA_FILE) as stream:
        parsing = pa.csv.ParseOptions(delimiter=",")
        as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        raw = pa.csv.read_csv(stream, pa.csv.ReadOptions(column_names=names), parsing, as_text)
    rows = {name: pc.utf8_trim_whitespace(raw[name]) for name in names}
    labels = {
        "income": pc.equal(rows["income_50k"], "50000+."),
        "never_married": pc.equal(rows["marital_stat"], "Never married"),
    }
    kept = {name: column for name, column in rows.items() if name not in DROPPED}
    numbers = {name: kept[name].cast(pa.float64()) for name in (*AMOUNTS, *COUNTS)}
    ids = {f"{name}_id": kept[name] for name in (*AMOUNTS, *COUNTS)}
    return pa.table(kept | numbers | ids | {name: label.cast(pa.int8()) for name, label in labels.items()})


def _roles(rows: pa.Table) -> dict[str, dict[str, Any]]:
    def role(name: str) -> dict[str, Any]:
        if name in TASKS:
            return {"role": "label"}
        if name in COUNTS:
            return {"role": "dense"}
        return (
            {"role": "dense", "transform": "log1p"} if name in AMOUNTS else {"role": "categorical", "min_frequency": 5}
        )

    return {name: role(name) for name in rows.column_names}


def measure(census: Census, out: Path, seeds: Sequence[int], told: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Model → task → AUC on test: mean and every seed's; the epoch is chosen on valid."""
    found: dict[str, dict[str, Any]] = {}
    for name in MODELS:
        by_seed = [_one(census, name, seed, out) for seed in seeds]
        found[name] = {
            task: {"mean": statistics.fmean(aucs[task] for aucs in by_seed), "seeds": [aucs[task] for aucs in by_seed]}
            for task in TASKS
        }
        told(f"{name}: " + ", ".join(f"{task} {found[name][task]['mean']:.4f}" for task in TASKS))
    return found


def settings_of(name: str, seed: int) -> dict[str, Any]:
    """A model's training conf: as in conf/models, with layers and epochs for this table."""
    return Training(name=name, model=name, layers=LAYERS[name], settings=SETTINGS, seed=seed).values


def _one(census: Census, name: str, seed: int, out: Path) -> dict[str, float]:
    conf = out / f"{name}-{seed}.yaml"
    out.mkdir(parents=True, exist_ok=True)
    conf.write_text(yaml.safe_dump(settings_of(name, seed)), encoding="utf-8")
    options = FitOptions(
        train=census.split("train"),
        valid=census.split("valid"),
        test=census.split("test"),
        schema=census.schema,
        model=name,
        conf=conf,
        out=out / f"{name}-{seed}",
        ranks=1,
    )
    metrics = fit(options, Steps())
    return {task: metrics["test"][task]["auc"] for task in TASKS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what `limelight fit` needs."""
    parser = argparse.ArgumentParser(prog="census", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of census-income.data.gz and columns.txt")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=int, default=1, help="of the trainings")
    options = parser.parse_args(arguments)
    if missing := [name for name in (DATA_FILE, COLUMNS_FILE) if not (options.source / name).is_file()]:
        parser.error(f"{options.source} lacks {' and '.join(missing)}")
    made = prepare(options.source, options.out)
    for name in MODELS:
        text = yaml.safe_dump(settings_of(name, options.seed), sort_keys=False)
        (options.out / f"{name}.yaml").write_text(text, encoding="utf-8")
    for split in ("train", "valid", "test"):
        print(f"{made.split(split)}: {pq.read_metadata(made.split(split)).num_rows:,} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
