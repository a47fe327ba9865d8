"""Packages for a machine without a network: fetched here, installed there from a folder.

The target has Python 3.12 on x86-64 Linux with glibc 2.28 or later, and in it jax 0.11 with CUDA,
jaxlib, equinox, optax, chex, flax, orbax, rich, numpy, scipy, pandas and matplotlib.
"""

import shutil
import subprocess
import sys
from pathlib import Path

PYTHON = "3.12"
# pip takes each tag by itself: a newer glibc's does not bring the older ones, and plain
# `linux_x86_64` finds no compiled wheel.
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
)
LIMIT = 40 * 2**20  # bytes of all wheels together

# What the target has of purerl's dependencies.
TARGET = ("jax", "equinox", "optax", "chex", "rich", "numpy", "scipy", "matplotlib")
# What purerl needs beside that, and what it needs in turn.
COMMON = (
    *(
        "gymnax==1.0.1",
        "gymnasium==1.3.0",
        "farama-notifications",
        "cloudpickle",
        "seaborn==0.13.2",
    ),
    *("six", "tyro>=1.0,<2", "docstring-parser", "typeguard"),
    *("jaxtyping>=0.3.11,<0.4", "wadler-lindig", "filelock>=3.30,<5"),
)
# rejax needs another gymnax: these lie in a folder that only its process sees.
REJAX = (
    *("rejax==0.1.3", "gymnax==0.0.9", "distrax>=0.1.5", "tfp-nightly"),
    *("decorator", "dm-tree", "gast", "pyyaml", "attrs", "wrapt"),
)
FOLDERS = {"common": COMMON, "rejax": REJAX}


def download(folder: Path) -> None:
    """Fetch the wheels of both folders, and say how large they are.

    **Raises:** `SystemExit` where one is not to be had, or where they are larger than the limit.
    """
    for name, packages in FOLDERS.items():
        into = folder / name
        into.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *tags()]
        done = subprocess.run([*command, "--dest", str(into), *packages])
        if done.returncode:
            raise SystemExit(f"the packages of {name} could not be fetched")
    size = wheels_bytes(folder)
    print(f"{size / 2**20:.1f} MiB in {folder}")
    if size > LIMIT:
        raise SystemExit(f"that is more than {LIMIT / 2**20:.0f} MiB")


def tags() -> list[str]:
    """pip's options for the target."""
    platforms = [each for tag in PLATFORMS for each in ("--platform", tag)]
    python = ["--python-version", PYTHON, "--implementation", "cp"]
    return ["--only-binary=:all:", *python, *platforms]


def wheels_bytes(folder: Path) -> int:
    """Bytes of all wheels."""
    return sum(path.stat().st_size for path in folder.glob("*/*.whl"))


def install(folder: Path) -> Path:
    """Install the wheels of both folders below them, without an index; nothing where it was done.

    **Raises:** `SystemExit` where there are no wheels, or pip refuses them.
    """
    installed = folder.resolve() / "installed"
    for name in FOLDERS:
        wheels = sorted(map(str, (folder / name).glob("*.whl")))
        if not wheels:
            raise SystemExit(f"{folder / name} has no wheels; fill it with --wheels {folder}")
        target, begun = installed / name, installed / f"{name}.part"
        if target.exists():
            continue
        shutil.rmtree(begun, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        done = subprocess.run([*command, "--no-compile", "--target", str(begun), *wheels])
        if done.returncode:
            raise SystemExit(f"the wheels of {folder / name} could not be installed")
        begun.rename(target)
    return installed


def python_path(installed: Path | None) -> list[str]:
    """What purerl's processes find beside the target's own packages."""
    return [] if installed is None else [str(installed / "common")]


def rejax_path(installed: Path | None) -> list[str]:
    """What rejax's process finds first."""
    return [] if installed is None else [str(installed / "rejax"), str(installed / "common")]
