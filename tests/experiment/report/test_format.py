import numpy as np
import pytest

from purerl.experiment.report.format import (
    format_bytes,
    format_interval,
    format_number,
    format_returns,
    format_values,
)
from purerl.experiment.report.statistics import Interval, return_iqm


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


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ((0.962, 0.954, 0.970), "0.962 [0.954, 0.970]"),
        ((487.23, 471.0, 499.3), "487.2 [471.0, 499.3]"),
        ((500.0, 499.97, 500.0), "500.000 [499.970, 500.000]"),
        ((500.0, 500.0, 500.0), "500.0 [500.0, 500.0]"),
        ((0.954, 0.954, 0.954), "0.954 [0.954, 0.954]"),
        ((0.0, 0.0, 0.0), "0.0 [0.0, 0.0]"),
        ((500.0, 500.0 - 1e-9, 500.0), "500.000 [500.000, 500.000]"),
        ((-0.0123, -0.02, 0.01), "-0.012 [-0.020, 0.010]"),
        ((0.95, np.nan, np.nan), "0.950"),
        ((np.nan, np.nan, np.nan), "nan"),
    ],
)
def test_an_interval_has_the_digits_that_its_width_deserves(numbers, shown):
    assert format_interval(Interval(*map(np.array, numbers))) == shown


def test_few_seeds_are_shown_one_by_one_and_what_failed_stands_beside():
    def shown(*returns):
        returns = np.array(returns)
        failed = int(np.sum(np.isnan(returns)))
        return format_returns(return_iqm(returns), returns, failed)

    nan = np.nan
    assert shown(0.954, 0.970) == "0.962 of 0.954, 0.970"
    assert shown(480.0, 499.0, 500.0) == "493.0 of 480.0, 499.0, 500.0"
    assert shown(480.0) == "480.0"
    assert shown(480.0, nan, 500.0, nan) == "490.0 of 480.0, 500.0, 2 of 4 failed"
    assert shown(5.0, 5.0, 5.0, 5.0, nan) == "5.00 [5.00, 5.00], 1 of 5 failed"
    assert shown(nan, nan) == "nan, 2 of 2 failed"


def test_values_side_by_side_have_the_same_digits():
    assert format_values([0.5, 499.25]) == ["0.5", "499.2"]
    assert format_values([]) == []
