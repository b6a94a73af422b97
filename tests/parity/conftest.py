"""What the parity tests saw, as JSON: `make parity` writes build/bench/parity.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", type=Path, help="file for the largest differences per model and peer")


def pytest_sessionfinish(session: pytest.Session) -> None:
    target: Path | None = session.config.getoption("--figures")
    if target is None:
        return
    from tests.parity.pairs import SEEN

    target.parent.mkdir(parents=True, exist_ok=True)
    worst: dict[str, dict[str, dict[str, float]]] = {}
    for one in SEEN:
        entry = worst.setdefault(one.model, {}).setdefault(one.peer, {"max_logit_diff": 0.0, "max_grad_diff": 0.0})
        entry["max_logit_diff"] = max(entry["max_logit_diff"], one.logits)
        entry["max_grad_diff"] = max(entry["max_grad_diff"], one.gradients)
    target.write_text(json.dumps(worst, indent=1, sort_keys=True) + "\n", encoding="utf-8")
