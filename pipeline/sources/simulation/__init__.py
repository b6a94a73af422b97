"""A live-stream platform as a function of (seed, key); docs/simulator.md has its equations."""
