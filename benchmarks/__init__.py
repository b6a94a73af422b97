"""Ratios measured side by side; `make bench-features` runs them."""
