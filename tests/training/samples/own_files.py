"""Samples as somebody else would have them: strings and integers, lists, a vector, two labels, a weight, a group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features import manifest as m

SCHEMA = """
columns:
  item: {role: categorical, min_frequency: 2}
  country: {role: categorical}
  device: {role: categorical, hash: 7}
  price: {role: dense, transform: log1p}
  age: {role: dense, missing: 30}
  bought: {role: sequence, of: item, length: 4}
  picture: {role: vector, dim: 3}
  click: {role: label}
  buy: {role: label, given: click}
  buy_known: {role: mask, of: buy}
  importance: {role: weight}
  person: {role: group}
  note: {role: ignore}
"""


def rows(count: int, seed: int) -> pa.Table:
    """Clicks follow the item and the price, so that there is something to learn."""
    random = np.random.default_rng(seed)
    item = random.integers(0, 30, count)
    price = random.gamma(2.0, 10.0, count)
    logit = (item % 5) - 2 + 0.02 * (price - 20)
    click = random.random(count) < 1 / (1 + np.exp(-logit))
    bought = [random.integers(0, 30, length).tolist() for length in random.integers(0, 7, count)]
    return pa.table(
        {
            "item": pa.array(item, pa.int32()),
            "country": pa.array([None if draw == 0 else f"c{draw}" for draw in random.integers(0, 5, count)]),
            "device": pa.array([f"d{draw}" for draw in random.integers(0, 50, count)]),
            "price": pa.array(price),
            "age": pa.array([None if draw < 20 else int(draw) for draw in random.integers(15, 70, count)], pa.int16()),
            "bought": pa.array(bought, pa.list_(pa.int64())),
            "picture": pa.array(random.normal(size=(count, 3)).tolist(), pa.list_(pa.float64())),
            "click": pa.array(click),
            "buy": pa.array((random.random(count) < 0.4).astype(np.int8)),
            "buy_known": pa.array((random.random(count) < 0.9).astype(np.int8)),
            "importance": pa.array(random.choice([0.5, 1.0, 2.0], count)),
            "person": pa.array([f"p{draw}" for draw in random.integers(0, 40, count)]),
            "note": pa.array(["free text"] * count),
        }
    )


def write(folder: Path, *, train: int = 3000, valid: int = 800, test: int = 700) -> dict[m.SplitName, str]:
    """Split → folder with its files, the schema beside them in schema.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.yaml").write_text(SCHEMA)
    found: dict[m.SplitName, str] = {}
    counts: dict[m.SplitName, int] = {"train": train, "valid": valid, "test": test}
    for number, (split, count) in enumerate(counts.items()):
        (folder / split).mkdir()
        table = rows(count, number)
        half = count // 2
        pq.write_table(table.slice(0, half), folder / split / "a.parquet")
        pq.write_table(table.slice(half), folder / split / "b.parquet", row_group_size=100)
        found[split] = str(folder / split)
    return found
