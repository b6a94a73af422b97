"""Packs the code for spark-submit --py-files (`make dist`): build/dist/limelight.zip, the same bytes for the same code.

conf/ goes into the zip as well, for reading along; a cluster run names its own conf by --conf-dir or LIMELIGHT_CONF.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("features", "pipeline", "training", "jobs", "conf")
_SUFFIXES = (".py", ".yaml", ".conf", ".json", ".html", ".j2", ".css")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows


def members(root: Path) -> list[Path]:
    """What the archive holds, relative to the checkout, in a fixed order."""
    found = (path for package in PACKAGES for path in (root / package).rglob("*"))
    kept = (path for path in found if path.is_file() and path.suffix in _SUFFIXES)
    return sorted(path.relative_to(root) for path in kept if "__pycache__" not in path.parts)


def pack(root: Path, archive: Path) -> int:
    """Writes the archive, without time stamps, and gives the number of its files."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    names = members(root)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            packed.writestr(zipfile.ZipInfo(name.as_posix(), _EPOCH), (root / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return len(names)


if __name__ == "__main__":
    target = ROOT / "build" / "dist" / "limelight.zip"
    print(f"{target.relative_to(ROOT)}: {pack(ROOT, target)} files")
