"""One training step, what surrounds it, and what survives it."""
