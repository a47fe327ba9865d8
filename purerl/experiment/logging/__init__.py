"""Tells others of each chunk, in threads of its own; cannot stop or change a run."""
