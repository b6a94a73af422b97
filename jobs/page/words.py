"""How numbers and rules read on a daily page."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.page.model import UNKNOWN
from training.bootstrap import Interval
from training.verdict import Rule, Verdict

STOPS: Mapping[Rule, str] = {
    "no_thresholds": "conf has no thresholds to judge by",
    "no_data": "the gate day has no rows to judge by",
    "no_unseen_day": "there is no day that neither it nor the champion has seen",
    "not_finite": "some of its scores are not finite numbers",
    "parity": "the exported graph does not score as the trained model does",
    "floors": "a figure misses its absolute floor",
    "leakage_suspected": "it is too good to be believed",
    "calibration": "its probabilities are further off than is allowed",
    "champion_comparison": "it is worse than the champion by more than is allowed",
    "score_shift": "its scores are distributed too unlike the champion's",
    "segments": "a segment of users or rooms gets worse by more than is allowed",
    "evidence": "the gate day does not have evidence enough to tell",
    "first_model": "it is the first of its name",
}
PASSES: Mapping[Rule, str] = {
    "first_model": "there was no champion to compare with, and it keeps every floor",
    "champion_comparison": "it is not worse than the champion by more than is allowed",
}


def verdict_sentence(verdict: Verdict) -> str:
    """What the gate said, by which rule, and what that rule is about."""
    known = PASSES if verdict.passed else STOPS
    why = f": {known[verdict.rule]}" if verdict.rule in known else ""
    others = verdict.stopped_by[1:]
    also = f" Further rules that stop it: {', '.join(others)}." if others else ""
    return f"{verdict.model} {'passed' if verdict.passed else 'was stopped'} by rule {verdict.rule}{why}.{also}"


def number(value: float | None, digits: int = 4) -> str:
    """A figure, or a dash where it is not known."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def count(value: int | None) -> str:
    """With separators; a dash where it is not known."""
    return UNKNOWN if value is None else f"{value:,}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share, in percent."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f} %"


def around(interval: Interval | None, digits: int = 4) -> str:
    """A difference and its interval."""
    if interval is None:
        return UNKNOWN
    return f"{interval.point:+.{digits}f} ({interval.low:+.{digits}f} to {interval.high:+.{digits}f})"


def seconds(value: float) -> str:
    """A duration."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
