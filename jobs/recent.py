"""raw actions → the last actions of every user, as of --from to --to, by spark-submit; `--help` says more."""

from __future__ import annotations

import sys

from jobs.stage_door import run_days

if __name__ == "__main__":
    sys.exit(run_days("recent"))
