"""The host half: what happens between compiled chunks. It prints and writes; it never traces."""
