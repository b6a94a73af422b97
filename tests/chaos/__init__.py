"""`make chaos-features`: the driver is killed again and again, and what it had committed must hold."""
