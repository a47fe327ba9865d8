"""Files of two runs in one directory: each swapped for that of the other, and what reads them."""

import itertools
import json
import shutil

import numpy as np
import pytest
from directories import EVERY, contents, train_and_stop
from finished import train

import purerl
from purerl.experiment.store import files
from purerl.experiment.store.files import read_checked_json, write_checked_json
from purerl.experiment.store.finished_run import read_run
from purerl.experiment.store.identity import MARK, Identity, identity_of

FILES = (
    *("config.json", "summary.json", "metrics.npz", "learning_curve.png", "returns.png"),
    *("checkpoints/6/manifest.json", "checkpoints/6/states.npz", "checkpoints/6", "checkpoints/4"),
    *("records/000000002-000000004.npz", "records", "metrics.jsonl", "checkpoints"),
)
# What a command does not read makes no difference to it.
FIGURES = {"learning_curve.png", "returns.png"}
RECORDS = {"records/000000002-000000004.npz", "records"}
LOGS = {"metrics.jsonl"}
UNREAD = FIGURES | RECORDS | LOGS
READERS = {
    "resume": (lambda run, out: ("resume", run), set()),
    "evaluate": (
        lambda run, out: ("evaluate", run, "--episodes", 2, "--output", out / "e.json"),
        UNREAD,
    ),
    "export": (
        lambda run, out: ("export", run, "--seed", 1, "--output", out / "policy.npz"),
        UNREAD,
    ),
    "render": (
        lambda run, out: ("render", run, "--max-steps", 3, "--output", out / "a.gif"),
        UNREAD,
    ),
    "compare": (lambda run, out: ("compare", run, "--output", out / "c.png"), UNREAD),
    "table": (lambda run, out: ("export", run, "--metrics", out / "table.csv"), UNREAD),
    "load": (None, UNREAD),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two runs that differ in their root alone, so that any file of one could be the other's."""
    home = tmp_path_factory.mktemp("two")
    for root, name in enumerate(("ours", "theirs")):
        train(home / name, **EVERY, root=root, hooks=[purerl.JsonLines()])
    return home


def whose(path) -> Identity:
    identity = identity_of(path)
    assert identity is not None, path
    return identity


def swap(run, other, name):
    """Put a file or a folder of another run in the place of that of a run."""
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    source = other / name
    shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)


def told(out):
    """What a command has written, but for what says whose it is."""
    result = {}
    for path in sorted(out.iterdir()):
        if path.suffix == ".npz":
            arrays = files.read_arrays(path)
            result[path.name] = {k: v.tobytes() for k, v in arrays.items()}
        else:
            result[path.name] = path.read_bytes()
    return result


def carried_out(command, run, out, call):
    """The code of a command, its line, and what it has left."""
    out.mkdir()
    args = READERS[command][0]
    if args is not None:
        code, _, err = call(*args(run, out))
        return code, err, told(out)
    try:
        policy = purerl.load_policy(run, 1)
    except ValueError as error:
        return 2, f"purerl: {error}\n", {}
    return 0, "", {"policy": policy(np.ones(4, np.float32)).logits.tobytes()}


@pytest.mark.slow
@pytest.mark.parametrize("command", READERS)
def test_a_file_of_another_run_is_refused_or_makes_no_difference(command, two, tmp_path, call):
    """Every file that one run has under the name of another's, and what a command makes of it."""
    ids = {name: whose(two / name / "config.json").run for name in ("ours", "theirs")}
    run = shutil.copytree(two / "ours", tmp_path / "run")
    code, _, expected = carried_out(command, run, tmp_path / "expected", call)
    assert code == 0
    for number, name in enumerate(FILES):
        shutil.rmtree(run)
        shutil.copytree(two / "ours", run)
        swap(run, two / "theirs", name)
        before = contents(run)
        code, err, left = carried_out(command, run, tmp_path / str(number), call)
        case = (command, name, code, err)
        if name in READERS[command][1]:
            assert (code, left) == (0, expected), case
            continue
        assert code == 2, case
        assert err.count("\n") == 1, case
        assert "has files of two runs" in err, case
        assert all(each in err for each in ids.values()), case
        assert contents(run) == before, case


