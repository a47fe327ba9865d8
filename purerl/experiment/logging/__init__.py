"""Hooks, called after each chunk in threads of their own: none can stop or change a run."""
