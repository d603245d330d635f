"""Who am I: rank, world size, device, process group; and the few collectives that the trainer needs.

The only reader of torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE). Importing this module does
not import torch, so that the loader can ask for its rank in a process that has none.

Invariant: when WORLD_SIZE is more than one, `connect` always makes a process group, on CPU (gloo) as on CUDA (NCCL).
Without one, ranks would read different data and drift apart in silence.

    world = connect("auto")          # under torchrun or alone
    sum_over_ranks(loss_and_count)   # in place; nothing to do when alone
    disconnect()
    leave(0)                         # the end of a program that may have been a rank
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from nanofast.errors import InvalidError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class World:
    """This process among its equals. `local_*` count the processes of one machine."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True in the one process that prints, logs and writes checkpoints."""
        return self.rank == 0


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        raise InvalidError(
            f"environment variable {name} must be a number; found `{text}`; unset it or start with torchrun"
        ) from None
    if value < 0:
        raise InvalidError(f"environment variable {name} must not be negative; found {value}")
    return value


def rank_and_world_size() -> tuple[int, int]:
    """Rank and number of processes: from the process group, else torchrun's environment, else (0, 1)."""
    if "torch" in sys.modules:  # a process group cannot exist before torch is imported
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
    rank, world_size = _from_environment("RANK", 0), _from_environment("WORLD_SIZE", 1)
    if rank >= max(world_size, 1):
        raise InvalidError(f"environment variable RANK is {rank} but WORLD_SIZE is {world_size}; ranks count from 0")
    return rank, max(world_size, 1)


def worker_and_count() -> tuple[int, int] | None:
    """Number of this process and of all among the workers of a torch DataLoader; None outside of them."""
    data = sys.modules.get("torch.utils.data")  # a worker has imported it
    info = data.get_worker_info() if data is not None else None
    return None if info is None else (info.id, info.num_workers)


def find_device(wanted: str, local_rank: int = 0) -> torch.device:
    """`auto` is CUDA, then MPS, then the CPU, whatever is there; anything else is taken as torch spells devices."""
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank)
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise InvalidError(f"device `{wanted}` is not known; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidError(
            f"device `{wanted}` asked for, but torch {torch.__version__} sees no CUDA device; use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InvalidError(
            f"device `{wanted}` asked for, but torch {torch.__version__} sees no MPS device; use --device cpu"
        )
    if device.type not in ("cpu", "cuda", "mps"):
        raise InvalidError(f"device `{wanted}` is none that nanofast trains on; use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", local_rank)
    return device


def connect(device: str = "auto") -> World:
    """Find rank and device, and join the process group when there is more than one process."""
    import torch
    import torch.distributed as dist

    rank, world_size = rank_and_world_size()
    local_rank = _from_environment("LOCAL_RANK", 0)
    local_world_size = _from_environment("LOCAL_WORLD_SIZE", 1)
    found = find_device(device, local_rank)
    try:
        if found.type == "cuda":
            torch.cuda.set_device(found)
        if world_size > 1 and not dist.is_available():
            raise RuntimeError("this torch has no torch.distributed; start one process")
        if world_size > 1 and not dist.is_initialized():
            if found.type == "cuda":
                dist.init_process_group("nccl", device_id=found)
            else:
                dist.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:  # no such device, no rendezvous
        where = f"device `{found}`" if world_size == 1 else f"process {rank} of {world_size} on `{found}`"
        raise InvalidError(f"{where} could not be set up: {str(error).splitlines()[0]}") from error
    return World(rank, world_size, local_rank, local_world_size, found)


def disconnect() -> None:
    """Leave the process group, if there is one."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process with an exit code, in a way that is safe for a rank.

    gloo's threads may hold tensors to the very end, and letting go of them in an interpreter that is going down aborts
    the process (pytorch pull request 179291). So one that has had a group ends without being taken down piece by piece.
    """
    if "torch.distributed" in sys.modules and os.environ.get("WORLD_SIZE", "1") != "1":
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons, as any end does
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def is_connected() -> bool:
    """True when collectives have somebody to talk to."""
    if "torch" not in sys.modules:
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all ranks, in place."""
    if is_connected():
        import torch.distributed as dist

        dist.all_reduce(tensor)
    return tensor


def broadcast_from_main(tensors: list[torch.Tensor]) -> None:
    """Give every rank the main rank's values, in place: one start for all, whatever their random state."""
    if is_connected():
        import torch.distributed as dist

        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def gather_objects(value: Any, group: Any = None) -> list[Any]:
    """Each rank's value, on every rank, in order of rank; over `group`, or over all there are."""
    if not is_connected():
        return [value]
    import torch.distributed as dist

    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, value, group=group)
    return gathered


def object_from_main(value: Any) -> Any:
    """The main rank's value, on every rank."""
    if not is_connected():
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_states(loader: Any) -> dict[str, Any]:
    """Each rank's loader state, and once what names every shard: for `states_of`. A collective."""
    state = dict(loader.state_dict())
    identity = state.pop("identity", None)
    ranks = gather_objects(state)
    if len({rank.get("identity_digest") for rank in ranks}) > 1:  # an error later on, which says in what they differ
        return {"ranks": gather_objects({**state, "identity": identity})}
    return {"identity": identity, "ranks": ranks}


def states_of(gathered: dict[str, Any]) -> list[dict[str, Any]]:
    """Every rank's whole state; those of one moment share their identity."""
    shared = {} if gathered.get("identity") is None else {"identity": gathered["identity"]}
    return [{**shared, **rank} for rank in gathered["ranks"]]


def gather_state(loader: Any) -> Any:
    """The whole loader state, made of every rank's part. A collective: all ranks call it at the same step."""
    from nanofast import merge_states

    return merge_states(states_of(gather_states(loader)))


@dataclass(frozen=True)
class Threads:
    """How a process shares its machine's cores between torch and the loader, and why."""

    torch: int
    loader: int
    reason: str


def available_cores() -> int:
    """Cores that this process may use (its affinity mask, where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def own_cores() -> int:
    """Cores of this process: those it may use, shared with the others that torchrun started on this machine."""
    return max(1, available_cores() // max(1, _from_environment("LOCAL_WORLD_SIZE", 1)))


def share_cores(device_type: str, local_world_size: int) -> Threads:
    """Thread counts for torch and the loader that do not fight over cores.

    On the CPU torch is the bottleneck by far (a small GPT reads some 10^4 tokens a second, the loader makes more than
    10^6 on one thread), so torch gets every core of this process and the loader a single thread. With an accelerator
    torch's own threads only launch kernels, so the loader gets the cores. OMP_NUM_THREADS, when set, is kept for torch.
    """
    cores = max(1, available_cores() // max(1, local_world_size))
    shared = f"{cores} cores for this process" + (
        f", {local_world_size} processes here" if local_world_size > 1 else ""
    )
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list goes by levels of nesting
    if device_type == "cpu":
        torch_threads, loader_threads = cores, 1
    else:
        torch_threads, loader_threads = 1, max(1, cores - 1)
    if given.isdigit() and int(given) > 0:
        return Threads(int(given), loader_threads, f"{shared}; OMP_NUM_THREADS={given} kept for torch")
    return Threads(torch_threads, loader_threads, shared)
