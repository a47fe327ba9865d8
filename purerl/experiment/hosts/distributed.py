"""Several processes as one run: jax's own runtime, started by what started the processes."""

import os
import socket
import warnings

import jax

from purerl.cli.options import Distributed
from purerl.experiment.hosts.processes import last_words


def initialize(options: Distributed) -> None:
    """Join the other processes of a run; it must be called before anything starts the backend.

    Coordinator, number of processes and this one's number are those of the cluster's environment
    (Slurm, Open MPI, Kubernetes, TPU pods), or those that are given.

    **Raises:** `ValueError` where neither says them, only some are given, or jax refuses them.
    """
    given = {
        "coordinator": options.coordinator,
        "num_processes": options.num_processes,
        "process_id": options.process_id,
    }
    named = [name for name, value in given.items() if value is not None]
    if not options.distributed:
        if named:
            raise ValueError(f"{named[0]} has no effect without --distributed; add it.")
        return
    if named and len(named) < len(given):
        missing = ", ".join("--" + name.replace("_", "-") for name in given if name not in named)
        raise ValueError(f"{named[0]} is given, and {missing} is not; give all three, or none.")
    if options.heartbeat_timeout < 1:
        raise ValueError(
            f"heartbeat_timeout = {options.heartbeat_timeout} must be at least 1 second."
        )
    _require_fitting(options)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    where = options.coordinator or "that the cluster's environment names"
    with last_words(
        f"purerl: the coordinator {where} was not reached, or not by all processes; check its "
        f"address, and that every process was started."
    ):
        try:
            jax.distributed.initialize(
                options.coordinator,
                options.num_processes,
                options.process_id,
                # What is given counts alone, whatever cluster this is.
                cluster_detection_method="deactivate" if named else None,
                heartbeat_timeout_seconds=options.heartbeat_timeout,
                shutdown_timeout_seconds=options.heartbeat_timeout,
            )
        except (ValueError, RuntimeError) as error:
            raise ValueError(_refused(options, error)) from error
    if jax.devices()[0].platform == "cpu":
        # A program that comes from the cache no longer has its collectives in one order (jaxlib
        # 0.10.2): one process adds up a gradient while another waits with a number.
        jax.config.update("jax_enable_compilation_cache", False)
    if jax.process_index() > 0:  # what all would say, the first says
        warnings.simplefilter("ignore")


def _require_fitting(options: Distributed) -> None:
    """Refuse numbers with which the processes cannot find each other."""
    if options.coordinator is None or options.num_processes is None or options.process_id is None:
        return
    host, _, port = options.coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"coordinator = {options.coordinator!r} must be HOST:PORT.")
    if options.num_processes < 1:
        raise ValueError(f"num_processes = {options.num_processes} must be at least 1.")
    if not 0 <= options.process_id < options.num_processes:
        raise ValueError(
            f"process_id = {options.process_id} must be from 0 to "
            f"{options.num_processes - 1}: there are {options.num_processes} processes."
        )
    if options.process_id == 0:
        _require_free(options.coordinator, int(port))


def _require_free(coordinator: str, port: int) -> None:
    """Refuse a port at which this process cannot listen: jaxlib 0.10.2 would crash."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"coordinator = {coordinator!r} cannot be used: {reason}; give another port."
        ) from error


def leave(code: int, *, at_once: bool = False) -> None:
    """End the process; `at_once` without waiting for the others, which come to know it by that."""
    if at_once and jax.distributed.is_initialized():
        os._exit(code)
    raise SystemExit(code)


def _refused(options: Distributed, error: Exception) -> str:
    """Why the processes cannot be joined, in one line."""
    reason = (str(error).splitlines() or [repr(error)])[0].rstrip(".")
    if options.coordinator is not None:
        return f"coordinator = {options.coordinator!r} cannot be used: {reason}."
    if isinstance(error, RuntimeError):
        return f"distributed: the other processes cannot be joined: {reason}."
    return (
        "distributed: no cluster's environment was found; give --coordinator HOST:PORT "
        "--num-processes N --process-id I."
    )
