"""A job's life: one process's part of a run or of a filling, from its lock to its final state."""
