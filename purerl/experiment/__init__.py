"""Drives compiled chunks, decides what happens between them; traces nothing, writes no files."""
