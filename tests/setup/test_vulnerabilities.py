"""docs/vulnerabilities.md against the locks: a line about a version that is not installed is stale."""

from __future__ import annotations

import re

import install
from lock_file import lock_entries, pins

PAGE = install.ROOT / "docs" / "vulnerabilities.md"
LINE = re.compile(
    r"^\| ([a-z0-9-]+) \| ([\w.]+) \| (CVE-\d{4}-\d{4,}|PYSEC-\d{4}-\d+|GHSA-[\w-]+) \| (.+) \|$", re.MULTILINE
)


def locked() -> dict[str, str]:
    """Package → version, of what `make setup` installs."""
    locks = ("requirements.lock", "requirements-horovod.lock")
    texts = [(install.SETUP / name).read_text(encoding="utf-8") for name in locks]
    return dict(pin.split("==") for text in texts for pin in pins(lock_entries(text)))


def lines() -> list[tuple[str, ...]]:
    """Of the table: package, version, id, and the other cells as they stand."""
    return [found.groups() for found in LINE.finditer(PAGE.read_text(encoding="utf-8"))]


def test_every_line_is_about_what_is_in_the_lock() -> None:
    found = {(package, version) for package, version, *_ in lines()}
    pinned = locked()
    stale = [
        f"{package} {version}: {pinned.get(package)}" for package, version in found if pinned.get(package) != version
    ]
    assert stale == []


def test_every_line_says_what_whether_it_reaches_us_and_why_it_stays() -> None:
    found = lines()
    rows = [row for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| ")][1:]
    assert len(found) == len(rows) >= 10, "every line of the table is of the form that is read here"
    for *_, rest in found:
        cells = [cell.strip() for cell in rest.split(" | ")]
        assert len(cells) == 3
        assert all(cells)
    assert len({identity for _, _, identity, _ in found}) == len(found)
