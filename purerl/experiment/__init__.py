"""The host half: what happens between compiled chunks. It prints, times and writes; never traces."""
