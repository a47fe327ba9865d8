"""How long is it until the training program is compiled, and what is it compiled from?

`jax.jit(jax.vmap(purerl.train))` of PPO on CartPole-v1 beside rejax's, in CPU seconds (user and
system) of a fresh process for each: making the config, tracing, lowering, XLA. Then the same of an
environment whose step and reset are 2,000 operations each, beside a plain rollout of it. The
processes take turns: A B C A B C …

    python benchmarks/compile.py                             # makes .venv-peers at first
    python benchmarks/compile.py --only purerl --purerl . ../other --repeats 5

Everything runs on the CPU, with the compilation cache off.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arguments import count

TOP = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
WORK = {"num_envs": 4, "rollout_length": 128, "updates": 20, "seeds": 16}
COSTLY_OPERATIONS = 2_000
PARTS = ("make", "trace", "lower", "xla")
PAIRS = {"purerl": "rejax", "purerl, costly environment": "rollout, costly environment"}


def costly_env() -> Any:
    """CartPole, with so many operations more in its step and in its reset that nothing folds."""
    import gymnax
    import jax.numpy as jnp

    env, _ = gymnax.make("CartPole-v1")

    class Costly(type(env)):
        def step(self, key, state, action, params=None):
            obs, state, *rest = super().step(key, state, action, params)
            return (_operations(jnp, obs), state, *rest)

        def reset(self, key, params=None):
            obs, state = super().reset(key, params)
            return _operations(jnp, obs), state

    return Costly()


def _operations(jnp: Any, obs: Any) -> Any:
    x = obs
    for i in range(COSTLY_OPERATIONS // 4):
        x = jnp.where(x > i, x * (1 + 1e-7 * i), x + 1e-7 * i)
    return x


def purerl_program(env: Any) -> tuple[Any, tuple[Any, ...]]:
    """The training of many seeds, as a user maps it, and its arguments."""
    import jax
    from contenders import purerl_config

    import purerl

    config = purerl_config(WORK, env)
    return jax.jit(jax.vmap(purerl.train, (0, None))), (
        purerl.seed_keys(0, WORK["seeds"]),
        config,
    )


def rejax_program(env: Any) -> tuple[Any, tuple[Any, ...]]:
    """rejax's training of as many seeds."""
    import jax
    from contenders import rejax_algorithm

    train = jax.jit(jax.vmap(rejax_algorithm(WORK).train))
    return train, (jax.random.split(jax.random.PRNGKey(0), WORK["seeds"]),)


def rollout_program(env: Any) -> tuple[Any, tuple[Any, ...]]:
    """No more than the environment: reset, and scans of steps with a linear policy."""
    import jax
    import jax.numpy as jnp

    params = env.default_params

    def act(carry, key):
        obs, state, weight = carry
        obs, state, reward, *_ = env.step(key, state, jnp.argmax(obs @ weight), params)
        return (obs, state, weight), reward

    def roll_out(carry, key):
        carry, rewards = jax.lax.scan(act, carry, jax.random.split(key, WORK["rollout_length"]))
        return carry, jnp.sum(rewards)

    def train(key):
        reset_key, key = jax.random.split(key)
        obs, state = env.reset(reset_key, params)
        start = obs, state, jnp.ones((obs.size, 2))
        return jax.lax.scan(roll_out, start, jax.random.split(key, WORK["updates"]))

    def train_envs(key):
        return jax.vmap(train)(jax.random.split(key, WORK["num_envs"]))

    return jax.jit(jax.vmap(train_envs)), (jax.random.split(jax.random.key(0), WORK["seeds"]),)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


PROGRAMS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "purerl": (purerl_program, False),
    "rejax": (rejax_program, False),
    "purerl, costly environment": (purerl_program, True),
    "rollout, costly environment": (rollout_program, True),
}


def work(name: str) -> dict[str, float]:
    """In a process of its own: compile one program, and say how long each part took."""
    import jax

    if name.startswith("purerl"):
        import purerl

        purerl.ppo  # noqa: B018 (imported before the clock starts)
    make, is_costly = PROGRAMS[name]
    env = costly_env() if is_costly else "CartPole-v1"
    jax.block_until_ready(jax.random.split(jax.random.key(0)))
    times = [cpu_seconds()]

    def clock(result: Any) -> Any:
        times.append(cpu_seconds())
        return result

    program, args = clock(make(env))
    clock(clock(clock(program.trace(*args)).lower()).compile())
    return {part: times[i + 1] - times[i] for i, part in enumerate(PARTS)}


def run(name: str, python: Path, home: Path | None, dump: Path | None = None) -> dict[str, float]:
    """Start the process of one program, and read what it says."""
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0"}
    variables |= {} if dump is None else {"XLA_FLAGS": f"--xla_dump_to={dump}"}
    variables |= {} if home is None else {"PYTHONPATH": str(home)}
    out = subprocess.run(
        [str(python), __file__, "--work", name],
        env=variables,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(out.stdout.splitlines()[-1])


def count_code(name: str, python: Path, home: Path | None) -> dict[str, int]:
    """The modules that LLVM compiles, and the lines of them after its optimisations."""
    with tempfile.TemporaryDirectory() as folder:
        run(name, python, home, Path(folder))
        files = list(Path(folder).glob("*ir-with-opt*.ll"))
        return {"modules": len(files), "lines": sum(f.read_text().count("\n") for f in files)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PROGRAMS), default=list(PROGRAMS))
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--purerl", nargs="+", type=Path, default=[TOP], help="checkouts of purerl")
    parser.add_argument("--environment", type=Path, default=TOP / ".venv-peers")
    parser.add_argument("--output", type=Path, default=RESULTS / "compile_cpu.json")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.work)))
        return

    from peers import peers_python
    from surroundings import revision, surroundings
    from text_tables import show_table

    from purerl.measuring.spreads import ratio, spread

    runs = []
    for name in options.only:
        if name == "rejax":
            runs.append((name, name, peers_python(options.environment), None))
            continue
        for home in [each.resolve() for each in options.purerl]:
            several = len(options.purerl) > 1 and name.startswith("purerl")
            runs.append((f"{name} ({home.name})" if several else name, name, sys.executable, home))
            if not several:
                break
    found: dict[str, list[dict[str, float]]] = {label: [] for label, *_ in runs}
    for _ in range(options.repeats):
        for label, name, python, home in runs:
            found[label].append(run(name, python, home))
            print(label, found[label][-1], flush=True)

    rows, results = [], {}
    for label, name, python, home in runs:
        repeats = found[label]
        code = count_code(name, python, home) if name != "rejax" else {}
        total = [sum(each[part] for part in PARTS[1:]) for each in repeats]
        other = PAIRS.get(name)
        to_other = None
        if other in found:
            others = [sum(each[part] for part in PARTS[1:]) for each in found[other]]
            to_other = ratio(total, others)
        results[label] = {
            "repeats": repeats,
            "code": code,
            "ratio_to_pair": None if to_other is None else to_other._asdict(),
            "revision": None if home is None else revision(home),
        }
        parts = [spread([each[part] for each in repeats]).show(digits=2) for part in PARTS]
        shown = "" if to_other is None else to_other.show(digits=2)
        rows.append([label, *parts, spread(total).show(digits=2), *code.values(), shown])
    header = ["CPU seconds", *PARTS, "without make", "modules", "lines", "ratio to pair"]
    print(
        show_table(header, [row if len(row) == 9 else [*row[:6], "", "", row[-1]] for row in rows])
    )
    result = {"surroundings": surroundings(), "work": WORK, "programs": results}
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