@pytest.mark.slow
def test_a_run_that_goes_on_refuses_every_pair_of_files_of_another(two, tmp_path, call):
    """Two at a time, of which one could vouch for the other; only all of them are a run."""
    run = tmp_path / "run"
    for pair in itertools.combinations(FILES, 2):
        shutil.copytree(two / "ours", run)
        for name in pair:
            if (run / name).exists():
                swap(run, two / "theirs", name)
        code, _, err = call("resume", run)
        assert (code, err.count("\n")) == (2, 1), (pair, code, err)
        assert "has files of two runs" in err, (pair, err)
        shutil.rmtree(run)


def test_a_directory_into_which_another_was_copied_is_no_run(two, tmp_path, call):
    run = train_and_stop(tmp_path / "run")
    shutil.copytree(two / "theirs", run, dirs_exist_ok=True)  # as rsync does
    shutil.copyfile(two / "ours/config.json", run / "config.json")
    for args in (("resume", run), ("evaluate", run), ("compare", run)):
        code, _, err = call(*args)
        assert (code, err.count("\n")) == (2, 1)
        assert "has files of two runs" in err


def test_two_copies_of_one_run_that_went_on_are_told_apart(two, tmp_path, call):
    further = shutil.copytree(two / "ours", tmp_path / "further")
    with pytest.warns(UserWarning, match="schedule now runs"):
        purerl.resume(further, total_steps=4 * 8 * 8, progress=False)
    assert read_checked_json(further / "config.json")["resumptions"] == 1
    run = shutil.copytree(two / "ours", tmp_path / "run")
    swap(run, further, "metrics.npz")
    code, _, err = call("compare", run, "--output", tmp_path / "a.png")
    assert (code, err.count("\n")) == (2, 1)
    assert "has files of two copies of one run: 'metrics.npz' was written when it had" in err


def test_metrics_that_the_summary_was_not_written_for_are_not_read(two, tmp_path):
    run = shutil.copytree(two / "ours", tmp_path / "run")
    arrays = files.read_arrays(run / "metrics.npz")
    entropy, arrays["entropy"] = arrays["entropy"], arrays["entropy"] + 1
    files.write_arrays(run / "metrics.npz", arrays)
    with pytest.warns(UserWarning, match=r"metrics\.npz is missing or damaged; the records are"):
        again = read_run(run)
    np.testing.assert_array_equal(again.arrays["entropy"], entropy)


def test_every_file_of_a_run_says_of_which_run_it_is(two, tmp_path, call):
    """And so does all that is made of it."""
    run = shutil.copytree(two / "ours", tmp_path / "run")
    known = whose(run / "config.json")
    assert known != whose(two / "theirs/config.json")
    for args in (
        ("evaluate", run, "--episodes", 2),
        ("export", run, "--seed", 1),
        ("compare", run, "--output", run / "compared.png"),
        ("render", run, "--max-steps", 3),
        ("export", run, "--metrics", run / "table.csv", "--scores", run / "scores.npz"),
    ):
        code, _, err = call(*args)
        assert code == 0, err
    for path in sorted(run.rglob("*")):
        if path.is_file() and path.name != ".lock":
            assert known.run.encode() in path.read_bytes() or path.name == "scores.npz", path
    assert files.read_arrays(run / "scores.npz")["runs"].tolist() == [[known.run]]
    for path in (run / "policy_1.npz", run / "evaluation_greedy.json"):
        assert whose(path)[:2] == known[:2]


def test_a_run_that_goes_on_keeps_its_id_and_counts_how_often(tmp_path):
    run = train_and_stop(tmp_path / "run")
    begun = whose(run / "config.json")
    assert begun.resumptions == 0
    purerl.resume(run, progress=False)
    for name in ("config.json", "summary.json", "metrics.npz", "checkpoints/6/manifest.json"):
        assert whose(run / name) == begun._replace(resumptions=1), name
    assert whose(run / "checkpoints/4/manifest.json") == begun
    purerl.resume(run, progress=False)  # which loads it
    assert whose(run / "config.json") == begun._replace(resumptions=1)


def test_a_run_that_is_begun_again_keeps_the_id_of_what_it_left(tmp_path):
    run = train_and_stop(tmp_path / "run", updates=0)
    begun = whose(run / "config.json")
    train(run, **EVERY)
    assert whose(run / "summary.json") == begun


def test_a_run_that_is_begun_again_after_it_went_on_can_go_on(tmp_path):
    run = train_and_stop(tmp_path / "run", updates=0)
    changed(run, "config.json", resumptions=1)  # a resume that has died before a checkpoint
    train(run, **EVERY)
    assert whose(run / "summary.json").resumptions == 1


