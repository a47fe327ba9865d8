"""Numbers in words, for tables, displays and axes."""


def short(number: float) -> str:
    """`1.23 M` for 1,230,000."""
    for unit, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= unit:
            return f"{number / unit:.3g}{suffix}"
    return f"{number:.3g}"
