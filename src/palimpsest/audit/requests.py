"""What each request of an audit names."""

from __future__ import annotations

from palimpsest.audit.plan import Plan
from palimpsest.forget.selection import select
from palimpsest.rng import Rng
from palimpsest.task import Task
from palimpsest.types import ForgetRequest, Split


def chosen_requests(plan: Plan, split: Split, task: Task, seed: int) -> list[ForgetRequest]:
    """What each request of one seed names, in order. Raises BadInput for one that cannot be granted.

    Separate requests may name the same records, unless they are drawn at random."""
    remaining, requests = split.train, []
    for index, selection in enumerate(plan.forget):
        among = split.train if plan.separate and not selection.startswith("random") else remaining
        whole = split.train if plan.separate else None
        request = select(selection, among, split.classes, rng=Rng(seed).child("request", index), whole=whole)
        requests.append(request)
        remaining = task.remove(remaining, request.ids.tolist())
    return requests
