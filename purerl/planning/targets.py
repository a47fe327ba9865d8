"""Machines to compile for without having them: their names, their memory, their speed.

The figures are those of the makers' data sheets. XLA's compiler needs a description of a GPU;
libtpu knows its TPUs.
"""

import dataclasses
import difflib
import math
import os
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Chip:
    """The figures of one device."""

    name: str
    memory: int
    """Bytes for programs."""
    bandwidth: float
    """Bytes a second to and from that memory."""
    flops: float
    """Operations a second, at most: of matrix units, at jax's default precision."""
    cache: int = 0
    """Bytes of the cache on the chip, which the compiler does not manage."""
    share: float = 1.0
    """The share of the memory that jax takes when it starts."""


@dataclasses.dataclass(frozen=True)
class Gpu(Chip):
    """A GPU, with what its compiler asks for."""

    capability: tuple[int, int] = (0, 0)
    cores: int = 0
    clock: float = 0.0
    """GHz."""
    units: int = 128
    """Units for float32 arithmetic in a core."""
    threads: int = 2048
    """Threads in a core, at most."""
    shared: int = 0
    """KiB of shared memory in a core; a block can have one less."""

    def describe(self) -> str:
        """The description that XLA reads, a `GpuTargetConfigProto`."""
        major, minor = self.capability
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {self.threads}
  shared_memory_per_block: 49152 shared_memory_per_block_optin: {(self.shared - 1) * 1024}
  shared_memory_per_core: {self.shared * 1024}
  core_count: {self.cores} fpus_per_core: {self.units} clock_rate_ghz: {self.clock}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {self.bandwidth:.0f} l2_cache_size: {self.cache}
  device_memory_size: {self.memory}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{self.name}"
"""


def _gpu(name: str, memory: int, gigabytes: int, tera: int, cache: int, **more: Any) -> Gpu:
    """Memory and cache in MiB; GB/s and TFLOP/s, of dense TF32."""
    # Without XLA_PYTHON_CLIENT_MEM_FRACTION jax takes three quarters of a GPU's memory.
    return Gpu(name, memory * MIB, gigabytes * 1e9, tera * 1e12, cache * MIB, 0.75, **more)


_HOPPER: Any = {"capability": (9, 0), "cores": 132, "clock": 1.98, "shared": 228}
_AMPERE: Any = {"capability": (8, 0), "cores": 108, "clock": 1.41, "shared": 164, "units": 64}
_ADA: Any = {"capability": (8, 9), "cores": 58, "clock": 2.04, "shared": 100, "threads": 1536}

GPUS: dict[str, Gpu] = {
    "h200": _gpu("NVIDIA H200", 144_384, 4800, 495, 50, **_HOPPER),
    "h100": _gpu("NVIDIA H100 80GB HBM3", 81_008, 3352, 495, 50, **_HOPPER),
    "a100-80g": _gpu("NVIDIA A100-SXM4-80GB", 81_158, 2039, 156, 40, **_AMPERE),
    "a100-40g": _gpu("NVIDIA A100-SXM4-40GB", 40_340, 1555, 156, 40, **_AMPERE),
    "l4": _gpu("NVIDIA L4", 22_574, 300, 60, 48, **_ADA),
}

# The memory that the runtime leaves to programs, from libtpu's message that one does not fit.
TPUS: dict[str, Chip] = {
    "v4": Chip("TPU v4", 31_488 * MIB, 1228e9, 275e12),
    "v5e": Chip("TPU v5e", 16_128 * MIB, 819e9, 197e12),
    "v5p": Chip("TPU v5p", 98_027 * MIB, 2765e9, 459e12),
    "v6e": Chip("TPU v6e", 31_989 * MIB, 1640e9, 918e12),
}

# The chips whose name is not what jax calls a device of them.
DEVICE_KINDS = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}

EXAMPLES = (*GPUS, "h100:8", "v4:2x2x1", "v5e:2x2", "v5e:2x4", "v5e:16x16", "v5p:2x2x1", "v6e:2x4")


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices of one kind, linked as their topology says."""

    name: str
    chip: Chip
    topology: str
    num_devices: int

    @property
    def compiler_options(self) -> dict[str, Any]:
        """Without a GPU at hand, its compiler cannot time one kernel against another."""
        return {"xla_gpu_autotune_level": 0} if isinstance(self.chip, Gpu) else {}

    def devices(self) -> list[Any]:
        """The devices as jax sees them; this loads the compiler into the process.

        **Raises:** `ValueError` where there is no such topology.
        """
        from jax.experimental import topologies

        if isinstance(self.chip, Gpu):
            gpu: dict[str, Any] = {"topology": self.topology, "target_config": self.chip.describe()}
            return topologies.get_topology_desc(self.name, platform="cuda", **gpu).devices
        # libtpu would ask the network for a TPU, and let in one process at a time.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        tpu: dict[str, Any] = {}
        if self.chip is TPUS["v4"]:  # both cores are one device, as when jax runs on it
            tpu["chip_config_name"] = "megacore"
        if self.num_devices == 1:  # else a host has four
            tpu["chips_per_host_bounds"] = (1, 1, 1)
        try:
            return topologies.get_topology_desc(self.name, platform="tpu", **tpu).devices
        except Exception as error:  # of a type that jax does not document
            reason = " ".join(str(error).split())
            raise ValueError(f"target = {self.name!r} is no topology of libtpu: {reason}") from None


