"""Your own loop: augment, its data set, exports, and the places where users live."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2 import Compose, ToDtype, ToImage

from common.errors import ParameterError
from empirical.datasets.registry import load
from empirical.generation.base import Originals
from empirical.pipeline.augment import Augmented, augment
from empirical.selection.slow_sets import select_slow

N, CLASSES = 12, ("cat", "dog")


def lighter(originals: Originals, strength: float, streams: Sequence[torch.Generator]) -> Tensor:
    """Original + 10, and a bit of its own stream."""
    own = [int(torch.randint(3, (), generator=stream)) for stream in streams]
    return originals.pixels + 10 + torch.tensor(own, dtype=torch.uint8)[:, None, None, None]


@pytest.fixture
def real(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 200, (N, 3, 8, 8), dtype=np.uint8), np.arange(N) % 2


@pytest.fixture
def augmented(real: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Augmented:
    names = [f"photos/{number}.jpg" for number in range(N)]
    slow = np.arange(N) < 4
    return augment(*real, slow, lighter, k=3, out=tmp_path / "store", classes=CLASSES, files=names)


def test_every_slow_image_gets_k_minus_1_images(
    augmented: Augmented, real: tuple[np.ndarray, np.ndarray]
) -> None:
    assert augmented.sources.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert augmented.copies.tolist() == [1, 2] * 4
    added = augmented.pixels.int() - torch.from_numpy(real[0])[augmented.sources].int()
    assert set(added.flatten(1).float().std(1).tolist()) == {0.0}
    assert set(added.unique().tolist()) <= {10, 11, 12}
    assert len(added[:, 0, 0, 0].unique()) > 1  # copies differ


def test_the_same_call_finds_them_again(
    augmented: Augmented, real: tuple[np.ndarray, np.ndarray]
) -> None:
    def never(*_: object) -> Tensor:
        raise AssertionError

    never.__name__ = never.__qualname__ = "lighter"
    slow, given = [0, 1, 2, 3], {"k": 3, "out": augmented.folder, "classes": CLASSES}
    again = augment(*real, np.array(slow), never, **given)  # type: ignore[arg-type]
    assert torch.equal(again.pixels, augmented.pixels)
    with pytest.raises(ParameterError, match="seed = 1: must be 0 as in"):
        augment(*real, np.array(slow), never, seed=1, **given)  # type: ignore[arg-type]


def test_channels_last_and_indices_give_the_same(
    augmented: Augmented, real: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    pixels, labels = real
    last = augment(
        pixels.transpose(0, 2, 3, 1), torch.from_numpy(labels), torch.arange(4), lighter, 3,
        out=tmp_path / "again", classes=CLASSES,
    )  # fmt: skip
    assert torch.equal(last.pixels, augmented.pixels)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": np.zeros((N, 3, 8, 8))}, "images = torch.float64"),
        ({"images": np.zeros((N, 2, 8, 8), dtype=np.uint8)}, "of 1 or 3 channels"),
        ({"labels": np.zeros(N)}, "labels = torch.float64"),
        ({"labels": np.zeros(3, dtype=int)}, "whole numbers"),
        ({"slow": np.zeros(N, dtype=bool)}, "slow = 0 indices"),
        ({"slow": np.array([N])}, "slow = 1 indices"),
        ({"slow": np.zeros(3, dtype=bool)}, "slow = "),
        ({"k": 1}, "k = 1"),
        ({"strength": 0.0}, "strength = 0"),
        ({"classes": ("cat",)}, "a name for each of 2 labels"),
        ({"files": ("a",)}, "as many as images"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_made(
    real: tuple[np.ndarray, np.ndarray], tmp_path: Path, change: dict[str, object], said: str
) -> None:
    given = {"images": real[0], "labels": real[1], "slow": np.arange(4), "generator": lighter}
    with pytest.raises(ParameterError, match=said):
        augment(**(given | change), out=tmp_path / "store")  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()


def test_a_plain_loop(augmented: Augmented) -> None:
    whole = augmented.dataset(Compose([ToImage(), ToDtype(torch.float32, scale=True)]))
    assert len(whole) == N + 8
    assert whole[N + 7][1] == 1
    assert whole[-1][1] == 1
    with pytest.raises(IndexError):
        whole[N + 8]
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    seen = 0
    for x, y in DataLoader(whole, batch_size=8, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
        seen += len(x)
    assert seen == N + 8


def test_synthetic_images_with_a_probability(augmented: Augmented) -> None:
    never, always = (augmented.dataset(synthetic_probability=p) for p in (0.0, 1.0))
    assert all(
        torch.equal(never[N + m][0], augmented.images.pixels[s])
        for m, s in enumerate(augmented.sources)
    )
    assert all(torch.equal(always[N + m][0], own) for m, own in enumerate(augmented.pixels))
    half = augmented.dataset(synthetic_probability=0.5, seed=1)
    kinds = [torch.equal(half[N][0], augmented.pixels[0]) for _ in range(200)]
    assert 60 < sum(kinds) < 140  # 5.6 standard deviations
    with pytest.raises(ParameterError, match="synthetic_probability"):
        augmented.dataset(synthetic_probability=2)


def test_imagefolder_is_read_by_torchvision_and_by_this_project(
    augmented: Augmented, tmp_path: Path
) -> None:
    path = augmented.export("imagefolder", tmp_path / "images")
    found = ImageFolder(str(path / "train"))
    assert found.classes == list(CLASSES)
    names = sorted(Path(file).name for file, _ in found.samples)
    assert names[0] == "0.png"
    assert sum(name.startswith("synthetic-") for name in names) == 8
    assert len(names) == N + 8
    first = np.asarray(found[0][0]).transpose(2, 0, 1)
    assert any(np.array_equal(first, own) for own in augmented.images.pixels.numpy())
    timm = pytest.importorskip("timm.data")
    read = timm.create_dataset("", str(path), split="train", class_map="")  # as timm's train.py
    assert len(read) == N + 8
    ours = load(f"folder:{path / 'train'}", tmp_path, side=8)
    assert len(ours.train.labels) + len(ours.test.labels) == N + 8
    with pytest.raises(ParameterError, match="a new folder"):
        augmented.export("imagefolder", path)
    with pytest.raises(ParameterError, match="to = zip: must be imagefolder or"):
        augmented.export("zip", tmp_path / "zip")


def test_webdataset(augmented: Augmented, tmp_path: Path) -> None:
    path = augmented.export("webdataset", tmp_path / "tars")
    with tarfile.open(path / "train-000000.tar") as tar:
        names = tar.getnames()
        assert len(names) == len(set(names)) == 3 * (N + 8)
        about = json.load(tar.extractfile("0001-synthetic-000003-2.json"))  # type: ignore[arg-type]
    assert about == {"class": "dog", "source": 3, "copy": 2, "synthetic": True}


def test_huggingface(augmented: Augmented, tmp_path: Path) -> None:
    path = augmented.export("huggingface", tmp_path / "hub")
    found = load_dataset(str(path), cache_dir=str(tmp_path / "cache"), split="train")
    assert found.features["label"].names == list(CLASSES)
    assert sum(found["synthetic"]) == 8
    last = found[-1]
    assert (last["source"], last["copy"]) == (3, 2)
    assert np.array_equal(
        np.asarray(last["image"]).transpose(2, 0, 1), augmented.pixels[-1].numpy()
    )


def test_the_hugging_face_trainer(augmented: Augmented, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(192, 2)

        def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.linear(pixel_values.flatten(1))
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    def collate(items: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
        pixels = torch.stack([pixels.float() / 255 for pixels, _ in items])
        return {"pixel_values": pixels, "labels": torch.tensor([label for _, label in items])}

    given = transformers.TrainingArguments(
        str(tmp_path / "trainer"), max_steps=2, per_device_train_batch_size=4, report_to=[],
        use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False, save_strategy="no",
        logging_strategy="no", remove_unused_columns=False,
    )  # fmt: skip
    trainer = transformers.Trainer(
        Network(), given, data_collator=collate, train_dataset=augmented.dataset()
    )
    assert trainer.train().global_step == 2


def test_slow_examples_of_your_own_network(rng: np.random.Generator) -> None:
    labels = np.arange(40) % 2
    sure = np.where(np.arange(40) < 28, 4.0, 0.2)[:, None]
    logits = (np.eye(2)[labels] - 0.5) * sure + 0.05 * rng.standard_normal((40, 2))
    slow = select_slow(logits, logits, labels)
    assert slow.tolist() == [False] * 28 + [True] * 12


def test_a_run_is_exported(
    finished: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "images"
    code, said, err = command("export", finished, "--out", out)
    assert (code, said) == (0, f"{out}\n"), err
    result = json.loads((finished / "result.json").read_text())
    files = [path.name for path in (out / "train").rglob("*.png")]
    assert len(files) == result["n_training"]
    assert sum(name.startswith("synthetic-") for name in files) == result["n_synthetic"]
    assert len(list((out / "test").rglob("*.png"))) == result["n_test"]
    code, said, err = command("export", finished, "--to", "zip", "--out", tmp_path / "zip")
    assert code == 2
    assert "--to zip: must be imagefolder" in err
    assert command("export", tmp_path, "--out", tmp_path / "b")[0] == 2


def test_no_exported_image_overwrites_another(tmp_path: Path) -> None:
    """Names that differ in their endings, points and folders only, and one that a number makes."""
    files = ("a.png", "a.jpg", "a-1.png", "x/a.png", "b.c.png", "b_c.png")
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 4), np.uint8)
    made = augment(
        images, np.zeros(6, dtype=int), np.array([0]), lighter, out=tmp_path / "s", files=files
    )
    path = made.export("imagefolder", tmp_path / "images")
    levels = [int(np.asarray(Image.open(own)).max()) for own in path.rglob("*.png")]
    assert len(levels) == 7
    assert set(range(6)) <= set(levels)
    tars = made.export("webdataset", tmp_path / "tars")
    with tarfile.open(tars / "train-000000.tar") as tar:
        assert len(set(tar.getnames())) == 21
    two = augment(
        images, np.arange(6) % 2, np.array([0]), lighter, out=tmp_path / "t", classes=("a/b", "a:b")
    )
    with pytest.raises(ParameterError, match="names that make a folder each"):
        two.export("imagefolder", tmp_path / "folders")
    assert not (tmp_path / "folders").exists()
