"""Which process of a distributed job this is, and how this process uses the machine."""

import contextlib
import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def cpu_threads(wanted: int | None) -> int:
    """Threads of the numerics: as asked, as SLURM granted, or as many as cores."""
    return wanted or int(os.environ.get("SLURM_CPUS_PER_TASK", 0)) or os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let glibc reuse freed blocks of up to 256 MB instead of returning them to the system after every operation.

    Small models on the CPU otherwise spend a tenth of each training step on page faults.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 256 * 1024**2)
        libc.mallopt(_M_TRIM_THRESHOLD, 512 * 1024**2)


def is_main_process() -> bool:
    """False in the second and later processes that `accelerate launch` or torchrun started."""
    return int(os.environ.get("RANK", "0")) == 0


def distributed() -> bool:
    """Whether this job has several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
