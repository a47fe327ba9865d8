"""A bench leaves every repeat, a line for what failed, and times what a stopwatch times."""

import dataclasses
import json
import subprocess
import time
from typing import Any

import jax
import numpy as np
import pytest
from commands import run_purerl

import purerl
from purerl.cli.bench_tables import bench_table, point_line
from purerl.measuring import benches, limits, points
from purerl.measuring.figures import bench_figure
from purerl.measuring.points import Point, PointRequest


@pytest.fixture
def here(monkeypatch):
    """Points are measured in this process, which is enough where none of them ends it."""
    monkeypatch.setattr(limits, "SHAPES", ((64, 64, 64), (32, 32, 32)))
    monkeypatch.setattr(limits, "WORK", 1e7)
    monkeypatch.setattr(points, "CPU_STEPS", 1000)
    asked = []

    def ask(question):
        asked.append(question)
        answer = points.answer(json.loads(json.dumps(question)))
        if "refused" in answer:
            raise ValueError(answer["refused"])
        return answer, "gave no answer"

    monkeypatch.setattr(benches, "_ask", ask)
    return asked


def measured(seeds=4, num_envs: int | None = 4, **fields: Any):
    known: dict[str, Any] = {
        "lower_seconds": 1.0,
        "compile_seconds": 2.0,
        "first_seconds": 0.5,
        "run_seconds": [0.4, 0.5],
        "steps_per_second": [seeds * 1e4, seeds * 1.1e4],
        "device_bytes": seeds * 10**6,
        "peak_process_bytes": 4 * 10**8,
        "updates": 2,
    }
    return Point("vpg", seeds, num_envs, **(known | fields))


