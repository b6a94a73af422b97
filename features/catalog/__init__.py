"""The catalog: declarations only, the ONE place where a feature is added.

Order is meaning: it is the order of columns in samples, batches and embedding tables.
"""

from __future__ import annotations

from features.catalog import anchor, context, labels, room, sequence, user

FEATURES = (*user.FEATURES, *anchor.FEATURES, *room.FEATURES, *context.FEATURES)
SEQUENCES = sequence.SEQUENCES
LABELS = labels.LABELS
