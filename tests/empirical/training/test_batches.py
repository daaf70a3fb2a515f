"""Training sets; batches shared among ranks and micro-batches are the batches of one process."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import ParameterError
from common.seeding import torch_stream
from empirical.training.batches import Epoch, Normalisation, Share, TrainingSet, bounds
from empirical.training.recipes import Recipe

CPU = torch.device("cpu")


def make(n: int = 20, channels: int = 3) -> TrainingSet:
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, channels, 8, 8), dtype=torch.uint8, generator=stream)
    labels = torch.randint(4, (n,), generator=stream)
    return TrainingSet(
        pixels, labels, torch.arange(n), 4, [0.4, 0.5, 0.6][:channels], [0.2, 0.3, 0.4][:channels]
    )


def epoch(data: TrainingSet, number: int = 0, **recipe: Any) -> Epoch:
    return Epoch(data, data.pixels, Recipe(**recipe), number, CPU)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"pixels": torch.zeros(20, 3, 8, 8)}, r"pixels = torch\.float32 .*: must be uint8"),
        ({"labels": torch.zeros(19, dtype=torch.int64)}, r"labels = .*\(19,\): must be int64 \(20"),
        ({"labels": torch.full((20,), 4)}, "labels = 4 to 4: must be between 0 and 3"),
        ({"rows": torch.tensor([0, 20])}, "rows = 0 to 20: must be between 0 and 19"),
        ({"rows": torch.tensor([-1])}, "rows = -1 to -1: must be between 0 and 19"),
        ({"rows": torch.zeros(2)}, "rows = .*: must be int64"),
        ({"rows": torch.zeros(0, dtype=torch.int64)}, "rows = none: must be at least one"),
        ({"mean": [0.5]}, r"mean = \[0.5\]: must be one number for each of 3 channels"),
        ({"std": [0.5, 0.0, 0.5]}, r"std = .*: must be above 0"),
    ],
)
def test_bad_parts(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ParameterError, match=line) as error:
        dataclasses.replace(make(), **values)
    assert "\n" not in str(error.value)


def test_the_fingerprint_knows_every_part() -> None:
    data = make()
    first = data.fingerprint()
    assert make().fingerprint() == first
    other = data.pixels.clone()
    other[3, 1, 2, 2] ^= 1
    for values in (
        {"pixels": other},
        {"labels": data.labels.flip(0)},
        {"rows": data.rows.flip(0)},
        {"n_classes": 5},
        {"mean": [0.4, 0.5, 0.7]},
        {"std": [0.2, 0.3, 0.5]},
        {"flips": False},
    ):
        assert dataclasses.replace(data, **values).fingerprint() != first


def test_a_large_bank_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make()
    whole = data.fingerprint()
    monkeypatch.setattr("empirical.training.batches.SAMPLED_BYTES", data.pixels.numel() // 4)
    assert data.fingerprint() != whole
    other = data.pixels.clone()
    other[4] ^= 1
    assert dataclasses.replace(data, pixels=other).fingerprint() != data.fingerprint()


def test_bounds_are_those_of_tensor_split() -> None:
    for n, pieces in ((10, 3), (3, 5), (7, 7), (100, 1)):
        split = torch.arange(n).tensor_split(pieces)
        assert [torch.arange(n)[a:b].tolist() for a, b in bounds(n, pieces)] == [
            own.tolist() for own in split
        ]


def test_an_epoch_visits_every_example_once_in_a_new_order() -> None:
    data = make(20)
    plain = {"batch_size": 8, "augmentation": "none"}
    orders = []
    for number in (0, 1):
        own = epoch(data, number, **plain)
        batches = [own.micro_batches(batch, Share()) for batch in range(3)]
        assert [len(batch[0].x) for batch in batches] == [7, 7, 6]
        seen = torch.cat([batch[0].x for batch in batches])
        expected = torch_stream("engine batches", 0, number)
        order = torch.randperm(20, generator=expected)
        torch.testing.assert_close(
            seen, Normalisation.of(data.mean, data.std)(data.pixels)[order], rtol=0, atol=0
        )
        labels = torch.cat([batch[0].target for batch in batches])
        assert torch.equal(labels, data.labels[order])
        orders.append(order.tolist())
    assert orders[0] != orders[1]


def test_normalisation() -> None:
    data = make()
    x = data.pixels.double() / 255
    mean, std = (torch.tensor(own).double()[:, None, None] for own in (data.mean, data.std))
    found = Normalisation.of(data.mean, data.std)(data.pixels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), (x - mean) / std, rtol=1e-5, atol=1e-5)


SHARES = [Share(0, 3, 1), Share(0, 1, 4), Share(0, 2, 4), Share(0, 3, 3), Share(0, 9, 2)]


@pytest.mark.parametrize("mixing", ["none", "mixup", "cutmix"])
@pytest.mark.parametrize("augmentation", ["none", "crop+flip", "trivialaugment"])
@pytest.mark.parametrize("share", SHARES)
def test_shares_together_are_the_batch(mixing: str, augmentation: str, share: Share) -> None:
    own = epoch(make(20), 3, batch_size=7, augmentation=augmentation, mixing=mixing, seed=5)
    for batch in range(len(own.bounds)):
        ((x, target, weight),) = own.micro_batches(batch, Share())
        shares = [
            own.micro_batches(batch, dataclasses.replace(share, rank=rank))
            for rank in range(share.world)
        ]
        assert len({len(pieces) for pieces in shares}) == 1  # all meet equally often
        assert all(len(piece.x) > 0 for pieces in shares for piece in pieces)
        counted = [piece for pieces in shares for piece in pieces if piece.weight > 0]
        assert torch.equal(torch.cat([piece.x for piece in counted]), x)
        assert torch.equal(torch.cat([piece.target for piece in counted]), target)
        assert weight == pytest.approx(1 / len(x))
        # averaged over ranks, every example weighs the same
        weights = [piece.weight / share.world for piece in counted]
        assert weights == pytest.approx([weight] * len(counted))


@pytest.mark.parametrize("augmentation", ["crop+flip", "trivialaugment"])
def test_an_image_is_augmented_alike_in_every_batch_size(augmentation: str) -> None:
    data = make(20)

    def seen(batch_size: int) -> Tensor:
        own = epoch(data, batch_size=batch_size, augmentation=augmentation)
        return torch.cat(
            [own.micro_batches(batch, Share())[0].x for batch in range(len(own.bounds))]
        )

    assert torch.equal(seen(20), seen(3))
    plain = epoch(data, augmentation="none", batch_size=20).micro_batches(0, Share())[0].x
    assert not torch.equal(seen(20), plain)


def test_more_examples_leave_the_augmentation_of_the_others() -> None:
    """So arms that share images share what is done to them."""
    data = make(30)
    few = dataclasses.replace(data, rows=torch.arange(20))
    found = []
    for own in (few, data):
        n = len(own)
        order = torch.randperm(n, generator=torch_stream("engine batches", 0, 2))
        x = epoch(own, 2, batch_size=n).micro_batches(0, Share())[0].x
        found.append(x[order.argsort()][:20])
    assert torch.equal(found[0], found[1])


def test_flips_are_the_data_sets_choice() -> None:
    """Without padding to crop from, only a flip can change an image of four columns."""
    pixels = torch.arange(4, dtype=torch.uint8).expand(8, 1, 4, 4).contiguous()
    data = TrainingSet(
        pixels, torch.zeros(8, dtype=torch.int64), torch.arange(8), 1, [0.0], [1.0], flips=False
    )
    found = {}
    for flips in (False, True):
        own = epoch(dataclasses.replace(data, flips=flips), augmentation="crop+flip")
        levels = own.micro_batches(0, Share())[0].x * 255
        found[flips] = levels[:, 0, 0, 0].round().int().tolist()
    assert found[False] == [0] * 8
    assert sorted(set(found[True])) == [0, 3]


def test_copies_are_augmented_apart() -> None:
    data = dataclasses.replace(make(), rows=torch.zeros(8, dtype=torch.int64))
    x = epoch(data, augmentation="crop+flip", batch_size=8).micro_batches(0, Share())[0].x
    assert len({image.numpy().tobytes() for image in x}) > 1


def test_channels_last() -> None:
    x = epoch(make(), channels_last=True).micro_batches(0, Share())[0].x
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, epoch(make()).micro_batches(0, Share())[0].x)
