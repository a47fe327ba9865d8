"""What the options of the benchmarks are made of."""

import argparse


def count(text: str) -> int:
    """A whole number of at least 1: the `type` of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)
