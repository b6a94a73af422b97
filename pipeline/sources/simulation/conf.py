"""How large a platform to simulate, and which of its days to write."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_DAYS = 4096
# 2^26 users is what the packed impression number has room for.
MAX_USERS = 1 << 26
MAX_ANCHORS = 1 << 26

_USERS_PER_DAILY_IMPRESSION = 0.09
_REFERENCE_DAILY_IMPRESSIONS = 300_000 / 18
_REFERENCE_ANCHORS = 500
# Below linear: a larger platform has more viewers per anchor, and on-air minutes must not outgrow impressions.
_ANCHOR_GROWTH = 0.8
_MAX_DAILY_IMPRESSIONS_PER_USER = 25.0


class SimulationConf(BaseModel):
    """One platform and the days of it to write.

    The world depends on `impressions / days`, never on `days` alone: a simulation of twice the impressions over twice
    the days, or the same one with a larger `to_day`, begins with identical days.

    Attributes:
        impressions: about how many there are over `days` days; the one knob of size.
        days: the days over which `impressions` are spread.
        start: the first day, with index 0.
        from_day, to_day: the half-open range of day indices to write; `to_day` is `days` if not given, and may exceed
            it to append days.
        seed: everything random follows from it.
        zone: the business time zone that cuts the days.
        users, anchors: how many exist before the first day; follow from `impressions / days` if not given.
        daily_growth: new users and anchors per day, as a share of those before the first day.
        anchor_growth: new anchors per day, as a share of those signed by then, instead of `daily_growth`.
        drift: share of tastes (user × category) that are drawn anew on each day; at 0 interests stay for ever.
        late_share: impressions and actions that arrive one or two days after they happened.
        orphan_share: actions without an impression_id.
        profileless_share: users who never get a row in the users table.
        rows_per_file: the aim for the size of a day's files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    impressions: int = Field(ge=10_000, le=1_000_000_000)
    days: int = Field(ge=1, le=MAX_DAYS)
    start: date = date(2025, 3, 1)
    from_day: int = Field(default=0, ge=0)
    to_day: int | None = Field(default=None, ge=1, le=MAX_DAYS)
    seed: int = 20250301
    zone: str = "Asia/Shanghai"
    users: int | None = Field(default=None, ge=1, le=MAX_USERS // 2)
    anchors: int | None = Field(default=None, ge=1, le=MAX_ANCHORS // 2)
    daily_growth: float = Field(default=0.005, ge=0.0, le=0.1)
    anchor_growth: float | None = Field(default=None, ge=0.0, le=0.2)
    drift: float = Field(default=0.0, ge=0.0, le=1.0)
    late_share: float = Field(default=0.02, ge=0.0, le=1.0)
    orphan_share: float = Field(default=0.03, ge=0.0, le=1.0)
    profileless_share: float = Field(default=0.05, ge=0.0, le=1.0)
    rows_per_file: int = Field(default=2_000_000, ge=1)

    @field_validator("zone")
    @classmethod
    def _zone_exists(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{zone!r} is no IANA time zone; name one such as Asia/Shanghai") from error
        return zone

    @model_validator(mode="after")
    def _sizes_fit(self) -> SimulationConf:
        if self.from_day >= self.end_day:
            raise ValueError(f"from_day {self.from_day} must be before to_day {self.end_day}")
        per_user = self.daily_impressions / self.first_users
        if per_user > _MAX_DAILY_IMPRESSIONS_PER_USER:
            raise ValueError(
                f"{per_user:.1f} impressions per user and day exceed {_MAX_DAILY_IMPRESSIONS_PER_USER}: raise users"
            )
        if self.users_by(self.end_day) > MAX_USERS or self.anchors_by(self.end_day) > MAX_ANCHORS:
            raise ValueError(f"more than {MAX_USERS} users or anchors by day {self.end_day}: lower growth or days")
        return self

    @property
    def end_day(self) -> int:
        """The day index after the last one to write."""
        return self.days if self.to_day is None else self.to_day

    @property
    def daily_impressions(self) -> float:
        return self.impressions / self.days

    @property
    def first_users(self) -> int:
        """Users registered before the first day."""
        return self.users or max(200, round(self.daily_impressions * _USERS_PER_DAILY_IMPRESSION))

    @property
    def first_anchors(self) -> int:
        """Anchors signed before the first day."""
        scale = self.daily_impressions / _REFERENCE_DAILY_IMPRESSIONS
        return self.anchors or max(100, round(_REFERENCE_ANCHORS * scale**_ANCHOR_GROWTH))

    @property
    def new_users(self) -> int:
        """Users who register on each day."""
        return max(1, round(self.first_users * self.daily_growth))

    @property
    def new_anchors(self) -> int:
        """Anchors who sign on each day, by `daily_growth`."""
        return max(1, round(self.first_anchors * self.daily_growth))

    def users_by(self, end_day: int) -> int:
        """Users registered before day index `end_day`."""
        return self.first_users + self.new_users * end_day

    def anchors_by(self, end_day: int) -> int:
        """Anchors signed before day index `end_day`."""
        return self.anchor_counts(end_day)[-1]

    def anchor_counts(self, end_day: int) -> list[int]:
        """How many have signed before each day index 0..end_day, [end_day + 1]; at least one does on every day."""
        counts = [self.first_anchors]
        for _ in range(end_day):
            there = counts[-1]
            new = self.new_anchors if self.anchor_growth is None else max(1, round(there * self.anchor_growth))
            counts.append(min(there + new, MAX_ANCHORS + 1))
        return counts

    def date_of(self, day: int) -> date:
        return self.start + timedelta(days=day)

    def micros_of(self, day: int) -> int:
        """The instant at which a day begins in the business time zone, in microseconds since 1970 UTC."""
        midnight = datetime.combine(self.date_of(day), datetime.min.time(), ZoneInfo(self.zone))
        return int(midnight.timestamp()) * 1_000_000
