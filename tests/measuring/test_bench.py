"""A bench leaves every repeat, a line for what failed, and times what a stopwatch times."""

import dataclasses
import json
import operator
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from commands import ROOT, run_purerl

import purerl
from purerl.cli.bench_tables import bench_notes, bench_table, point_line
from purerl.experiment.hosts import asking
from purerl.measuring import benches, limits, point_process
from purerl.measuring.figures import bench_figure
from purerl.measuring.points import Point, PointRequest


@pytest.fixture
def here(monkeypatch):
    """Points are measured in this process, which is enough where none of them ends it."""
    monkeypatch.setattr(limits, "SHAPES", ((64, 64, 64), (32, 32, 32)))
    monkeypatch.setattr(limits, "CPU_WORK", 1e7)
    monkeypatch.setattr(point_process, "CPU_STEPS", 1000)

    def ask(module, question, said=None):
        sent = json.dumps(question, default=operator.index)
        return point_process.answer(json.loads(sent)), "gave no answer"

    monkeypatch.setattr(benches, "ask", ask)


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
    assert written["limit"]["flops_per_second"] > 0
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
            point_process.require_memory(10**9, request.memory_limit, [])
        return dataclasses.replace(measured(request.seeds), algo=request.algo)

    monkeypatch.setattr(point_process, "measure_point", measure)
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
    why = point_process.why_out_of_memory
    exhausted = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
    assert why(exhausted) == "out of memory: Out of memory allocating 9 bytes."
    assert why(MemoryError()) == "out of memory: MemoryError"
    assert why(jax.errors.JaxRuntimeError("INTERNAL: other")) is None
    assert why(ValueError("RESOURCE_EXHAUSTED")) is None


@pytest.mark.parametrize(
    ("code", "says", "line"),
    [
        (-9, "", "killed (signal 9)"),
        (1, "a\nError: b\n", "Error: b"),
        (1, "jaxlib.XlaRuntimeError: RESOURCE_EXHAUSTED: much\n  at 1\n--- frames were removed\n",
         "RESOURCE_EXHAUSTED: much"),
        (-6, "F0328 10:00:00 1 a.cc:1] no such device\n*** SIGABRT ***\n    @ 0x1\n", "no such"),
        (3, "", "exit code 3"),
    ],
)  # fmt: skip
def test_a_point_whose_process_ends_says_how(code, says, line, monkeypatch, tmp_path):
    def ended(command, *, stdout, **kwargs):
        stdout.write(says.encode())
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(asking.subprocess, "run", ended)
    log = tmp_path / "log"
    log.write_text("Error: of another point\n")
    point = benches.measure(PointRequest("CartPole-v1", "vpg", 1), log)
    assert line in (point.failed or "")
    assert log.read_text() == f"Error: of another point\n{says}"


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
        assert point_process.share_until(returns, 8.0) == expected
        assert point_process.share_until(returns, None) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"optimizer": max}, r"settings = \{'optimizer': <built-in function max>\}"),
        ({"env": object()}, "env = <object .* use a name, or the import path"),
        ({"seeds": 1.5}, "seeds = 1.5 must be a whole number"),
        ({"total_steps": 1000}, "total_steps has no effect.* use updates"),
    ],
)
def test_what_no_process_can_be_given_is_refused(arguments, said, without_type_checks):
    with pytest.raises(ValueError, match=said):
        purerl.bench(**({"seeds": 1} | arguments))


def test_counts_may_be_those_of_numpy(here, monkeypatch, without_type_checks):
    monkeypatch.setattr(point_process, "measure_point", lambda request: measured(request.seeds))
    monkeypatch.setattr(point_process, "machine_limit", lambda: limits.Limit(1.0, "none"))
    counts: Any = {"seeds": np.int64(2), "num_envs": np.array([4]), "updates": np.int64(2)}
    found = purerl.bench(**counts)
    assert [point.seeds for point in found.points] == [2]


def test_a_run_has_the_rollout_that_was_asked_for():
    request = PointRequest("CartPole-v1", "reinforce", 16)
    config = request.config(4)
    assert (config.rollout_length, config.num_updates) == (request.config().rollout_length, 4)


