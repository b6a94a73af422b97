"""Names and paths that come out of documents, and become paths: checked here, and nowhere else.

A manifest, a trainset.json or a registry may have been written by somebody else. A name is one part of a path; a path
is relative, and stays below the folder that it is relative to. Both are also checked as a URL would read them:
`%2e%2e` is `..` there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator

from features.errors import DataError, Problem

MAX_NAME_BYTES = 255
REMEDY = "Do not use what it came from, unless you know who wrote it; ours holds plain relative names"


def fault_of_name(name: str) -> str | None:
    """Why a name must not become a part of a path; None when it may."""
    read = unquote(name)
    if not name:
        return "is empty"
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        return f"has more than {MAX_NAME_BYTES} bytes"
    if read in (".", ".."):
        return "is a folder above or the folder itself"
    if any(part in read for part in "/\\"):
        return "holds a separator of folders"
    if not read.isprintable():
        return "holds a character that cannot be printed"
    return None


def fault_of_path(path: str) -> str | None:
    """Why a path must not be followed below a folder; None when it may."""
    if path.startswith(("/", "\\")) or "://" in path:
        return "is absolute"
    faults = (fault_of_name(part) for part in path.split("/"))
    return next((f"has a part that {fault}" for fault in faults if fault is not None), None)


def require_name(name: str) -> str:
    """The name itself.

    Raises:
        DataError: it must not become a part of a path.
    """
    return _required(name, fault_of_name(name), "name")


def require_path(path: str) -> str:
    """The path itself.

    Raises:
        DataError: it is not relative, or leads upwards.
    """
    return _required(path, fault_of_path(path), "path")


def _required(text: str, fault: str | None, kind: str) -> str:
    if fault is not None:
        raise DataError([Problem(what=f"the {kind} {text[:MAX_NAME_BYTES]!r} {fault}", remedy=REMEDY)])
    return text


def inside(folder: Path, path: str) -> Path:
    """`folder/path`, once it is certain that it lies in the folder, links followed.

    Raises:
        DataError: the path is not relative, leads upwards, or a link on it leads out.
    """
    found = folder / require_path(path)
    if not found.resolve().is_relative_to(folder.resolve()):
        what = f"{path!r} is a link that leads out of {folder}"
        raise DataError([Problem(what=what, remedy="Replace the link by what it should lead to")])
    return found


Name = Annotated[str, AfterValidator(require_name)]
"""One part of a path. Documents with another one are refused by a DataError."""

RelativePath = Annotated[str, AfterValidator(require_path)]
"""A path below a document's folder. Documents with another one are refused by a DataError."""
