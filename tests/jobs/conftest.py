"""What the tests of commands share."""

from __future__ import annotations

import pytest

from jobs.console import console


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are looked at whole, whatever terminal the run has; once set, a width outweighs COLUMNS for good."""
    monkeypatch.setattr(console, "width", 200)
