"""The membership test of the UMA paper and of SalUn's public code: a support vector machine on one number per record."""

from __future__ import annotations

import numpy as np
from sklearn.svm import SVC

from palimpsest.errors import BadInput
from palimpsest.types import Array


def svc_called_member(members: Array, nonmembers: Array, query: Array, *, cap: int = 1000) -> Array:
    """Whether each queried record is called a member, Boolean, shape (len(query),).

    members, nonmembers, query: the subject's confidence in the true class, one number per record, in [0, 1]. The classifier
    is SVC(C=3, RBF, gamma auto) (the public code's; the papers do not print it), fitted on equally many members and
    non-members, at most `cap` of each, spread evenly over what was given.

    It does not tell memory from a well-known class: whatever is named confidently is called a member.
    Raises BadInput for an empty reference or values that are not finite.
    """
    for name, values in (("members", members), ("non-members", nonmembers), ("queried records", query)):
        if not np.isfinite(values).all():
            raise BadInput(f"confidences of {name}", got="values that are not finite", expected="numbers in [0, 1]")
    size = min(len(members), len(nonmembers), cap)
    if size == 0:
        got = f"{len(members)} members and {len(nonmembers)} non-members"
        raise BadInput("membership test", got=got, expected="at least one of each", do="raise the data limit")
    chosen = [np.asarray(values, dtype=float)[_spread(len(values), size)] for values in (members, nonmembers)]
    called = np.zeros(len(query), dtype=bool)
    if len(query) == 0:
        return called
    fitted = SVC(C=3.0, kernel="rbf", gamma="auto").fit(np.concatenate(chosen)[:, None], np.repeat([1, 0], size))
    called[:] = fitted.predict(np.asarray(query, dtype=float)[:, None]) == 1
    return called


def _spread(length: int, size: int) -> Array:
    """`size` positions out of `length`, evenly spaced."""
    positions: Array = np.arange(size) * length // size
    return positions
