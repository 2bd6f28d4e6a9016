"""Keeps freed memory for the next training step instead of giving it back to the system."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Tell glibc's malloc to hold on to large blocks; elsewhere nothing happens.

    On a CPU every step frees and asks again for the same large tensors, and each time the system hands out pages to be
    faulted in and cleared: see benchmarks/memory.py.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST // 2)
    mallopt(M_TRIM_THRESHOLD, LARGEST)
