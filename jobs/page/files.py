"""Where pages are.

runs/<train set>/page.html     the page of one run
runs/index.html                links to all of them, newest first
"""

from __future__ import annotations

from pathlib import Path

from features.storage import list_folders

PAGE_FILE, INDEX_FILE = "page.html", "index.html"


def page_of(root: Path, run: str) -> Path:
    """The page of a run."""
    return root / run / PAGE_FILE


def written_pages(root: Path) -> list[str]:
    """Runs with a page."""
    return [run for run in list_folders(str(root)) if page_of(root, run).is_file()]
