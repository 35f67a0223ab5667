"""How far memory rises while something runs: the GPU's by torch's own count, the process's by Linux's high-water mark."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from weakref import WeakSet

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RUNNING: WeakSet[PeakMemory] = WeakSet()


class PeakMemory:
    """Counts from when it is made. Several may run at once, one within another.

    On a CPU the count is of whole pages of the process, whatever thread took them, and what an allocator keeps from before is
    used again without a rise: figures below some MiB mean little. It stays at 0 where the system has no such mark.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        for other in _RUNNING:
            other._look()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            _reset()
        self.start = self.highest = self._now()
        _RUNNING.add(self)

    def rise(self) -> int:
        """Bytes above the start, so far."""
        self._look()
        return max(0, self.highest - self.start)

    def _look(self) -> None:
        self.highest = max(self.highest, self._now())

    def _now(self) -> int:
        """The highest count since the last reset."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _mark()


def _mark() -> int:
    if not STATUS.exists():
        return 0
    lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _reset() -> None:
    """Gives freed memory back to the system and sets the mark to what is left (Linux; elsewhere the mark is not read either)."""
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        RESET.write_text("5", encoding="ascii")
    except (
        OSError
    ):  # not allowed in some containers: the mark then is the process's highest ever, and the rise is 0 until passed
        return
