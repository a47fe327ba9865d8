"""Turns words into one call of the library, and its result or error into lines and an exit code."""
