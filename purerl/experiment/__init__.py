"""The host half: what happens between compiled chunks. It prints, writes and keeps the time."""
