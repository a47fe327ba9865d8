"""Tells others of each chunk, in threads of their own: none of them can stop or change a run."""
