"""What a run directory holds: written whole, and checked when it is read.

It imports and executes nothing that a file names, and prints nothing.
"""
