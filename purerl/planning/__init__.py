"""Compiles for machines that are not here, and reads the result as text.

Only the command line needs it.
"""
