"""Where pages are, and how they are written: whole, or not at all.

runs/<train set>/page.html     the page of one run
runs/index.html                links to all of them, newest first
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from features.storage import list_folders

PAGE_FILE, INDEX_FILE = "page.html", "index.html"


def page_of(root: Path, run: str) -> Path:
    """The page of a run."""
    return root / run / PAGE_FILE


def written_pages(root: Path) -> list[str]:
    """Runs with a page."""
    return [run for run in list_folders(str(root)) if page_of(root, run).is_file()]


def write_whole(path: Path, content: str) -> Path:
    """Replace a file; a reader sees the old one or the new one."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")
    try:
        with draft.open("w", encoding="utf-8") as sink:
            sink.write(content)
            sink.flush()
            os.fsync(sink.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path
