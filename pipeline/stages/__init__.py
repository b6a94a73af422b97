"""Stages: each reads tables, calls `features.spark`, writes tables. `pipeline/plan.py` orders them."""
