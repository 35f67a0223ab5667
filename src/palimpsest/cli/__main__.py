"""`python -m palimpsest.cli`, where there is no `palimpsest` command."""

from __future__ import annotations

import sys

from palimpsest.cli import main

sys.exit(main())
