"""Several processes as one run: join them through jax, and end them."""

import os
import socket
import warnings

import jax

from purerl.checks import first_line
from purerl.experiment.hosts.processes import message_at_exit


def initialize(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_timeout: int = 60,
) -> None:
    """Join the other processes of a run; call it before anything starts the backend.

    **Arguments:** give `coordinator`, `num_processes` and this one's `process_id`, or none of them
    where the cluster's environment names them (Slurm, Open MPI, Kubernetes, TPU pods). After
    `heartbeat_timeout` seconds of silence a process counts as dead.

    **Raises:** `ValueError` where neither names them, or jax refuses them.
    """
    if heartbeat_timeout < 1:
        raise ValueError(f"heartbeat_timeout = {heartbeat_timeout} must be at least 1 second.")
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        one = next(name for name in given if name not in missing)
        raise ValueError(
            f"{one} is given, and {', '.join(missing)} is not; give all three, or none."
        )
    if coordinator is not None and num_processes is not None and process_id is not None:
        _require_valid(coordinator, num_processes, process_id)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    address = coordinator or "that the cluster's environment names"
    with message_at_exit(
        f"purerl: the coordinator {address} was not reached, or not by all processes; check its "
        f"address, and that every process was started."
    ):
        try:
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                # The arguments count, whatever cluster this is.
                cluster_detection_method=None if coordinator is None else "deactivate",
                heartbeat_timeout_seconds=heartbeat_timeout,
                shutdown_timeout_seconds=heartbeat_timeout,
            )
        except (ValueError, RuntimeError) as error:
            raise ValueError(_join_error(coordinator, error)) from error
    if jax.devices()[0].platform == "cpu":
        # A program from the cache may run its collectives in another order (jaxlib 0.10.2): one
        # process then sums a gradient while another waits for a number.
        jax.config.update("jax_enable_compilation_cache", False)
    if jax.process_index() > 0:  # the first process warns for all
        warnings.simplefilter("ignore")


def _join_error(coordinator: str | None, error: Exception) -> str:
    """Why the processes cannot be joined, in one line."""
    reason = first_line(error).rstrip(".")
    if coordinator is not None:
        return f"coordinator = {coordinator!r} cannot be used: {reason}."
    if isinstance(error, RuntimeError):
        return f"distributed: the other processes cannot be joined: {reason}."
    options = "--coordinator HOST:PORT --num-processes N --process-id I"
    return f"distributed: no cluster's environment was found; give {options}."


def _require_valid(coordinator: str, num_processes: int, process_id: int) -> None:
    """Refuse numbers with which the processes cannot find each other."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"coordinator = {coordinator!r} must be HOST:PORT.")
    if num_processes < 1:
        raise ValueError(f"num_processes = {num_processes} must be at least 1.")
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"process_id = {process_id} must be from 0 to "
            f"{num_processes - 1}: there are {num_processes} processes."
        )
    if process_id == 0:
        _require_free_port(coordinator, int(port))


def _require_free_port(coordinator: str, port: int) -> None:
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


def exit_process(code: int, *, at_once: bool = False) -> None:
    """End the process; `at_once` does not wait for the others, which notice that it is gone."""
    if at_once and jax.distributed.is_initialized():
        os._exit(code)
    raise SystemExit(code)
