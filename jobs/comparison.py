"""What a comparison of models says: compare.json, a table to read, a picture; the best of each column marked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from features.manifest import Frozen
from jobs.choice_charts import comparison_picture

COMPARE_FILE, TABLE_FILE, PICTURE_FILE = "compare.json", "compare.md", "compare.svg"
FIGURES = ("auc", "gauc", "logloss", "pcoc")
COLUMNS = (*FIGURES, "parameters", "rows_per_second")
HIGHER = ("auc", "gauc", "rows_per_second")

Figures = Mapping[str, float | int | None]


class ComparedModel(Frozen):
    """One model.

    Attributes:
        model: its name in training/models; several confs may be of one.
        parameters, embedding_parameters: all numbers that are learnt, and those of the embedding table among them.
        rows_per_second: of the training steps, over all ranks; None where it went on after an interruption at its end.
        calibration: isotonic, platt, or None.
        metrics: split → task → figures.
    """

    model: str
    parameters: int
    embedding_parameters: int
    rows_per_second: float | None
    ranks: int
    epochs: int
    best_epoch: int | None
    calibration: str | None
    metrics: Mapping[str, Mapping[str, Figures]]

    def figure(self, split: str, task: str, column: str) -> float | None:
        """A figure of `COLUMNS`, None where it is undefined."""
        if column in FIGURES:
            return self.metrics[split][task].get(column)
        value: float | None = getattr(self, column)
        return value


class Comparison(Frozen):
    """compare.json.

    Attributes:
        models: name of the conf → what came of it.
        left_out: name → why it cannot be trained on these samples.
        failed: name → how its training ended.
    """

    models: Mapping[str, ComparedModel]
    left_out: Mapping[str, str] = Field(default_factory=dict)
    failed: Mapping[str, str] = Field(default_factory=dict)

    def places(self) -> list[tuple[str, str]]:
        """(split, task) that any model was judged on, in the order of the files."""
        found: dict[tuple[str, str], None] = {}
        for split in ("train", "valid", "test"):
            for model in self.models.values():
                found |= dict.fromkeys((split, task) for task in model.metrics.get(split, {}))
        return list(found)

    def judged(self, split: str, task: str) -> dict[str, ComparedModel]:
        """Models that have figures there."""
        return {name: model for name, model in self.models.items() if task in model.metrics.get(split, {})}

    def comparable(self, split: str, task: str) -> bool:
        """Whether all were judged on as many rows: a calibrated one is judged on half of valid."""
        return len({model.metrics[split][task].get("rows") for model in self.judged(split, task).values()}) == 1

    def best(self, split: str, task: str, column: str) -> set[str]:
        """The best of a column, all that are equal: highest AUC, GAUC, rows/s; lowest logloss and parameters; PCOC
        nearest to 1 by ratio. None where there is nothing to choose from, or models saw different rows."""
        known = {n: v for n, m in self.judged(split, task).items() if (v := m.figure(split, task, column)) is not None}
        if len(known) < 2 or (column in FIGURES and not self.comparable(split, task)):
            return set()
        ranks = {name: _rank(column, value) for name, value in known.items()}
        return {name for name, rank in ranks.items() if rank == min(ranks.values())}

    def write(self, folder: Path) -> None:
        """compare.json, compare.md, compare.svg."""
        best = {
            split: {
                task: {column: sorted(self.best(split, task, column)) for column in COLUMNS}
                for of_split, task in self.places()
                if of_split == split
            }
            for split, _ in self.places()
        }
        document = self.model_dump(mode="json") | {"best": best}
        (folder / COMPARE_FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (folder / TABLE_FILE).write_text(self.markdown(), encoding="utf-8")
        split = self.places()[-1][0]
        panels = {
            task: {
                name: {column: model.figure(split, task, column) for column in COLUMNS}
                for name, model in self.judged(split, task).items()
            }
            for of_split, task in self.places()
            if of_split == split
        }
        (folder / PICTURE_FILE).write_text(comparison_picture(split, panels, best[split]), encoding="utf-8")

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Cells of the table, the best ones between `**`; models of a split and task by falling AUC."""
        for split, task in self.places():
            judged = self.judged(split, task)
            order = sorted(judged, key=lambda name: -(judged[name].figure(split, task, "auc") or 0.0))
            best = {column: self.best(split, task, column) for column in COLUMNS}
            for name in order:
                cells = {column: shown(column, judged[name].figure(split, task, column)) for column in COLUMNS}
                marked = [f"**{cell}**" if name in best[column] else cell for column, cell in cells.items()]
                yield split, task, name, *marked, f"{judged[name].metrics[split][task].get('rows') or 0:,}"

    def notes(self) -> list[str]:
        """What the table does not say."""
        said = [f"{name} was left out: {why}" for name, why in self.left_out.items()]
        said += [f"{name} failed: {why}" for name, why in self.failed.items()]
        for split, task in self.places():
            if not self.comparable(split, task):
                said.append(
                    f"{split} {task}: models were judged on different rows (a calibrated one on half of valid), so no "
                    "figure is marked; compare on test"
                )
        return said

    def markdown(self) -> str:
        """compare.md."""
        head = ("split", "task", "model", "AUC", "GAUC", "logloss", "PCOC", "parameters", "rows/s", "rows")
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * 3 + "---:|" * 7]
        lines += [f"| {' | '.join(row)} |" for row in self.rows()]
        told = [f"- {note}".replace("\n", " ") for note in self.notes()]
        return "\n".join([*lines, "", *told, *([""] if told else [])])

    def table(self) -> Table:
        """The same for a terminal, 80 columns wide if names are short: a block per split and task."""
        table = Table("model", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for name in ("AUC", "GAUC", "logloss", "PCOC", "parameters", "rows/s", "rows"):
            table.add_column(name, justify="right", no_wrap=True)
        block: tuple[str, ...] = ()
        for split, task, *cells in self.rows():
            if (split, task) != block:
                block = (split, task)
                table.add_section()
                table.add_row(Text(f"{split} · {task}", style="bold"))
            table.add_row(*(_cell(cell) for cell in cells))
        return table


def _rank(column: str, value: float) -> float:
    """Lower is better."""
    if column == "pcoc":
        return abs(math.log(value)) if value > 0 else math.inf
    return -value if column in HIGHER else value


def shown(column: str, value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return "–"
    return f"{value:.4f}" if column in FIGURES else f"{value:,.0f}"


def _cell(cell: str) -> Text:
    return Text(cell.strip("*") + "*", style="bold green") if cell.startswith("**") else Text(cell)
