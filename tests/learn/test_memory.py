"""The rise of memory that costs report."""

from __future__ import annotations

import sys

import pytest
import torch

from palimpsest.learn.loop import Meter
from palimpsest.learn.memory import PeakMemory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the mark is Linux's")
MIB = 2**20


@linux
def test_what_came_and_went_is_counted() -> None:
    gauge = PeakMemory()
    assert gauge.rise() < 16 * MIB
    held = torch.ones(64 * MIB // 4)
    del held
    assert 60 * MIB < gauge.rise() < 96 * MIB


@linux
def test_one_within_another() -> None:
    outer = PeakMemory()
    first = torch.ones(96 * MIB // 4)
    del first
    inner = PeakMemory()  # starts low again; the outer one must not forget
    second = torch.ones(32 * MIB // 4)
    assert 28 * MIB < inner.rise() < 60 * MIB
    assert 90 * MIB < outer.rise() < 130 * MIB
    del second


@linux
def test_costs_carry_it() -> None:
    meter = Meter()
    held = torch.ones(64 * MIB // 4)
    assert meter.cost.peak_memory > 60 * MIB
    del held
