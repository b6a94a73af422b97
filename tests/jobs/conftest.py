"""What the tests of commands share."""

from __future__ import annotations

import pytest

from jobs.console import console


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich takes its width when it is imported, from whatever the test run's terminal is."""
    monkeypatch.setattr(console, "width", 200)
