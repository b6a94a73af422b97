"""The constants of the simulated world; docs/simulator.md has the equations they stand in and how they were set."""

from __future__ import annotations

from typing import Final

CATEGORIES: Final = (
    ("chat", 1.5),
    ("music", 1.4),
    ("games", 1.3),
    ("dance", 1.2),
    ("shopping", 1.1),
    ("food", 1.0),
    ("outdoors", 1.0),
    ("sports", 0.9),
    ("beauty", 0.9),
    ("pets", 0.8),
    ("education", 0.7),
    ("handicraft", 0.6),
)
"""(name, how much of the platform it is)."""

TOPICS_PER_CATEGORY: Final = 3
CONTENT_DIM: Final = 8
CONTENT_NOISE: Final = 0.4
CONTENT_MISSING: Final = 0.10

# Interests: which categories a user cares for, and which of those are awake.
MIN_INTERESTS: Final = 3
MAX_INTERESTS: Final = 5
GENDER_TILT: Final = 0.6
EPOCH_DAYS: Final = 4
SECOND_ACTIVE_CHANCE: Final = 0.5

# Popularity: Pareto with this exponent, i.e. Zipf over ranks; capped so that no anchor takes a whole slot.
ZIPF_EXPONENT: Final = 0.9
MAX_LOG_POPULARITY: Final = 6.0
EXPOSURE_EXPONENT: Final = 0.6
FOLLOW_INTEREST_CHANCE: Final = 0.45

# User sessions.
SESSION_SLOTS: Final = 6
MEAN_SESSION_LENGTH: Final = 9.0
MAX_SESSION_LENGTH: Final = 40
ACTIVITY_SPREAD: Final = 0.6
PAGE: Final = 10
SCENES: Final = (("feed", 0.60, 0.05), ("hall", 0.25, -0.10), ("channel", 0.15, 0.00))
"""(name, share of sessions, additive enter logit)."""

# Enter logit.
ENTER_BIAS: Final = -2.10
USER_SPREAD: Final = 0.25
POPULARITY_SLOPE: Final = 0.15
HEAT_SLOPE: Final = 0.50
INTEREST_IN: Final = 1.00
INTEREST_OUT: Final = -0.95
INTEREST_SPREAD: Final = 0.10
ACTIVE: Final = (0.25, -0.15)
"""Added to an interest when it is awake, and when it is not."""
TOPIC: Final = (0.16, -0.08)
"""Added within an interest on the user's favourite topic, and on the others."""
FAN_SPREAD: Final = 0.10
POSITION_SLOPE: Final = -0.35

# Rooms.
DAY_SHOW_CHANCE: Final = 0.30
EVENING_SHOW_CHANCE: Final = 0.75
MEDIAN_SHOW_MINUTES: Final = 80.0
SHOW_SPREAD: Final = 0.5
SHOW_MINUTES: Final = (25.0, 300.0)
SLOT_SECONDS: Final = 600
LEAVING_SECONDS: Final = 5
"""A room is recommended in a slot only if it outlasts the slot by this much, which an enter takes at most."""
KNOT_SECONDS: Final = 900
ANCHORS_PER_SHARD: Final = 2000

# After the enter: intercept, slope on the interest logit, spread of the user's own propensity.
CONVERSIONS: Final = {
    "gift": (-5.21, 0.60, 0.90),
    "follow": (-4.50, 0.70, 0.40),
    "comment": (-3.99, 0.50, 0.80),
    "like": (-4.07, 0.50, 0.80),
    "share": (-5.36, 0.40, 0.50),
}
BOUNCE: Final = (-0.45, -0.90)
STAY_MEDIAN_SECONDS: Final = 80.0
STAY_SLOPE: Final = 0.25
STAY_SCALE: Final = 0.75
WATCH_POSITIVE_SECONDS: Final = 30.0
WATCH_NEGATIVE_SECONDS: Final = 2.0
COINS_MEDIAN: Final = 20.0
COINS_SCALE: Final = 0.9
MAX_COINS: Final = 1_000_000
