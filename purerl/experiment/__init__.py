"""Drives compiled chunks, and decides what happens between them.

It traces nothing of its own, and leaves files to `store/`.
"""