def test_the_header_of_a_checkpoint_serves_where_logs_are_of_a_later_start(two, tmp_path):
    run = shutil.copytree(two / "ours", tmp_path / "run")
    (run / "config.json").write_text("{")
    known = whose(run / "summary.json")
    (run / "metrics.jsonl").write_text(f"{known._replace(resumptions=1).text()}\n")
    with pytest.warns(UserWarning, match="the copy in the checkpoint is used"):
        assert purerl.resume(run, progress=False).updates == 6


def test_two_loggers_at_one_place_are_refused_before_anything_is_trained(two, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    twice = [purerl.JsonLines(), purerl.JsonLines(tmp_path / "link/metrics.jsonl")]
    with pytest.raises(ValueError, match=r"two loggers write to .*metrics\.jsonl"):
        train(tmp_path / "run", hooks=twice)
    assert not (tmp_path / "run/checkpoints").exists()
    theirs, mine = two / "theirs/metrics.jsonl", tmp_path / "mine.jsonl"
    mine.write_text("mine\n")
    for path, problem in ((theirs, "is of run"), (mine, "purerl did not write")):
        before = path.read_bytes()
        with pytest.raises(ValueError, match=f"would write over .*{path.name}', which {problem}"):
            train(tmp_path / "run", hooks=[purerl.JsonLines(path)])
        assert path.read_bytes() == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_runs_in_one_directory_of_tensorboard_are_refused(tmp_path):
    pytest.importorskip("tensorboardX")
    board = tmp_path / "board"
    train(tmp_path / "one", hooks=[purerl.TensorBoard(board)])
    with pytest.raises(ValueError, match=r"TensorBoard would write over .*board', which is of run"):
        train(tmp_path / "two", hooks=[purerl.TensorBoard(board)])
    (board / "purerl.json").unlink()
    with pytest.raises(ValueError, match="board', which has event files of others"):
        train(tmp_path / "two", hooks=[purerl.TensorBoard(board)])


def changed(run, name, **fields):
    content = read_checked_json(run / name)
    content |= {key: value for key, value in fields.items() if value is not None}
    for key in [key for key, value in fields.items() if value is None]:
        del content[key]
    write_checked_json(run / name, content)


@pytest.mark.parametrize(
    "name", ["evaluate_every", "checkpoint_every", "keep_checkpoints", "target_return", "hooks"]
)
def test_a_field_that_has_a_default_may_be_missing(name, two, tmp_path):
    run = shutil.copytree(two / "ours", tmp_path / "run")
    changed(run, "config.json", **{name: None})
    assert read_run(run).env == "CartPole-v1"
    assert purerl.resume(run, progress=False).updates == 6


@pytest.mark.parametrize("name", ["config.json", "summary.json", "checkpoints/6/manifest.json"])
def test_a_field_that_is_not_known_is_a_line(name, two, tmp_path, call):
    run = shutil.copytree(two / "ours", tmp_path / "run")
    changed(run, name, colour="blue")
    code, _, err = call("resume", run)
    assert code == 0, err
    assert "has fields that this version does not know: colour" in err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "summary.json", "checkpoints/6/manifest.json"])
def test_a_field_that_is_missing_costs_a_line_and_no_traceback(name, two, tmp_path, call):
    """Each in turn: the run is refused, or read from what is left of it."""
    run = shutil.copytree(two / "ours", tmp_path / "run")
    whole = read_checked_json(run / name)
    for field in whole:
        write_checked_json(run / name, {k: v for k, v in whole.items() if k != field})
        for args in (
            ("export", run, "--scores", tmp_path / "scores.npz"),
            ("export", run, "--seed", 1, "--output", tmp_path / "policy.npz"),
        ):
            code, _, err = call(*args)
            lines = [row for row in err.splitlines() if not row.startswith("purerl: warning: ")]
            assert (code, len(lines)) in ((0, 0), (2, 1)), (field, err)


def test_arrays_are_compared_and_the_mark_is_none_of_them(two):
    arrays = files.read_arrays(two / "ours/metrics.npz")
    assert next(iter(arrays)) == MARK
    assert json.loads(arrays[MARK].tobytes())["run"] == whose(two / "ours/config.json").run
    assert MARK not in read_run(two / "ours").arrays
