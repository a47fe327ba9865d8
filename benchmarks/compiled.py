"""What compilers make of the training program for accelerators: launches, temporaries, collectives.

Nothing runs, and no accelerator is needed: the extra `plan` has the compilers. Of one version of
a compiler the figures are the same every time; those of the committed code are in
results/compiled.json.

    python benchmarks/compiled.py                  # compile, print
    python benchmarks/compiled.py --check          # and fail where a figure has grown
    python benchmarks/compiled.py --write          # and keep the figures of these compilers
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # the compilers are loaded by their names
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"


import purerl
from purerl.compute.mesh import seed_mesh
from purerl.planning import hlo
from purerl.planning.compiling import PlannedRun
from purerl.planning.launches import LaunchBlock, count_launches
from purerl.planning.targets import parse_target, require_compiler

RESULTS = Path(__file__).parent / "results/compiled.json"
PROGRAMS = {"vpg": purerl.vpg, "ppo": purerl.ppo}
TARGETS = ("h200", "v5e:2x2")
SEEDS = 1024  # of each device
NUM_ENVS, ROLLOUT_LENGTH, CHUNK_UPDATES = 64, 128, 6


def measure(target_name: str, program: str) -> dict[str, Any]:
    """Compile CartPole-v1's training chunk for a target, and count."""
    target = parse_target(target_name)
    mesh = seed_mesh(target.devices())
    per_update = NUM_ENVS * ROLLOUT_LENGTH
    config = PROGRAMS[program](
        "CartPole-v1",
        num_envs=NUM_ENVS,
        rollout_length=ROLLOUT_LENGTH,
        total_steps=per_update * CHUNK_UPDATES,
    )
    run = PlannedRun(config, SEEDS * mesh.size, mesh, CHUNK_UPDATES)
    compiled = run.chunk().compile(target.compiler_options or None)
    module = hlo.parse_hlo(compiled.as_text())
    update = update_in(count_launches(module))
    rollouts = list(update.find("rollout.py"))
    in_rollouts = sum(loop.trips * loop.total_launches for loop in rollouts)
    return {
        "launches_per_env_step": in_rollouts / ROLLOUT_LENGTH,
        "env_steps_per_turn": ROLLOUT_LENGTH / max(1, sum(loop.trips for loop in rollouts)),
        "launches_per_update": update.total_launches,
        "launches_outside_rollout": update.total_launches - in_rollouts,
        "launches_outside_loops": sum(update.launches.values()),
        "loops": [each for loop in update.loops if loop not in rollouts for each in table(loop)],
        "temporaries_per_seed": compiled.memory_analysis().temp_size_in_bytes / SEEDS,
        "collectives": dict(module.collectives()),
    }


def compiler(target_name: str) -> str:
    """The versions that the figures depend on: jax's, with its compiler for GPUs, and libtpu's."""
    versions = require_compiler(parse_target(target_name))
    return ", ".join(f"{name} {versions[name]}" for name in ("jax", "libtpu") if name in versions)


def update_in(block: LaunchBlock) -> LaunchBlock:
    """The body of the innermost loop over updates: one update."""
    for loop in block.loops:
        if loop.places and loop.places[0].file == "training.py":
            return update_in(loop)
    return block


def table(loop: LaunchBlock, turns: int = 1) -> list[dict[str, Any]]:
    """A loop and those in it: where each comes from, its turns in an update, a turn's launches."""
    where = " in ".join(place.function for place in loop.places[:2])
    turns *= loop.trips
    own = {"loop": where, "turns": turns, "launches": sum(loop.launches.values())}
    return [own, *(each for inner in loop.loops for each in table(inner, turns))]


def grown(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Which figures are larger than they were."""
    names = ("launches_per_env_step", "launches_per_update", "temporaries_per_seed")
    larger = [
        f"{name}: {before[name]:g} → {now[name]:g}" for name in names if now[name] > before[name]
    ]
    if now["collectives"] != before["collectives"]:
        larger.append(f"collectives: {before['collectives']} → {now['collectives']}")
    return larger


def show(target: str, program: str, figures: dict[str, Any]) -> None:
    per_seed = figures["temporaries_per_seed"] / 1e6
    print(
        f"{target} {program}: {figures['launches_per_env_step']:g} launches an env step; "
        f"{figures['launches_per_update']} an update, {figures['launches_outside_rollout']} "
        f"of them not in the rollout; {per_seed:.2f} MB of temporaries a seed; "
        f"collectives: {figures['collectives'] or 'none'}"
    )
    print(f"    outside every loop: {figures['launches_outside_loops']}")
    for loop in figures["loops"]:
        total = loop["turns"] * loop["launches"]
        print(f"    {loop['loop']}: {loop['turns']} × {loop['launches']} = {total}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--programs", nargs="+", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--check", action="store_true", help="fail where a figure has grown")
    parser.add_argument("--write", action="store_true", help="keep the figures")
    options = parser.parse_args()

    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    worse = []
    for target in options.targets:
        version = compiler(target)
        for program in options.programs:
            figures = measure(target, program)
            show(target, program, figures)
            versions = kept.setdefault(target, {}).setdefault(program, {})
            before = versions.get(version)
            if options.check and before is None:
                worse.append(f"{target} {program}: nothing is kept for {version}")
            elif options.check:
                worse += [f"{target} {program}: {line}" for line in grown(figures, before)]
            versions[version] = figures
            if options.write:
                RESULTS.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    for line in worse:
        print(line, file=sys.stderr)
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
