"""Pieces of work on several processes: the results of one, in order, whatever happens to a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from palimpsest import errors
from palimpsest.errors import BadInput, PalimpsestError, UnknownName, WorkerDied
from palimpsest.workers import Pool, Workers, at_work, current

TWO = Workers(2)


def square(number: int) -> int:
    return number**2


def refused(number: int) -> int:
    if number % 2:
        raise BadInput("number", got=number, expected="an even one")
    return number


def faulty(number: int) -> int:
    raise KeyError(number)


def deadly(folder: Path, number: int) -> tuple[int, int]:
    """Piece 3 kills the process that first works on it; each piece notes that it was done."""
    if number == 3 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"{number}-done").touch()
    return number, os.getpid()


def done(folder: Path) -> list[str]:
    """The pieces that were done, however often."""
    return sorted(path.name for path in folder.glob("*-done"))


def always_deadly(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def who(number: int) -> int:
    return current().count


HELD: list[bytearray] = []


def growing(number: int) -> int:
    """From its second piece on a process holds 400 MB more, as for the weights of models; each piece lasts longer than joblib waits
    between two looks at its memory."""
    if len(HELD) < 2:
        HELD.append(bytearray(b"1") * (400_000_000 if HELD else 1))
    time.sleep(1.1)
    return os.getpid()


def test_a_process_that_grows_goes_on() -> None:
    """joblib's end themselves at 300 MB where psutil is installed, and then may be waited for for ever."""
    pytest.importorskip("psutil")
    with at_work(TWO):
        found = TWO.map(growing, range(8))
    assert len(found) == 8
    assert len(set(found)) == 2


def test_the_results_come_in_order_from_other_processes() -> None:
    assert TWO.map(square, range(7)) == [square(number) for number in range(7)]
    assert os.getpid() not in TWO.map(_process, range(4))


def _process(number: int) -> int:
    return os.getpid()


def test_one_worker_or_one_piece_is_done_here() -> None:
    assert Workers(1).map(_process, range(3)) == [os.getpid()] * 3
    assert TWO.map(_process, [0]) == [os.getpid()]
    assert TWO.map(square, []) == []


def test_the_first_error_of_ours_is_raised_when_the_rest_is_done() -> None:
    with pytest.raises(BadInput, match="number: got 1, expected an even one"):
        TWO.map(refused, range(6))


def test_an_error_of_others_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError):
        TWO.map(faulty, range(3))


def test_a_worker_that_dies_costs_nothing_but_time(tmp_path: Path) -> None:
    results = TWO.map(partial(deadly, tmp_path), range(8))
    assert (tmp_path / "killed").exists()
    assert [number for number, _ in results] == list(range(8)), "each once, none lost"
    assert done(tmp_path) == [f"{number}-done" for number in range(8)]
    assert os.getpid() not in {process for _, process in results}


def test_work_that_kills_every_worker_ends_with_one_clear_line() -> None:
    with pytest.raises(WorkerDied, match=r"got \d of 4 pieces of work undone after 3 deaths .* fewer --workers"):
        TWO.map(always_deadly, range(4))


def test_workers_have_no_workers() -> None:
    with at_work(TWO):
        assert current() == TWO
        assert TWO.map(who, range(2)) == [1, 1]
    assert current() == Workers(1)


@pytest.mark.parametrize(
    "kind", [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, PalimpsestError)]
)
def test_every_error_comes_back_from_another_process(kind: type[PalimpsestError]) -> None:
    if issubclass(kind, UnknownName):
        error = kind("method", got="finetun", known=["finetune"])
    elif issubclass(kind, BadInput):
        error = kind("--seeds", got=0, expected="1", do="do so")
    else:
        error = kind("got this; expected that")
    pool = Pool(TWO)
    try:
        again = pool.finish(raised, [error, error], "")
    finally:
        pool.close()
    assert [type(one) for one in again] == [kind, kind]
    assert [str(one) for one in again] == [str(error)] * 2


def raised(error: PalimpsestError) -> None:
    raise error


ORPHANS = """
import os, time
from palimpsest.workers import Workers
from tests.test_workers import told_then_asleep

if __name__ == "__main__":
    Workers(2).map(told_then_asleep, range(2))
"""


def told_then_asleep(number: int) -> None:
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(60)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ORPHANS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE, env=environment, text=True
    ) as boss:
        assert boss.stdout is not None
        workers = [int(boss.stdout.readline()) for _ in range(2)]
        boss.send_signal(how)
        boss.wait(10)
    end = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < end, "still at work"
        time.sleep(0.1)


def test_what_cannot_be() -> None:
    with pytest.raises(BadInput, match="--workers: got 1, expected at least 2 with --backend ray"):
        Workers(1, "ray")
    with pytest.raises(BadInput, match="--workers: got 0"):
        Workers(0)
    with pytest.raises(BadInput, match="--backend: got 'spark', expected processes or ray"):
        Workers(2, "spark")


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there is no ray for this Python")
def test_ray_does_the_same_and_outlives_a_worker(tmp_path: Path) -> None:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        results = Workers(2, "ray").map(partial(deadly, tmp_path), range(5))
        assert (tmp_path / "killed").exists()
        assert [number for number, _ in results] == list(range(5))
        assert done(tmp_path) == [f"{number}-done" for number in range(5)]
        with pytest.raises(BadInput, match="number: got 1, expected an even one"):
            Workers(2, "ray").map(refused, range(4))
    finally:
        ray.shutdown()


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r"pip install 'palimpsest-ml\[ray\]'"):
        Workers(2, "ray").map(square, range(2))
