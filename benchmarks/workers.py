"""The embedded default by one process and by two, as a user runs it: whole commands, each on a new store, in turn.

The numbers of all records must be the same. Wanted: two processes at least 1.3 times as fast as one on two cores.

Run, alone on the machine: python benchmarks/workers.py [--rounds 3] [further options of `palimpsest audit`]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from palimpsest.record import read

WANTED = 1.3


def run(folder: Path, workers: int, more: list[str]) -> tuple[float, list[Any]]:
    """Seconds of the command, and everything in its record that must not depend on the number of workers."""
    command = [sys.executable, "-m", "palimpsest.cli", "audit", "--workers", str(workers), *more]
    where = ["--store", str(folder / "store"), "--out", str(folder / "out")]
    begin = time.perf_counter()
    subprocess.run([*command, *where], check=True, stdout=subprocess.DEVNULL)
    seconds, record = time.perf_counter() - begin, read(folder / "out")
    cells = [cell.model_dump(exclude={"seconds", "cost"}) for cell in record.cells]
    return seconds, [cells, [row.model_dump() for row in (*record.verdicts, *record.comparisons)]]


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rounds", type=int, default=3)
    given, more = words.parse_known_args()
    spent: dict[int, list[float]] = {1: [], 2: []}
    found: list[Any] = []
    for turn in range(given.rounds):
        for workers in (1, 2) if turn % 2 == 0 else (2, 1):
            with tempfile.TemporaryDirectory() as folder:
                seconds, numbers = run(Path(folder), workers, more)
            spent[workers].append(seconds)
            found.append(numbers)
            print(f"round {turn + 1}, {workers} worker(s): {seconds:.1f} s", flush=True)
    ratio = median(spent[1]) / median(spent[2])
    same = all(numbers == found[0] for numbers in found)
    print(f"two workers: {ratio:.2f} times as fast (wanted {WANTED}); numbers {'the same' if same else 'DIFFER'}")
    return 0 if same and ratio >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
