"""Workers at one plan: what they have to know, the place that each of them works at, and how pieces of work come to them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from palimpsest.audit.imported import trained_part
from palimpsest.audit.plan import Plan
from palimpsest.audit.workshop import NotMade, Workshop
from palimpsest.data.memory_map import unkept
from palimpsest.errors import BadInput, StoreError
from palimpsest.progress import track
from palimpsest.rng import determinism
from palimpsest.store import Store
from palimpsest.types import Split
from palimpsest.workers import Workers

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Site:
    """What a worker has to know: the plan, where the store is, and the fingerprint of the data that it must read.

    token: names this audit, so that a worker reads the data once.
    """

    plan: Plan
    root: Path
    redact: bool
    fingerprint: str
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @staticmethod
    def of(plan: Plan, split: Split, store: Store) -> Site:
        return Site(plan, store.root.absolute(), store.redact, split.fingerprint)


@dataclass(frozen=True)
class Bench:
    """A place to work at: the data and a workshop. at_hand: what pieces of work have in common, the last few only."""

    split: Split
    shop: Workshop
    at_hand: dict[Hashable, Any] = field(default_factory=dict)

    @staticmethod
    def of(plan: Plan, store: Store, split: Split | None = None) -> Bench:
        """split: the plan's data, where they have been read already."""
        split = split or plan.data.load()
        prepare = plan.model.task(split).prepare
        if store.redact:
            unkept(plan.data, split)
        split = prepare(split).to(plan.device)
        if plan.imported:
            split = trained_part(split, plan.imported.train_ids)
        task = plan.model.task(split)
        return Bench(split, Workshop(store, task, split.fingerprint, plan.device, split.validation, split.public))

    def once(self, key: Hashable, make: Callable[[], R], most: int = 1) -> R:
        """What `make` gives, made again only where `most` other things have been asked for since."""
        found: R = self.at_hand.pop(key) if key in self.at_hand else make()
        while len(self.at_hand) >= most:
            self.at_hand.pop(next(iter(self.at_hand)))
        self.at_hand[key] = found
        return found


_benches: dict[str, Bench] = {}


def bench(site: Site) -> Bench:
    """This process's place at a site, made when it is first asked for.

    Raises StoreError on a machine that does not have the store, and BadInput where the data are others than the audit's.
    """
    if site.token not in _benches:
        _benches.clear()
        if not (site.root / "FORMAT").is_file():
            do = "put it in a folder that all machines have under the same name"
            raise StoreError(f"{site.root}: got no store on a worker's machine, expected the audit's; {do}")
        found = Bench.of(site.plan, Store(site.root, site.redact))
        if found.split.fingerprint != site.fingerprint:
            do = "use one worker, or data that are the same on every reading"
            raise BadInput("--data", got="others in a worker than in the audit", expected="the same", do=do)
        _benches[site.token] = found
    return _benches[site.token]


@dataclass(frozen=True)
class Crew:
    """Workers for a plan. here: this process's own place."""

    plan: Plan
    here: Bench
    workers: Workers

    @cached_property
    def site(self) -> Site:
        return Site.of(self.plan, self.here.split, self.here.shop.store)

    def spread(self, work: Callable[[Plan, Bench, T], R], pieces: Sequence[T], name: str) -> list[R]:
        """The result of each piece, in order: from the store where that holds all that the piece needs, else by a worker."""
        if self.workers.count == 1:
            return [work(self.plan, self.here, piece) for piece in track(pieces, name, total=len(pieces))]
        found: dict[int, R] = {}
        closed = Bench(self.here.split, replace(self.here.shop, closed=True))
        for place, piece in enumerate(pieces):
            with suppress(NotMade):
                found[place] = work(self.plan, closed, piece)
        missing = [place for place in range(len(pieces)) if place not in found]
        results = self.workers.map(partial(_at, self.site, work), [pieces[place] for place in missing], name)
        found.update(zip(missing, results, strict=True))
        return [found[place] for place in range(len(pieces))]


def _at(site: Site, work: Callable[[Plan, Bench, T], R], piece: T) -> R:
    with determinism(site.plan.threads):
        return work(site.plan, bench(site), piece)
