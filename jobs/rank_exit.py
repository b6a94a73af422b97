"""The exit code of a failing rank, past horovodrun, which makes 1 of every one.

A rank leaves it below the run's folder, which all ranks and the launcher share. The first one's counts: those after it
fail because it did.
"""

from __future__ import annotations

from contextlib import suppress

from features.errors import ExitCode
from features.storage import create_exclusively, delete, exists, read_bytes

FILE = "failed_with"


def leave(out_url: str, code: ExitCode) -> None:
    """Say why this rank ends. A plain failure says nothing that the launcher does not know, and a full disk nothing."""
    if code is not ExitCode.FAILURE:
        with suppress(OSError):
            create_exclusively(f"{out_url}/{FILE}", str(int(code)).encode())


def take(out_url: str) -> ExitCode:
    """What a rank has left, FAILURE if nothing; it is gone afterwards."""
    url = f"{out_url}/{FILE}"
    if not exists(url):
        return ExitCode.FAILURE
    code = ExitCode(int(read_bytes(url)))
    delete(url)
    return code
