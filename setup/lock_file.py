"""The lock files of setup/: pip's requirements format, every package with its version and its hashes."""

from __future__ import annotations

import re


def lock_entries(text: str) -> dict[str, str]:
    """Splits a lock into {package name: its lines}; comments before the first package are left out."""
    entries: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        start = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==", line)
        if start:
            name = start.group(1)
            entries[name] = ""
        if name:
            entries[name] += line + "\n"
    return entries


def pins(entries: dict[str, str]) -> list[str]:
    """The `name==version` of each package, without hashes: constraints for a resolution."""
    return [lines.split()[0] for lines in entries.values()]
