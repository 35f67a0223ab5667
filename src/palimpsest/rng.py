"""Randomness is handed over, never ambient: every stream is named, and its name decides its values."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Rng:
    """A named stream of randomness. `child("epoch", 3)` is another stream, the same on every run."""

    seed: int
    path: tuple[str | int, ...] = ()

    def child(self, *names: str | int) -> Rng:
        return Rng(self.seed, (*self.path, *names))

    @property
    def key(self) -> int:
        """A whole number below 2**63 that this stream's name determines."""
        text = "/".join([str(self.seed), *(f"{type(part).__name__}:{part}" for part in self.path)])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

    def torch(self, device: torch.device | str = "cpu") -> torch.Generator:
        return torch.Generator(device).manual_seed(self.key)

    def numpy(self) -> np.random.Generator:
        return np.random.default_rng(self.key)

    @contextmanager
    def ambient(self) -> Iterator[None]:
        """Torch's global generator seeded from this stream, and put back afterwards.

        For code that takes no generator: the initialisation of `torch.nn` layers, and dropout.
        """
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            # torch.manual_seed would queue a stack trace for every kind of device, each time
            torch.default_generator.manual_seed(self.key)
            if devices:
                torch.cuda.manual_seed_all(self.key)
            yield


@contextmanager
def determinism(threads: int | None = None) -> Iterator[None]:
    """Deterministic kernels, and a fixed number of threads (1 and 2 threads give different weights).

    On a GPU matrix products are deterministic only with a workspace of fixed size, which cuBLAS takes from the environment.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, was = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if threads is not None:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)
        torch.set_num_threads(before)
