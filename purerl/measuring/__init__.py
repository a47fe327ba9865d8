"""Measures how fast this machine trains, in how much memory, and what share of its limits it is."""
