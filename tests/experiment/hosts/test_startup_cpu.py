"""What a header says of the CPU."""

import pytest

from purerl.experiment.hosts.startup import describe_cpu


@pytest.mark.parametrize(
    ("text", "described"),
    [
        (
            "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: fpu avx avx2 avx512f\n\n",
            {"model": "Some CPU @ 2 GHz", "features": "avx2 avx512f"},
        ),
        ("model name : Some CPU\nflags : fpu\n", {"model": "Some CPU", "features": ""}),
    ],
)
def test_a_cpu_is_told_by_its_model_and_by_what_code_is_made_for(text, described, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    assert describe_cpu(tmp_path / "cpuinfo") == described


def test_where_nothing_tells_more_the_kind_of_processor_stands(tmp_path):
    described = describe_cpu(tmp_path / "missing")
    assert described["model"]
    assert described["features"] == ""
