"""One run on several processes: who they are, what they agree on, how they end.

Every process runs the same command. Process 0 alone reads and writes the workdir;
`on_writer` tells all processes what process 0 found or raised, so that all take the
same path. With one process every function here is the identity, and costs nothing.

    --coordinator=HOST:PORT --num_processes=N --process_id=I
                    by hand: the address of process 0, how many, which one this is
    --distributed   as the environment says: a TPU pod, SLURM, Open MPI
"""

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.arguments import Parser
from experiments.errors import ConfigError
from experiments.processes.watch import Watch

__all__ = [
    "HELP",
    "Job",
    "any_process",
    "gather",
    "is_writer",
    "join",
    "leave",
    "mesh",
    "on_writer",
    "read_flags",
    "replicate",
    "to_host",
]

T = TypeVar("T")
HELP = """\
Several devices, several processes (docs/cluster.md); each process has the same command:

    --devices=N                of all processes. Not given: all of them, but for one run
                               in a single process its first device
    --distributed              which and how many as TPU pods, SLURM and Open MPI say
    --coordinator=HOST:PORT    by hand: an address of process 0 that all can reach
    --num_processes=N --process_id=I"""
# A machine that vanishes without a word is noticed by JAX's heartbeats after this.
_HEARTBEAT_SECONDS = 60
_START_SECONDS = 300
_watch: Watch | None = None


class Job(NamedTuple):
    """How this process finds the others.

    Attributes:
      coordinator: `HOST:PORT` of process 0; None is what the environment says.
      num_processes: how many; None is what the environment says.
      process_id: which one this is; None is what the environment says.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


def read_flags(argv: Sequence[str]) -> tuple[Job | None, int, list[str]]:
    """Reads the flags of a job of several devices and processes.

    Returns:
      The job, or None where no flag asks for one, the number of devices (0: not said),
      and the other arguments.

    Raises:
      ConfigError: some are missing, or have no sense together.

    >>> read_flags(["mnist", "--coordinator=h:1", "--num_processes=2", "--process_id=0",
    ...             "--workdir=run"])[0]
    Job(coordinator='h:1', num_processes=2, process_id=0)
    >>> read_flags(["mnist", "--distributed", "--devices=4"])
    (Job(coordinator=None, num_processes=None, process_id=None), 4, ['mnist'])
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--distributed", action="store_true")
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    parser.add_argument("--devices", type=int, default=0)
    found, rest = parser.parse_known_args(list(argv))
    job = Job(found.coordinator, found.num_processes, found.process_id)
    if found.devices < 0:
        raise ConfigError(f"--devices={found.devices}, expected 0 (all) or more")
    if job == Job():
        return (job if found.distributed else None), found.devices, rest
    given = " ".join(f"--{k}={v}" for k, v in job._asdict().items() if v is not None)
    if found.distributed:
        raise ConfigError(f"--distributed and {given}: expected one or the other")
    if job.coordinator is None or job.num_processes is None or job.process_id is None:
        raise ConfigError(
            f"{given}: expected --coordinator=HOST:PORT, --num_processes=N and "
            "--process_id=I together, or --distributed alone"
        )
    host, _, port = job.coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"--coordinator={job.coordinator}: expected HOST:PORT, an address of "
            "process 0 that every process can reach, such as 10.0.0.1:1234"
        )
    if not 0 <= job.process_id < job.num_processes:
        raise ConfigError(
            f"--process_id={job.process_id} with --num_processes={job.num_processes}: "
            f"expected an id from 0 to {job.num_processes - 1}"
        )
    return job, found.devices, rest


