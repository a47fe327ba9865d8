"""Compiles for machines that are not here and reads the result as text; only the command line needs it."""
