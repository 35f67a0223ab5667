"""What a method, an attack or a verifier may fail with while the audit goes on."""

from __future__ import annotations

import numpy as np

from palimpsest.errors import PalimpsestError

FAILURES = (PalimpsestError, RuntimeError, ArithmeticError, ValueError, np.linalg.LinAlgError)
"""What makes a cell failed instead of ending the run; its reason is recorded. Anything else is a fault of ours and is raised."""
