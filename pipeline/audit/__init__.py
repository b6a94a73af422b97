"""The leak audit: five kinds of evidence that no row of a sample set has seen its own future (docs/audit.md)."""