def join(job: Job | None) -> None:
    """Joins the other processes; before anything asks JAX for a device.

    From here on a process that dies stops the others within seconds, with one line and
    exit code `watch.LOST`. What processes other than 0 print is dropped, errors apart.

    Raises:
      ConfigError: there is no such job, or not all of it came.
    """
    global _watch
    if job is None:
        return
    try:
        jax.distributed.initialize(
            *job,
            initialization_timeout=_START_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        if job.coordinator is None:
            raise ConfigError(
                "--distributed: the environment names no job (expected a TPU pod, "
                "SLURM's srun or Open MPI's mpirun); by hand it is --coordinator="
                "HOST:PORT --num_processes=N --process_id=I"
            ) from error
        raise ConfigError(
            f"process {job.process_id} of {job.num_processes} cannot join at "
            f"{job.coordinator} ({' '.join(str(error).split())[:200]}): expected all "
            f"processes, started within {_START_SECONDS} s of one another"
        ) from error
    if not is_writer():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if jax.process_count() > 1:
        host = (job.coordinator or "").rpartition(":")[0].strip("[]")
        index, count = jax.process_index(), jax.process_count()
        try:
            _watch = Watch(index, count, on_writer, host)
        except OSError as error:
            raise ConfigError(
                f"process {index} of {count} cannot watch the others ({error}): "
                "expected that every process reaches all ports of process 0's machine"
            ) from error


def leave(code: int) -> NoReturn:
    """Ends the process with an exit code, together with the others.

    JAX's own way out waits for every process for minutes, also for one that waits for
    this one in a collective: where this process failed alone, it does not come.
    """
    if _watch is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        _watch.leave(code)
        os._exit(code)
    sys.exit(code)


def is_writer() -> bool:
    """Whether this process reads and writes the workdir: process 0."""
    # Asking for the index of the only process would wait for its devices.
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def on_writer(function: Callable[[], T]) -> T:
    """Calls a function in process 0 alone; all processes get its result.

    All must call it, in the same order.

    Args:
      function: its result, or what it raises, can be pickled.

    Returns:
      What it returned.

    Raises:
      Exception: what it raised, in every process.
    """
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return function()
    result, error, payload = None, None, b""
    if is_writer():
        try:
            result = function()
        except Exception as raised:
            error = raised
        payload = pickle.dumps((result, error))
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(payload))))
    # A power of two: few programs, whatever the sizes.
    room = np.zeros(1 << max(size - 1, 1).bit_length(), np.uint8)
    room[: len(payload)] = np.frombuffer(payload, np.uint8)
    sent = np.asarray(multihost_utils.broadcast_one_to_all(room))
    if not is_writer():
        result, error = pickle.loads(sent[:size].tobytes())
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def gather(value: Any) -> np.ndarray:
    """A host value `[...]` of every process, `[num_processes, ...]`, in every one."""
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return np.asarray(value)[None]
    return np.asarray(multihost_utils.process_allgather(np.asarray(value)))


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; all must ask."""
    return bool(gather(flag).any())


def to_host(tree: Any) -> Any:
    """All of sharded or replicated arrays, as NumPy arrays, in every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def mesh(axis_name: str, num_devices: int = 0) -> Mesh:
    """Devices of all processes along one (Auto) axis.

    Args:
      axis_name: of the axis.
      num_devices: how many, the same number of each process; 0 is all.

    Raises:
      ConfigError: there are not so many, or not as many of each process.
    """
    devices, count = jax.devices(), jax.process_count()
    num_devices = num_devices or len(devices)
    if num_devices > len(devices) or num_devices % count:
        raise ConfigError(
            f"--devices={num_devices}, expected at most {len(devices)}, the devices "
            f"there are, and a multiple of {count}, the number of processes"
        )
    chosen: list[jax.Device] = []
    for process in range(count):
        own = [device for device in devices if device.process_index == process]
        chosen += own[: num_devices // count]
    return Mesh(np.array(chosen), (axis_name,), axis_types=(AxisType.Auto,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Host arrays, the same in every process, as arrays on every device of a mesh."""
    sharding = NamedSharding(mesh, PartitionSpec())

    def put(leaf: Any) -> jax.Array:
        # device_put would compare the processes' values, over the network.
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])

    return jax.tree.map(put, tree)
