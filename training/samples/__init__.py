"""Somebody's own samples, any Parquet with a schema file, as a train set."""
