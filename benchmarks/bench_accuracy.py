"""`make bench-accuracy`: how good the models are where that is known; → build/bench/accuracy.json.

parity   the largest differences from independent code, as `make parity` has written them
census   AUC of both tasks of Census-Income for the models of many tasks, three seeds, beside a tuned LightGBM
din_gain AUC of DIN and of pooling as interests at the same time become many, beside that of the truth
esmm     CVR by clicks alone and by ESMM: AUC and PCOC on all impressions, against the true CVR
ceiling  every model on simulated logs: how far it gets towards the AUC of the true probability (hours; resumable)
knowable how far anybody gets there who must tell users' interests from their clicks (of the logs of `ceiling`)
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import ceiling, census, entire_space, interests, knowable
from benchmarks.interests_picture import gain_picture
from training import models

ROOT = Path(__file__).resolve().parents[1]
PEERS_PYTHON = ROOT / ".venv-parity" / "bin" / "python"
PARTS = ("parity", "census", "din_gain", "esmm", "ceiling", "knowable")
ESMM_SHOWN = ("auc", "pcoc")
console = Console(highlight=False)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench_accuracy", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2, 3))
    parser.add_argument("--census", type=Path, help="folder of census-income.data.gz and columns.txt")
    parser.add_argument("--impressions", type=int, default=2_000_000, help="of the parts ceiling and knowable")
    parser.add_argument("--models", nargs="+", default=models.names(), help="of the part ceiling")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    return parser.parse_args(arguments)


def census_table(options: argparse.Namespace) -> dict[str, Any]:
    """Model → task → AUC on test; LightGBM's chosen settings among them."""
    if options.census is None:
        sys.exit("bench_accuracy: --census FOLDER is missing: the folder of census-income.data.gz and columns.txt")
    files = census.prepare(options.census.resolve(), options.out / "census" / "data")
    found: dict[str, Any] = {"lightgbm": _lightgbm(files)}
    found |= census.measure(files, options.out / "census", options.seeds, console.print)
    return found


def _lightgbm(files: census.Census) -> dict[str, Any]:
    command = [str(PEERS_PYTHON), "-m", "benchmarks.census_lightgbm", str(files.root)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return {task: {"mean": one["test"], **one} for task, one in found.items()}


def show(found: dict[str, Any]) -> None:
    """A table per part."""
    if "parity" in found:
        console.print(_parity_table(found["parity"]))
    if "ceiling" in found:
        table = Table("model", "AUC", "ceiling", "share of the way", title=f"Simulated logs, {ceiling.TASK}")
        for model, seen in sorted(found["ceiling"].items(), key=lambda pair: -pair[1]["ratio"]):
            table.add_row(model, f"{seen['auc']:.4f}", f"{seen['ceiling']:.4f}", f"{seen['ratio']:.3f}")
        console.print(table)
    if "knowable" in found:
        console.print(knowable.shown(found["knowable"]))
    if "census" in found:
        table = Table("model", *census.TASKS, title="Census-Income, AUC on test (range over seeds)")
        for model, tasks in found["census"].items():
            table.add_row(model, *(_cell(tasks[task]) for task in census.TASKS))
        console.print(table)
    if "din_gain" in found:
        console.print(_gain_table(found["din_gain"]))
    if "esmm" in found:
        console.print(_esmm_table({name: found[name] for name in entire_space.WORLDS if name in found}))


def _parity_table(found: dict[str, Any]) -> Table:
    table = Table("model", "peer", "logits apart", "gradients apart, relative")
    for model, peers in found.items():
        for peer, seen in peers.items():
            table.add_row(model, peer, f"{seen['max_logit_diff']:.1e}", f"{seen['max_grad_diff']:.1e}")
    return table


def _gain_table(found: dict[str, Any]) -> Table:
    title = "What DIN gains over pooling, AUC on test (range over seeds)"
    table = Table("interests", "pooling", "DIN", "gain", "ceiling", title=title)
    for number, one in found.items():
        arms = [_cell({"mean": one[arm], "seeds": one["by_seed"][arm]}) for arm in interests.MODELS]
        gain = _cell({"mean": one["delta_auc"], "seeds": one["delta_range"]})
        table.add_row(number, *arms, gain, f"{one['ceiling']:.4f}")
    return table


def _esmm_table(found: dict[str, dict[str, Any]]) -> Table:
    table = Table("users", "η", "model", "AUC", "PCOC", "truth's AUC", title="CVR of all impressions against the truth")
    for one in found.values():
        for arm in entire_space.MODELS:
            figures = {
                name: {"mean": one[f"{arm}_{name}"], "seeds": one[f"{arm}_by_seed"][name]} for name in ESMM_SHOWN
            }
            cells = [_cell(figure).replace(" ", "\n") for figure in figures.values()]
            table.add_row(str(one["users"]), f"{one['hidden']:g}", arm, *cells, f"{one['true_auc']:.4f}")
    return table


def _cell(task: dict[str, Any]) -> str:
    seeds = task.get("seeds")
    return f"{task['mean']:.4f}" + (f" ({min(seeds):.4f}–{max(seeds):.4f})" if seeds else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, add to what other parts have measured before, show."""
    options = options_of(arguments)
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / "accuracy.json"
    found: dict[str, Any] = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    if "parity" in options.parts:
        found["parity"] = json.loads((options.out / "parity.json").read_text(encoding="utf-8"))
    if "census" in options.parts:
        found["census"] = census_table(options)
    if "din_gain" in options.parts:
        found["din_gain"] = interests.measure(options.out / "interests", options.seeds, console.print)
        found["din_gain_settings"] = interests.settings()
        (options.out / "din_gain.svg").write_text(gain_picture(found["din_gain"]), encoding="utf-8")
    if "esmm" in options.parts:
        found |= entire_space.measure(options.out / "entire_space", options.seeds, console.print)
        found["esmm_settings"] = entire_space.settings()
    if "ceiling" in options.parts:
        measured = ceiling.measure(options.out, options.impressions, options.models, console.print)
        found["ceiling"] = found.get("ceiling", {}) | measured
    if "knowable" in options.parts:
        found["knowable"] = knowable.measure(*ceiling.logs(options.out, options.impressions))
    found["machine"] = {"platform": platform.platform(), "python": platform.python_version()}
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found)
    console.print(f"→ {target}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