@pytest.mark.parametrize(
    ("platform", "seeds", "updates"), [("gpu", 1, 200), ("gpu", 256, 28), ("cpu", 1, 73)]
)
def test_an_accelerator_has_few_updates_of_few_seeds(platform, seeds, updates, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    request = PointRequest("CartPole-v1", "vpg", seeds, 64, settings={"rollout_length": 128})
    assert point_process.run_config(request).num_updates == updates


def test_a_point_that_is_refused_is_a_row(here, monkeypatch):
    def refuse(request):
        raise ValueError("it is refused")

    monkeypatch.setattr(point_process, "measure_point", refuse)
    found = benches.measure(PointRequest("CartPole-v1", "vpg", 1))
    assert found.failed == "it is refused"


@pytest.mark.parametrize("error", [None, MemoryError("much"), ValueError("other")])
def test_a_floor_without_memory_leaves_the_training(error, monkeypatch):
    """A floor that does not fit is left out, and what else it raises is raised."""

    def lower(*args):
        raise error or jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")

    sizes = {"num_envs": 2, "rollout_length": 4, "hidden": (4,)}
    request = PointRequest("CartPole-v1", "vpg", 1, updates=2, repeats=1, settings=sizes)
    monkeypatch.setattr(point_process.EnvSteps, "__call__", lower)
    if isinstance(error, ValueError):
        with pytest.raises(ValueError, match="other"):
            point_process.measure_point(request)
    else:
        found = point_process.measure_point(request)
        assert found.floor_steps_per_second is None
        assert len(found.steps_per_second or ()) == 1


def test_peaks_are_read_before_anything_but_training_has_run(monkeypatch):
    """The device's before and after the first run, the process's beside the latter."""
    seen = []
    monkeypatch.setattr(point_process, "timed", lambda run: (seen.append("run"), (1.0, run()))[1])
    monkeypatch.setattr(point_process, "peak_device_bytes", lambda device: seen.append("device"))
    monkeypatch.setattr(point_process, "peak_process_bytes", lambda: (seen.append("process"), 1)[1])
    monkeypatch.setattr(point_process, "compile_floor", lambda *args: seen.append("floor"))
    sizes = {"num_envs": 2, "rollout_length": 4, "hidden": (4,)}
    request = PointRequest("CartPole-v1", "vpg", 1, updates=2, repeats=1, settings=sizes)
    point_process.measure_point(request)
    lowered_and_compiled = ["process", "run", "run"]
    assert seen == [*lowered_and_compiled, "device", "run", "device", "process", "floor"]


def test_the_peak_of_a_process_is_its_own(tmp_path):
    """On Linux, and of one whose parent has had more."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    ask = "from purerl.measuring import machine; print(machine.peak_process_bytes())"
    parent = (
        f"import subprocess, sys; held = bytearray(400 * 10**6)\n"
        f"subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert 10**7 < int(done.stdout) < 4 * 10**8, done.stderr


def test_a_process_ends_with_the_one_that_asked_it(tmp_path):
    (tmp_path / "endless.py").write_text(
        "import os, sys, time\n"
        "from purerl.experiment.hosts.asking import end_with\n"
        "end_with(int(sys.argv[3]))\n"
        "print('id', os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    log = tmp_path / "log"
    asks = (
        f"from pathlib import Path; from purerl.experiment.hosts.asking import ask; "
        f"ask('endless', {{}}, Path({str(log)!r}))"
    )
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    with subprocess.Popen(
        [sys.executable, "-c", asks], env=os.environ | {"PYTHONPATH": paths}
    ) as asking_process:
        ended = time.monotonic() + 30
        while not (log.exists() and log.read_text().endswith("\n")) and time.monotonic() < ended:
            time.sleep(0.05)
        child = int(log.read_text().split()[1])
        assert is_alive(child)
        asking_process.kill()
    while is_alive(child) and time.monotonic() < ended:
        time.sleep(0.05)
    assert not is_alive(child)


def is_alive(process):
    """Whether a process runs: nobody may have waited for one that has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--env", "CartPole"], "env = 'CartPole' is not known"),
        (["--seeds", "0"], "seeds = 0 must be"),
        (["--seeds", "2", "-1"], "seeds = -1 must be"),
        (["--repeats", "0"], "repeats = 0 must be"),
        (["--updates", "0"], "updates = 0 must be"),
        (["--memory-limit", "much"], "--memory-limit = 'much' cannot be read"),
        (["--algo", "vpg", "ppo", "--num-envs", "1", "--rollout-length", "7"], "num_minibatches"),
    ],
)
def test_bad_input_is_a_line_before_anything_is_timed(
    here, call, options, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(point_process, "measure_point", lambda request: pytest.fail("it was timed"))
    monkeypatch.setattr(point_process, "machine_limit", lambda: pytest.fail("it was timed"))
    code, out, err = call("bench", *options)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_directory_that_cannot_take_the_files_is_refused(here, tmp_path):
    (tmp_path / "bench.json").mkdir()
    with pytest.raises(ValueError, match=r"directory = .*bench\.json' cannot be written"):
        purerl.bench(seeds=1, directory=tmp_path)


def test_a_directory_with_a_bench_is_not_written_to_again(here, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(point_process, "measure_point", lambda request: measured(request.seeds))
    monkeypatch.setattr(point_process, "machine_limit", lambda: limits.Limit(1.0, "none"))
    monkeypatch.setattr(benches, "draw", lambda plots, advice: None)
    for _ in range(2):
        code, out, err = call("bench", "--seeds", "4")
        assert (code, err) == (0, "")
    assert "written: runs/bench-CartPole-v1-2/bench.json\n" in out  # no figure was drawn
    assert (tmp_path / "runs/bench-CartPole-v1/bench.json").exists()
    code, out, err = call("bench", "--directory", "runs/bench-CartPole-v1")
    assert (code, err.count("\n")) == (2, 1)
    assert "--directory = 'runs/bench-CartPole-v1' has the bench.json of another bench" in err
    assert "--directory runs/bench-CartPole-v1-2" in err


def test_a_table_says_when_it_was_solved_and_what_failed():
    solved = measured(
        target_return=475.0,
        solved_seconds=[0.2, 0.3],
        floor_steps_per_second=[8e4, 8e4],
        flops_per_step=1e5,
        devices=1,
        peak_device_bytes=5 * 10**6,
        compiled_peak_bytes=5 * 10**6,
    )
    mostly = measured(target_return=475.0, solved_seconds=[0.2, 0.3, None], devices=4)
    once = measured(target_return=475.0, solved_seconds=[None, 0.3, None])
    never = measured(seeds=1, target_return=475.0, solved_seconds=[None, None])
    failed = Point("vpg", 512, 4, failed="out of memory: much")
    machine = {"platform": "gpu", "device": "H200", "devices": 4, "jax": "0"}
    limit = limits.Limit(8e11, "the data sheet")
    made = (solved, mostly, once, never, failed)
    found = benches.Bench("CartPole-v1", {}, 2, machine, limit, made)
    columns = {str(column.header): list(column.cells) for column in bench_table(found).columns}
    assert columns["solved"] == ["0.25 s", "0.30 s in 2 of 3", "in 1 of 3", "", ""]
    assert columns["steps/s, median [range]"][0] == "42 k [40 k, 44 k]"
    assert columns["steps/s, median [range]"][4] == "out of memory: much"
    # 42 k steps of 100 kFLOP, of a quarter of 800 GFLOP/s; and 42 of 80.
    assert columns["products"] == ["2.1%", "", "", "", ""]
    assert columns["floor"] == ["52%", "", "", "", ""]
    assert columns["planned"][0] == "4 MB"
    assert columns["in use"] == ["≤ 5 MB", "400 MB", "400 MB", "400 MB", ""]
    assert columns["compile"] == ["3.0 s"] * 4 + [""]
    assert "in use: as the device reports it; ≤: compiling had as much" in bench_notes(found)
    on_a_cpu = dataclasses.replace(found, machine=machine | {"platform": "cpu", "processor": "it"})
    columns = {str(column.header): list(column.cells) for column in bench_table(on_a_cpu).columns}
    assert columns["products"][0] == "0.525%"  # one device may use all cores


def test_the_figure_has_a_line_for_each_algorithm_and_rollout(tmp_path):
    found = [
        measured(16, rollout_length=128),
        measured(1, rollout_length=128),
        measured(1, rollout_length=32, peak_device_bytes=2 * 10**6),
        Point("vpg", 64, 4, failed="out of memory", rollout_length=128),
    ]
    drawing = bench_figure(found)
    drawing.savefig(tmp_path / "figure.png")
    axes: Any = drawing.axes
    speed, memory = axes
    lines = {
        line.get_label(): np.transpose(np.asarray(line.get_data(), float)).tolist()
        for line in memory.lines
    }
    assert lines == {
        "VPG, 4 envs × 128: each device": [[1, 1], [16, 16]],
        "VPG, 4 envs × 128: by the process": [[1, 400], [16, 400]],
        "VPG, 4 envs × 32: each device": [[1, 1]],
        "VPG, 4 envs × 32: as the device reports it": [[1, 2]],
    }
    (first, *_), (second, *_) = (bars.lines for bars in speed.containers)
    np.testing.assert_allclose(np.asarray(first.get_ydata(), float), [1.05e4, 16 * 1.05e4])
    np.testing.assert_allclose(np.asarray(second.get_ydata(), float), [1.05e4])
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
    sizes = {"rollout_length": 128}
    request = PointRequest(
        "CartPole-v1", "reinforce", 16, updates=20, repeats=1, floor=False, settings=sizes
    )
    config = request.config(20)
    keys = [purerl.seed_keys(root, 16) for root in range(6)]
    jax.block_until_ready(purerl.train_seeds(keys[0], config))
    ratios = []
    for i in range(5):
        run_seconds = point_process.measure_point(request).run_seconds
        assert run_seconds is not None
        start = time.perf_counter()
        jax.block_until_ready(purerl.train_seeds(keys[i + 1], config))
        ratios.append(run_seconds[0] / (time.perf_counter() - start))
    assert 0.8 <= np.median(ratios) <= 1.25
