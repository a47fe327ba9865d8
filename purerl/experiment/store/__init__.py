"""The files of a run directory: written whole, and checked when they are read.

It imports and executes nothing that a file names, and prints nothing.
"""
