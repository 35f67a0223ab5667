"""Data sets: bundled ones, and those of the user."""

from palimpsest.data._open import open_data

__all__ = ["open_data"]
