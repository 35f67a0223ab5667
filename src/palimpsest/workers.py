"""Independent pieces of work on several processes, of this machine or of a Ray cluster, with the results of one.

What a piece makes lies in the store, so a worker that dies costs the piece it was at, which another worker does again.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from palimpsest.errors import BadInput, PalimpsestError, WorkerDied
from palimpsest.progress import track

T = TypeVar("T")
R = TypeVar("R")
LOSSES = 3
"""Deaths in a row, without a piece finished in between, after which the work itself must be what kills. Ray gives nothing of a wave
of pieces in which a worker died, so there each piece of a wave may have so many."""


@dataclass(frozen=True)
class Workers:
    """How many processes, and whose: "processes" of this machine, or those of "ray", the cluster that RAY_ADDRESS names, or else a
    local one. One worker is this process itself.
    """

    count: int = 1
    backend: str = "processes"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise BadInput("--workers", got=self.count, expected="a whole number of at least 1")
        if self.backend not in ("processes", "ray"):
            raise BadInput("--backend", got=repr(self.backend), expected="processes or ray")
        if self.backend == "ray" and self.count == 1:
            raise BadInput("--workers", got=1, expected="at least 2 with --backend ray")

    def threads(self, asked: int | None) -> int | None:
        """Threads of each process: as many as were asked for, else one where there are several, else torch's own number (None)."""
        return 1 if asked is None and self.count > 1 else asked

    def map(self, work: Callable[[T], R], items: Sequence[T], name: str = "") -> list[R]:
        """`work` of each item, in their order. name: for the progress bar.

        A piece that was not finished when a worker died is begun again. Raises what a piece raised (the first in order, once all
        others are done, where it is an error of this package), and WorkerDied where workers die again and again.
        """
        if self.count == 1 or len(items) < 2:
            return [work(item) for item in track(items, name, total=len(items))]
        with _pool(self) as pool:
            finished = pool.finish(work, items, name)
        for result in finished:
            if isinstance(result, PalimpsestError):
                raise result
        return finished  # type: ignore[return-value]


class Pool:
    """Processes that joblib started, kept from one call to the next."""

    def __init__(self, workers: Workers) -> None:
        self.workers, self.open = workers, ExitStack()
        self.parallel: Any = None
        self.dead: tuple[type[BaseException], ...] = ()

    def finish(self, work: Callable[[T], R], items: Sequence[T], name: str) -> list[R | PalimpsestError]:
        """The result or the error of each piece, in order."""
        finished: dict[int, R | PalimpsestError] = {}
        losses, bar = 0, track(range(len(items)), name, total=len(items))
        while len(finished) < len(items):
            self.start()
            before, left = len(finished), [place for place in range(len(items)) if place not in finished]
            wave = left[: 2 * self.workers.count] if self.workers.backend == "ray" else left
            bearable = LOSSES * (len(wave) if self.workers.backend == "ray" else 1)
            try:
                for place, result in self.parallel(_task(work, place, items[place]) for place in wave):
                    finished[place] = result
                    next(bar)
            except self.dead as error:
                self.close()
                losses = 1 if len(finished) > before else losses + 1
                if losses >= bearable:
                    got = f"{len(left)} of {len(items)} pieces of work undone after {losses} deaths of workers"
                    do = "look for memory running out, and run again with fewer --workers"
                    raise WorkerDied(f"got {got}, expected none ({type(error).__name__}); {do}") from error
        list(bar)
        return [finished[place] for place in range(len(items))]

    def start(self) -> None:
        """Has no effect on a pool that is running."""
        if self.parallel is not None:
            return
        from joblib import Parallel, parallel_config

        if self.workers.backend == "ray":
            self.dead, form = _ray(), "list"  # all that Ray's backend can
            config = parallel_config(backend="ray", n_jobs=self.workers.count)
        else:
            from joblib.externals.loky.process_executor import BrokenProcessPool

            self.dead, form = (BrokenProcessPool,), "generator_unordered"
            config = parallel_config(backend="loky", n_jobs=self.workers.count, inner_max_num_threads=1)
        self.open.enter_context(config)
        self.parallel = self.open.enter_context(Parallel(return_as=form, batch_size=1, pre_dispatch="2*n_jobs"))

    def close(self) -> None:
        self.parallel = None
        self.open.close()


def _ray() -> tuple[type[BaseException], ...]:
    """Makes Ray known to joblib; gives the errors that tell of a worker's death."""
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        do = "pip install 'palimpsest-ml[ray]'"
        raise BadInput("--backend", got="ray, which is not installed", expected="it", do=do) from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    register_ray()  # type: ignore[no-untyped-call]
    return (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)


def _task(work: Callable[[T], R], place: int, item: T) -> Any:
    from joblib import delayed

    return delayed(_piece)(work, place, item, os.getpid())


def _piece(work: Callable[[T], R], place: int, item: T, boss: int) -> tuple[int, R | PalimpsestError]:
    """In a worker: one piece. Errors of this package come back as values, others as errors."""
    if os.getppid() == boss:  # a process of this machine: Ray looks after its own
        _end_with(boss)
        _may_grow()
    try:
        return place, work(item)
    except PalimpsestError as error:
        return place, error


@cache
def _may_grow() -> None:
    """Where psutil is installed, joblib's processes end themselves once they have grown by 300 MB, which it takes for a leak and a
    model's weights are; the one that started them may then wait for ever."""
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize


@cache
def _end_with(boss: int) -> None:
    """Ends this process soon after the one that started it, however that ended: nobody would want its results."""

    def watch() -> None:
        while os.getppid() == boss:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_current: ContextVar[Pool | None] = ContextVar("palimpsest_workers", default=None)


def current() -> Workers:
    """The workers of the block that this is called in; this process alone outside of one, and in a worker."""
    pool = _current.get()
    return Workers() if pool is None else pool.workers


@contextmanager
def at_work(workers: Workers) -> Iterator[Workers]:
    """Within this block, work that can be parted is parted among these workers, who stay until its end."""
    pool = Pool(workers)
    token = _current.set(pool)
    try:
        yield workers
    finally:
        _current.reset(token)
        pool.close()


@contextmanager
def _pool(workers: Workers) -> Iterator[Pool]:
    """The block's, where these are its workers, else one for a single call."""
    pool = _current.get()
    if pool is not None and pool.workers == workers:
        yield pool
        return
    pool = Pool(workers)
    try:
        yield pool
    finally:
        pool.close()
