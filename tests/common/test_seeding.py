"""Random streams: a different seed for every key, the same on every machine."""

import itertools

import torch

from common.seeding import numpy_stream, seed_for, torch_stream
from sim.checks.base import Plan


def test_keys_of_any_length_have_seeds_of_their_own() -> None:
    numbers = (0, 1, 3, 4, 5, 1_000_002)
    keys = [key for n in (1, 2, 3) for key in itertools.product(numbers, repeat=n)]
    keys += [("a", 1), ("a1",), ("a", "1")]
    assert len({seed_for(*key) for key in keys}) == len(keys)


def test_streams_that_shared_a_seed() -> None:
    first, second = (torch.rand(4, generator=torch_stream(*key)) for key in ((0, 3, 5), (4, 5)))
    assert not torch.equal(first, second)


def test_a_key_gives_the_same_numbers_everywhere() -> None:
    assert seed_for("batches", 0, 7) == 5937940826464685467
    assert torch.equal(*(torch.rand(3, generator=torch_stream(1, 2)) for _ in range(2)))
    assert (numpy_stream(1, 2).random(3) == numpy_stream(1, 2).random(3)).all()


def test_claims_do_not_share_draws() -> None:
    draws = [torch.rand(3, generator=Plan(claim=c).generator(1)) for c in ("family", "best-k")]
    assert not torch.equal(*draws)
