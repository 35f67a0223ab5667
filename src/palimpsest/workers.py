"""Independent pieces of work on several processes, of this machine or of a Ray cluster, with the results of one.

What a piece makes lies in the store, so a worker that dies costs the piece it was at, which another worker does again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from palimpsest.errors import BadInput, PalimpsestError, WorkerDied
from palimpsest.progress import track

T = TypeVar("T")
R = TypeVar("R")
LOSSES = 3
"""Deaths in a row, without a piece finished in between, after which the work itself must be what kills."""


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

    def map(self, work: Callable[[T], R], items: Sequence[T], name: str = "") -> list[R]:
        """`work` of each item, in their order. name: for the progress bar.

        A piece that was not finished when a worker died is begun again. Raises what a piece raised (the first in order, once all
        others are done, where it is an error of this package), and WorkerDied where workers die again and again.
        """
        if self.count == 1 or len(items) < 2:
            return [work(item) for item in track(items, name, total=len(items))]
        finished: dict[int, R | PalimpsestError] = {}
        losses = 0
        with _started(self) as dead:
            bar = track(range(len(items)), name, total=len(items))
            while len(finished) < len(items) and losses < LOSSES:
                before = len(finished)
                pieces = [(place, items[place]) for place in range(len(items)) if place not in finished]
                try:
                    for place, result in self._results(work, pieces):
                        finished[place] = result
                        next(bar)
                except dead as error:
                    losses = 1 if len(finished) > before else losses + 1
                    reason = error
            bar.close()  # type: ignore[attr-defined]
        if len(finished) < len(items):
            left = (
                f"{len(items) - len(finished)} of {len(items)} pieces of work undone after {LOSSES} deaths of workers"
            )
            do = "look for memory running out, and run again with fewer --workers"
            raise WorkerDied(f"got {left}, expected none ({type(reason).__name__}); {do}") from reason
        results = [finished[place] for place in range(len(items))]
        for result in results:
            if isinstance(result, PalimpsestError):
                raise result
        return results  # type: ignore[return-value]

    def _results(self, work: Callable[[T], R], pieces: Sequence[tuple[int, T]]) -> Iterator[tuple[int, Any]]:
        from joblib import Parallel, delayed

        form = "generator_unordered" if self.backend == "processes" else "list"  # all that Ray's backend can
        tasks = (delayed(_piece)(work, place, item, sys.path) for place, item in pieces)
        yield from Parallel(return_as=form, batch_size=1, pre_dispatch="2*n_jobs")(tasks)


def _piece(work: Callable[[T], R], place: int, item: T, path: list[str]) -> tuple[int, R | PalimpsestError]:
    """In a worker: one piece. Errors of this package come back as values, others as errors."""
    sys.path.extend(entry for entry in path if entry not in sys.path)  # modules of the user's
    try:
        return place, work(item)
    except PalimpsestError as error:
        return place, error


@contextmanager
def _started(workers: Workers) -> Iterator[tuple[type[BaseException], ...]]:
    """Workers for joblib within this block, and the errors that tell of the death of one."""
    from joblib import parallel_config

    if workers.backend == "processes":
        from joblib.externals.loky.process_executor import BrokenProcessPool

        with parallel_config(backend="loky", n_jobs=workers.count, inner_max_num_threads=1):
            yield (BrokenProcessPool,)
        return
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise BadInput(
            "--backend", got="ray, which is not installed", expected="it", do="pip install 'palimpsest-ml[ray]'"
        ) from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    register_ray()  # type: ignore[no-untyped-call]
    with parallel_config(backend="ray", n_jobs=workers.count):
        yield (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)


_current: ContextVar[Workers] = ContextVar("palimpsest_workers", default=Workers())  # noqa: B039 - frozen


def current() -> Workers:
    """The workers of the block that this is called in; this process alone outside of one, and in a worker."""
    return _current.get()


@contextmanager
def at_work(workers: Workers) -> Iterator[Workers]:
    """Within this block, work that can be parted is parted among these workers."""
    token = _current.set(workers)
    try:
        yield workers
    finally:
        _current.reset(token)