def parse_target(name: str) -> Target:
    """The target of a name: `h100`, `h100:8`, `v5e:2x4`.

    **Raises:** `ValueError` for an unknown name, with the nearest and the list.
    """
    chip, _, shape = name.partition(":")
    if chip in GPUS and re.fullmatch(r"([1-9]\d{0,3})?", shape):
        count = int(shape or 1)
        return Target(name, GPUS[chip], f"1x1x{count}", count)
    if chip in TPUS and re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", shape):
        return Target(name, TPUS[chip], shape, math.prod(int(edge) for edge in shape.split("x")))
    nearest = difflib.get_close_matches(name, EXAMPLES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    tpus = ", ".join(example for example in EXAMPLES if example.partition(":")[0] in TPUS)
    raise ValueError(
        f"target = {name!r} is unknown; {hint}Targets are {', '.join(GPUS)}, with :8 for eight of "
        f"them, and TPUs with their topology, such as {tpus}."
    )


def chip_of(device_kind: str) -> Chip | None:
    """The figures of a device by the name that jax has for it; None where they are not known."""
    if device_kind in DEVICE_KINDS:
        return TPUS[DEVICE_KINDS[device_kind]]
    chips = (*GPUS.values(), *TPUS.values())
    return next((chip for chip in chips if chip.name == device_kind), None)


def require_compiler(target: Target) -> dict[str, str]:
    """The versions of the packages that compile for a target.

    **Raises:** `ValueError` where they are not installed, or not for this jax.
    """
    is_gpu = isinstance(target.chip, Gpu)
    gpu_compiler = ("jax-cuda13-plugin", "jax-cuda13-pjrt", "nvidia-cuda-nvcc", "nvidia-nvvm")
    packages = ("jax", "jaxlib", *(gpu_compiler if is_gpu else ("libtpu",)))
    versions = {package: _version(package) for package in packages}
    missing = [package for package, number in versions.items() if number is None]
    if missing:
        raise ValueError(
            f"target = {target.name!r} needs {', '.join(missing)}, not installed; "
            f"install purerl[plan] for this."
        )
    if is_gpu and versions["jax-cuda13-plugin"] != versions["jaxlib"]:
        raise ValueError(
            f"jax-cuda13-plugin {versions['jax-cuda13-plugin']} does not go with jaxlib "
            f"{versions['jaxlib']}; install purerl[plan] for this."
        )
    return {package: number for package, number in versions.items() if number is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
