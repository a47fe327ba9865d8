"""What cannot fit is refused by counting: at once, before anything is compiled or written."""

import shutil
import time

import pytest
from small import OPTIONS

import purerl
from purerl.experiment.hosts import memory, sizes
from purerl.experiment.store import files
from purerl.experiment.store.files import read_checked_json, write_checked_json

HUGE = [
    (["--seeds", "99999999999"], "seeds = 99999999999 must be at most 2**31"),
    (["--seeds", "2000000000"], "seeds = 2000000000 need at least"),
    (["--num-envs", "1000000000"], "num_envs * rollout_length = 8000000000 must be below 2**31"),
    (["--num-envs", "200000000"], "--num-envs = 200000000 and --rollout-length = 8 need at least"),
    (
        ["--rollout-length", "500000000"],
        "--num-envs = 4 and --rollout-length = 500000000 need at least",
    ),
    (
        ["--rollout-length", "1" + "0" * 30],
        "--rollout-length = 1" + "0" * 30 + " must be below 2**31",
    ),
    (["--total-steps", "1" + "0" * 18], "num_updates = 31250000000000000 must be below 2**31"),
    (["--total-steps", "64000000000"], "2000000000 records of --seeds = 4 need at least"),
    (["--hidden", "1000000000"], "use less of one, or smaller networks"),
    (["--hidden", "1000000000", "1000000000"], "use less of one, or smaller networks"),
    (["--hidden", "1" + "0" * 12], "must be below 2**31"),
    (["--evaluation-episodes", "2000000000"], "--evaluation-episodes = 2000000000 need at least"),
    (["--evaluation-episodes", "1" + "0" * 12], "must be below 2**31"),
    (
        ["--baseline-epochs", "1" + "0" * 12],
        "--baseline-epochs = 1000000000000 must be below 2**31",
    ),
    (
        ["--num-minibatches", "1" + "0" * 12, "--algo", "ppo"],
        "--num-minibatches = 1000000000000 must",
    ),
    (["--log-every", "1" + "0" * 12], "--log-every = 1000000000000 must be below 2**31"),
]


@pytest.mark.parametrize(("args", "line"), HUGE, ids=[" ".join(args) for args, _ in HUGE])
def test_what_cannot_fit_is_refused_at_once(args, line, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "_free_bytes", lambda: 20 * 10**9)
    begin = time.monotonic()
    code, _, err = call("train", *OPTIONS, *args)
    assert (code, err.count("\n")) == (2, 1), err
    assert line in err
    assert time.monotonic() - begin < 10
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args",
    [
        ["--draws", "1000000000000", "--values", "discount=0.9..0.99"],
        ["--values", f"discount={','.join(['0.9'] * 4000)}", f"entropy_coef={'0,' * 40000}0"],
        ["--seeds", "99999999999", "--values", "discount=0.9,0.99"],
    ],
)
def test_a_sweep_that_cannot_fit_is_refused_at_once(args, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "_free_bytes", lambda: 20 * 10**9)
    code, _, err = call("sweep", *OPTIONS, *args)
    assert (code, err.count("\n")) == (2, 1), err
    assert not list(tmp_path.iterdir())


def test_what_fits_is_trained(tmp_path):
    config = purerl.vpg("CartPole-v1", num_envs=4, rollout_length=8, total_steps=64, hidden=(8,))
    needed = sizes.rollout_bytes(sizes.state_shape(config), config)
    assert needed == 8 * 4 * (4 + 1) * 4  # observations of 4 numbers, and a reward
    sizes.require_room(config, 4, episodes=2)
    with pytest.raises(ValueError, match="num_envs = 4 and rollout_length = 8 need at least"):
        sizes.require_room(config, 4, memory_limit=1000)
    with pytest.raises(ValueError, match="memory_limit = 0 must be"):
        sizes.require_room(config, 4, memory_limit=0)


CHANGES = {
    "environments": {"config": {"num_envs": 2 * 10**8}},
    "a rollout": {"config": {"rollout_length": 10**18}},
    "updates": {"config": {"num_updates": 10**18}},
    "widths": {"config": {"policy": {"hidden": [10**9]}}},
    "episodes": {"evaluation_episodes": 10**12},
    "a chunk": {"updates_per_chunk": 10**18},
    "seeds that repeat": {"seeds": [1] * 4},
    "a seed": {"seeds": [0, 1, 2, 10**30]},
    "a mesh": {"mesh": {"seeds": 10**18}},
    "another kind of seeds": {"seeds": "all"},
    "another kind of mesh": {"mesh": {"seeds": "8"}},
    "an escape sequence": {"env": "\x1b]0;title\x07"},
    "a time limit": {"config": {"env_params": {"max_steps_in_episode": 10**12}}},
    "no algorithm": {"config": {"algorithm": None}},
    "no network": {"config": {"policy": [[[]]]}},
}


def changed(header, changes):
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(header.get(name), dict):
            changed(header[name], value)
        else:
            header[name] = value
    return header


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_an_absurd_header_is_refused_at_once(change, finished, tmp_path, monkeypatch, call):
    monkeypatch.setattr(memory, "_free_bytes", lambda: 20 * 10**9)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    header = changed(read_checked_json(run / files.HEADER), change)
    write_checked_json(run / files.HEADER, header)
    for path in run.glob("checkpoints/*/manifest.json"):  # each has a copy
        write_checked_json(path, read_checked_json(path) | {"header": header})
    begin = time.monotonic()
    for command in (["evaluate", run, "--episodes", 2], ["resume", run, "--total-steps", 4096]):
        code, _, err = call(*command)
        if command[0] == "evaluate" and "evaluation_episodes" in change:
            continue  # it does not read them
        lines = [line for line in err.splitlines() if not line.startswith("purerl: warning: ")]
        assert (code, len(lines)) == (2, 1), err
        assert "\x1b" not in err
    assert time.monotonic() - begin < 20
