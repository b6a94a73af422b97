"""What a search came to: trials.json, a table of the best ten, a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from features.manifest import Frozen
from jobs.search_charts import Judged, search_picture
from jobs.study import SearchedTrial

TRIALS_FILE, TABLE_FILE, PICTURE_FILE = "trials.json", "trials.md", "trials.svg"
TOP = 10


class SearchReport(Frozen):
    """trials.json.

    Attributes:
        task, metric: what trials were judged by, on the valid split.
        wanted: trials that were asked for.
        best: the number of the best complete trial; None where none is complete.
        importance: key → its share, see jobs/study.py.
        test: task → figures of the best trial on test, which had no part in choosing it; None without a test split,
            and while the search goes on.
    """

    model: str
    task: str
    metric: str
    lower_is_better: bool
    seed: int
    wanted: int
    trials: tuple[SearchedTrial, ...]
    best: int | None
    importance: Mapping[str, float]
    test: Mapping[str, Mapping[str, float | int | None]] | None = None

    def top(self) -> list[SearchedTrial]:
        """The best complete trials, the best one first; of equal ones the earlier."""
        sign = 1 if self.lower_is_better else -1
        complete = [(sign * trial.value, trial.number) for trial in self.trials if trial.value is not None]
        return [self.trials[number] for _, number in sorted(complete)[:TOP]]

    def counts(self) -> str:
        """How many trials ended how."""
        states = [trial.state for trial in self.trials]
        return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))

    def said_of_best(self) -> str:
        """The best trial's figure."""
        value = None if self.best is None else self.trials[self.best].value
        return "no trial is complete" if value is None else f"{self.metric} of {self.task} on valid {value:.4f}"

    def whys(self) -> str:
        """Why trials failed or diverged."""
        return "; ".join(f"trial {trial.number}: {trial.why}" for trial in self.trials if trial.why) or self.counts()

    def write(self, folder: Path) -> None:
        """trials.json, trials.md, trials.svg."""
        text = json.dumps(self.model_dump(mode="json"), indent=1) + "\n"
        (folder / TRIALS_FILE).write_text(text, encoding="utf-8")
        (folder / TABLE_FILE).write_text(self.markdown(), encoding="utf-8")
        judged = [
            Judged(number=trial.number, value=last, complete=trial.state == "complete")
            for trial in self.trials
            if trial.judged and (last := self._last(trial)) is not None
        ]
        if judged:
            title = f"{self.metric} of {self.task} on valid"
            chart = search_picture(title, judged, self.importance, lower_is_better=self.lower_is_better)
            (folder / PICTURE_FILE).write_text(chart, encoding="utf-8")

    @staticmethod
    def _last(trial: SearchedTrial) -> float | None:
        if trial.value is not None:
            return trial.value
        return trial.epochs[max(trial.epochs)] if trial.epochs else None

    def _head(self) -> list[str]:
        keys = dict.fromkeys(key for trial in self.trials for key in trial.values)
        return ["trial", self.metric, *keys, "epochs", "seconds"]

    def _rows(self) -> list[list[str]]:
        keys = self._head()[2:-2]
        return [
            [
                str(trial.number),
                f"{trial.value:.4f}",
                *(_cell(trial.values.get(key)) for key in keys),
                str(len(trial.epochs)),
                "–" if trial.seconds is None else f"{trial.seconds:.1f}",
            ]
            for trial in self.top()
        ]

    def notes(self) -> list[str]:
        """What the table does not say."""
        said = [f"{len(self.trials)} trials: {self.counts()}"]
        if self.importance:
            shares = sorted(self.importance.items(), key=lambda pair: -pair[1])
            said.append("importance: " + ", ".join(f"{key} {share:.2f}" for key, share in shares))
        said += [f"trial {trial.number} {trial.state}: {trial.why}" for trial in self.trials if trial.why]
        for task, figures in (self.test or {}).items():
            shown = ", ".join(f"{n} {figures[n]:.4f}" for n in ("auc", "logloss", "pcoc") if figures[n] is not None)
            said.append(f"trial {self.best} on test, judged once and not chosen by: {task} {shown}")
        return said

    def markdown(self) -> str:
        """trials.md."""
        head = self._head()
        lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
        lines += [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in self._rows()]
        return "\n".join([*lines, "", *(f"- {note}".replace("\n", " ") for note in self.notes()), ""])

    def table(self) -> Table:
        """The best trials for a terminal."""
        title = f"{self.metric} of {self.task} on valid"
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title=title, title_justify="left")
        first, figure, *keys, epochs, seconds = self._head()
        for name in (first, figure, *shortest(keys), epochs, seconds):
            table.add_column(name.replace(".", ".\n"), justify="right", overflow="fold")
        for row in self._rows():
            table.add_row(*map(escape, row))
        return table


def shortest(keys: Sequence[str]) -> list[str]:
    """Dotted keys by as few of their last parts as tell them apart."""
    parts = {key: key.split(".") for key in keys}
    found = []
    for key, own in parts.items():
        others = [other for name, other in parts.items() if name != key]
        size = next(n for n in range(1, len(own) + 1) if n == len(own) or all(o[-n:] != own[-n:] for o in others))
        found.append(".".join(own[-size:]))
    return found


def _cell(value: Any) -> str:
    """As in YAML; numbers that were drawn with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