def test_a_bench_has_every_repeat(here, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ("--num-envs", "4", "--rollout-length", "8", "--hidden", "8", "--repeats", "2")
    code, out, err = call("bench", "--seeds", "3", *args)
    assert (code, err) == (0, "")
    assert "vpg 4 × 3, 10 updates: trace" in out
    assert "this machine's best product" in out
    assert "written: runs/bench-CartPole-v1/bench.json" in out
    folder = tmp_path / "runs/bench-CartPole-v1"
    assert (folder / "bench.png").stat().st_size
    written = json.loads((folder / "bench.json").read_text())
    assert written["machine"]["jax"] == jax.__version__
    assert written["limit"]["flops"] > 0
    (point,) = written["points"]
    assert point["failed"] is None
    assert (point["updates"], point["env_steps"]) == (1000 // (3 * 4 * 8), 3 * 4 * 8 * 10)
    rates = [point["env_steps"] / each for each in point["run_seconds"]]
    assert point["steps_per_second"] == rates
    assert len(rates) == len(point["floor_steps_per_second"]) == 2
    assert point["device_bytes"] > 0
    assert point["peak_device_bytes"] is None  # a CPU does not tell


def test_what_runs_out_of_memory_is_a_row_and_not_the_end(here, tmp_path, monkeypatch):
    def measure(request):
        if request.seeds == 64:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")
        if request.algo == "ppo":
            points.require_memory(10**9, request.memory_limit, [])
        return dataclasses.replace(measured(request.seeds), algo=request.algo)

    monkeypatch.setattr(points, "measure_point", measure)
    seen = []
    found = purerl.bench(
        algo=["vpg", "ppo"],
        seeds=[64, 1],
        num_envs=16,
        memory_limit=10**8,
        directory=tmp_path,
        progress=seen.append,
    )
    assert found.points == tuple(seen)
    assert [(point.algo, point.seeds, point.failed) for point in seen] == [
        ("vpg", 64, "out of memory: Out of memory."),
        ("vpg", 1, None),
        ("ppo", 64, "out of memory: Out of memory."),
        ("ppo", 1, "out of memory: it needs 1 GB on each device, and there are 100 MB"),
    ]
    assert len(json.loads((tmp_path / "bench.json").read_text())["points"]) == 4
    assert "out of memory" in point_line(seen[0])


def test_what_says_that_memory_is_out(without_type_checks):
    exhausted = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
    assert points.why_out_of_memory(exhausted) == "out of memory: Out of memory allocating 9 bytes."
    assert points.why_out_of_memory(MemoryError()) == "out of memory: MemoryError"
    assert points.why_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: other")) is None
    assert points.why_out_of_memory(ValueError("RESOURCE_EXHAUSTED")) is None


@pytest.mark.parametrize(
    ("code", "stderr", "said"),
    [(-9, "", "killed (signal 9)"), (1, "a\nError: b\n", "Error: b"), (3, "", "exit code 3")],
)
def test_a_point_whose_process_ends_says_how(code, stderr, said, monkeypatch):
    def ended(*args, **kwargs):
        return subprocess.CompletedProcess(args, code, "", stderr)

    monkeypatch.setattr(benches.subprocess, "run", ended)
    point = benches.measure(PointRequest("CartPole-v1", "vpg", 1))
    assert said in (point.failed or "")


def test_an_agent_solves_where_half_of_the_seeds_have_reached_the_target():
    generator = np.random.default_rng(0)
    for _ in range(50):
        seeds, records = generator.integers(1, 6, 2)
        returns = generator.uniform(0, 10, (seeds, records))
        returns[generator.uniform(size=returns.shape) < 0.2] = np.nan
        expected = None
        for record in range(records):
            reached = sum(
                any(returns[seed, i] >= 8 for i in range(record + 1)) for seed in range(seeds)
            )
            if 2 * reached >= seeds:
                expected = (record + 1) / records
                break
        assert points.share_until(returns, 8.0) == expected
        assert points.share_until(returns, None) is None


def test_settings_that_no_process_can_be_given_are_refused():
    with pytest.raises(ValueError, match=r"settings = \{'optimizer': <built-in function max>\}"):
        purerl.bench(seeds=1, optimizer=max)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--env", "CartPole"], "env = 'CartPole' is not known"),
        (["--seeds", "0"], "seeds = 0 must be"),
        (["--seeds", "2", "-1"], "seeds = -1 must be"),
        (["--repeats", "0"], "repeats = 0 must be"),
        (["--updates", "0"], "updates = 0 must be"),
        (["--memory-limit", "much"], "memory_limit = 'much' cannot be read"),
        (["--algo", "vpg", "ppo", "--num-envs", "1", "--rollout-length", "7"], "num_minibatches"),
    ],
)
def test_bad_input_is_a_line_before_anything_is_timed(
    here, call, options, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(points, "measure_point", lambda request: pytest.fail("it was timed"))
    monkeypatch.setattr(points, "machine_limit", lambda: pytest.fail("it was timed"))
    code, out, err = call("bench", *options)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_directory_that_cannot_take_the_files_is_refused(here, tmp_path):
    (tmp_path / "bench.json").mkdir()
    with pytest.raises(ValueError, match=r"directory = .*bench\.json' cannot be written"):
        purerl.bench(seeds=1, directory=tmp_path)


def test_a_table_says_when_it_was_solved_and_what_failed():
    solved = measured(target_return=475.0, solved_seconds=[0.2, 0.3], floor_steps_per_second=[8e4])
    never = measured(seeds=1, target_return=475.0, solved_seconds=[None, None])
    failed = Point("vpg", 512, 4, failed="out of memory: much")
    machine = {"platform": "gpu", "device": "H200", "devices": 1, "jax": "0"}
    limit = limits.Limit(1e12, "the data sheet")
    found = benches.Bench("CartPole-v1", {}, 2, machine, limit, (solved, never, failed))
    columns = {str(column.header): list(column.cells) for column in bench_table(found).columns}
    assert columns["solved"] == ["0.25 s", "", ""]
    assert columns["steps/s, median [range]"][2] == "out of memory: much"
    assert len(columns["compile"]) == 3


def test_the_figure_has_a_line_for_each_algorithm(tmp_path):
    found = [
        dataclasses.replace(measured(seeds), algo=algo)
        for algo in ("vpg", "ppo")
        for seeds in (1, 16)
    ]
    drawing = bench_figure([*found, Point("vpg", 64, 4, failed="out of memory")])
    drawing.savefig(tmp_path / "figure.png")
    assert [len(axes.get_legend_handles_labels()[0]) for axes in drawing.axes] == [2, 4]
    bench_figure([Point("vpg", 64, 4, failed="out of memory")]).savefig(tmp_path / "figure.png")


@pytest.mark.slow
def test_a_bench_goes_on_where_a_process_is_out_of_memory(tmp_path):
    args = ("--num-envs", "4", "--rollout-length", "8", "--repeats", "2", "--updates", "2")
    done = run_purerl(
        "bench", "--seeds", "256", "2", *args, "--memory-limit", "2MB", cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    failed, went = json.loads(
        (tmp_path / "runs/bench-CartPole-v1/bench.json").read_text()
    )["points"]  # fmt: skip
    assert failed["failed"].startswith("out of memory: it needs")
    assert len(went["run_seconds"]) == 2


@pytest.mark.slow
@pytest.mark.as_users
def test_a_bench_times_what_a_stopwatch_times():
    # REINFORCE without floors: the least that there is to compile, five times.
    request = PointRequest("CartPole-v1", "reinforce", 16, updates=20, repeats=1, floor=False)
    config = request.config(20)
    keys = [purerl.seed_keys(root, 16) for root in range(6)]
    jax.block_until_ready(purerl.train_seeds(keys[0], config))
    ratios = []
    for i in range(5):
        run_seconds = points.measure_point(request).run_seconds
        assert run_seconds is not None
        start = time.perf_counter()
        jax.block_until_ready(purerl.train_seeds(keys[i + 1], config))
        ratios.append(run_seconds[0] / (time.perf_counter() - start))
    assert 0.8 <= np.median(ratios) <= 1.25
