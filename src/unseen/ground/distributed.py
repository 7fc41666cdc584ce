"""Several processes on one job, as started by torchrun: which one this is, and the few collective operations.

Every process runs the same program on the same data. Work is shared in three places: the images of a training step, the
batches of an evaluation, the chunks of an extraction. Everything else is done identically by all. Only the first
process works in the run's folder; the others work in copies of it, which are deleted at the end, so no code has to ask
who writes. Without torchrun everything here does nothing.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this is the first or only process of the job; known before any setup."""
    return not launched() or os.environ["RANK"] == "0"


def local_processes() -> int:
    """Number of processes of the job on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if launched() else 1


def _joined() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def lost_others(error: Exception) -> bool:
    """Whether an error means that another process of the job has ended."""
    import torch.distributed as dist

    return _joined() and (isinstance(error, dist.DistError) or "Connection closed by peer" in str(error))


def processes() -> int:
    """Number of processes that have joined; 1 before that."""
    import torch.distributed as dist

    return dist.get_world_size() if _joined() else 1


def position() -> int:
    """Rank of this process, from 0."""
    import torch.distributed as dist

    return dist.get_rank() if _joined() else 0


def part(count: int) -> range:
    """This process's part of ``count`` consecutive items; parts differ by at most one."""
    size, more = divmod(count, processes())
    mine = position()
    start = mine * size + min(mine, more)
    return range(start, start + size + (mine < more))


def wait_for_all() -> None:
    """Wait until all processes arrive here."""
    any_of(False)


@contextmanager
def first_before_others() -> Iterator[None]:
    """Let the first process run the body before the others, which then find its files."""
    if not is_first():
        wait_for_all()
    yield
    if is_first():
        wait_for_all()


def any_of(flag: bool) -> bool:
    """Whether the value is true in any process."""
    import torch

    return bool(add_up(torch.tensor([float(flag)])).item()) if _joined() else flag


def add_up(tensor: Tensor) -> Tensor:
    """Sum over processes, in place."""
    import torch.distributed as dist

    if _joined():
        dist.all_reduce(tensor)
    return tensor


def rows_of_all(own: Tensor, rows: range, count: int) -> Tensor:
    """``(count, ...)`` from each process's rows ``(len(rows), ...)``; rows of different processes do not overlap."""
    if not _joined():
        return own
    every = own.new_zeros(count, *own.shape[1:])
    every[rows.start : rows.stop] = own
    return add_up(every)


def give_to_all(module: nn.Module) -> None:
    """Copy parameters and buffers of the first process to all; its buffers may have other shapes."""
    import torch
    import torch.distributed as dist
    from safetensors.torch import load, save

    if not _joined():
        return
    device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    state = b""
    if position() == 0:
        state = save({name: value.detach().clone().contiguous() for name, value in module.state_dict().items()})
    size = torch.tensor([len(state)], device=device)
    dist.broadcast(size, 0)
    sent = torch.frombuffer(bytearray(state or int(size)), dtype=torch.uint8).to(device)
    dist.broadcast(sent, 0)
    if position():
        module.load_state_dict(load(sent.cpu().numpy().tobytes()))


def add_gradients(module: nn.Module) -> None:
    """Sum every parameter's gradient over processes; all must have gradients of the same parameters."""
    import torch

    if not _joined():
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    for dtype in dict.fromkeys(g.dtype for g in gradients):
        same = [g for g in gradients if g.dtype == dtype]
        flat = add_up(torch.cat([g.flatten() for g in same]))
        for gradient, summed in zip(same, flat.split([g.numel() for g in same]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def own_folder(folder: Path) -> Path:
    """Working folder of this process: the given one, or a private copy that is deleted when the process ends."""
    if not _joined():
        return folder
    if not is_first():
        private = Path(tempfile.mkdtemp(prefix="unseen-"))
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        copy = private / folder.name
        if folder.is_dir():
            shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".lock", ".*.tmp", ".*.tmp.lock"))
        folder = copy
    wait_for_all()
    return folder
