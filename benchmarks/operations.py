"""build/bench/operations.json: several benchmarks, and the trials of faults, each write keys of their own into it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.storage import write_whole

OPERATIONS_FILE = "operations.json"


def merge_into(path: Path, found: Mapping[str, Any]) -> None:
    """Write some keys of a JSON file; the others stay, also while another process writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_whole(path, json.dumps({**there, **found}, indent=1) + "\n")
    finally:
        os.close(folder)
