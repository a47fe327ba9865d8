from purerl.experiment.report.format import format_bytes, format_number


def test_numbers_are_shown():
    assert [format_number(x) for x in (12, -3400, 1_230_000)] == ["12", "-3.4 k", "1.23 M"]
    assert format_number(4e6, "FLOP") == "4 MFLOP"


def test_bytes_are_shown():
    assert [format_bytes(x) for x in (12, 3400, 1.5e9, 2e13)] == [
        "12 B",
        "3.4 kB",
        "1.5 GB",
        "20 TB",
    ]
