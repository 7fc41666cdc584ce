"""Free memory of a device, or of this process's share of the machine."""

import math
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from unseen.ground.distributed import local_processes


def free_memory(device: torch.device) -> int:
    """Free bytes on a device; for the machine's memory, this process's share of what its control group leaves."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(min(psutil.virtual_memory().available, allowed_memory())) // local_processes()


def allowed_memory(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes that the control groups of this process (container, Slurm job) leave; infinite without a limit."""
    least = math.inf
    with suppress(OSError, ValueError, IndexError):
        group = root / own.read_text().partition("0::")[2].splitlines()[0].lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):
                limit = int((folder / "memory.max").read_text())
                used = int((folder / "memory.current").read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                least = min(least, max(0, limit - used + int(stat["file"])))  # cached files can be evicted
            if folder == root:
                break
    return least
