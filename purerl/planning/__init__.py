"""Compiles a run for machines that are not here, and reads the compiled text."""
