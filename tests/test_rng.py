"""Streams are decided by their names; nothing ambient is left changed."""

from __future__ import annotations

import pytest
import torch

from palimpsest.rng import Rng, determinism


def test_the_name_decides_the_values() -> None:
    one, same = Rng(3).child("epoch", 1), Rng(3).child("epoch").child(1)
    assert one.key == same.key
    assert torch.equal(torch.rand(4, generator=one.torch()), torch.rand(4, generator=same.torch()))
    assert one.numpy().random() == same.numpy().random()


def test_other_names_seeds_and_types_are_other_streams() -> None:
    streams = [Rng(0), Rng(1), Rng(0).child("a"), Rng(0).child("b"), Rng(0).child("a", "b"), Rng(0).child("a/b")]
    streams += [Rng(0).child(1), Rng(0).child("1"), Rng(0).child(11), Rng(0).child(1, 1)]
    keys = {stream.key for stream in streams}
    assert len(keys) == len(streams)
    assert all(0 <= key < 2**63 for key in keys)


def test_keys_stay_what_they_were() -> None:
    """Another derivation would silently change every result that was ever reported with a seed."""
    assert Rng(0).key == 4761921975702974394
    assert Rng(7).child("epoch", 3).key == 9050857899129543826


def test_ambient_seeds_torch_and_puts_its_generator_back() -> None:
    before = torch.random.get_rng_state()
    with Rng(5).ambient():
        first = torch.rand(3)
    with Rng(5).ambient():
        again = torch.rand(3)
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_determinism_sets_and_restores_also_after_an_error() -> None:
    threads, flag = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    def fail() -> None:
        with determinism(threads=2):
            assert torch.get_num_threads() == 2
            assert torch.are_deterministic_algorithms_enabled()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() is flag
