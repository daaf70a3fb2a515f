"""Data sets of Hugging Face, by name or from a folder that its library reads."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import MissingDependencyError, ParameterError, require
from common.seeding import numpy_stream
from empirical.datasets.base import Contents, Source, stratified_order
from empirical.datasets.decode import Encoded, decode
from empirical.datasets.folder import TEST_SHARE, shown_names

TESTS = ("test", "validation", "valid", "val")
"""Splits that are scored, the first that has labels."""
BLOCK = 1024


def source(
    name: str,
    root: Path,
    download: bool,
    side: int,
    flips: bool,
    fit: str = "crop",
    shown: Mapping[str, str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """A data set with a train split, images and class labels; without a test split it is cut.

    name: on the hub, or a folder of Parquet files or of images; root: `root`/hf is the library's
    cache; columns: None is the only one of its kind. Each class of a data set without splits is cut
    80 to 20.

    Raises:
        ParameterError: it is not there, or has no such columns.
        MissingDependencyError: the library is not installed.
    """
    splits = _load(name, root, download)
    require("train" in splits, "dataset", f"hf:{name}", f"one with a train split, not {[*splits]}")
    train = splits["train"]
    image = _column(name, "image", train.features, image_column)
    label = _column(name, "label", train.features, label_column)
    classes = tuple(train.features[label].names)
    scored = next(
        (splits[own] for own in TESTS if own in splits and _has(splits[own], label)), None
    )
    if scored is None:
        rows, test_rows = _cut(name, np.asarray(train[label]))
        parts = (train.select(rows), train.select(test_rows))
    else:
        parts = (train, scored)
    names = shown_names(classes, shown or {})
    labels = tuple(np.asarray(part[label], dtype=np.int64) for part in parts)
    for own, part in zip(labels, ("training", "test"), strict=True):
        require(
            bool((own >= 0).all()), "dataset", f"hf:{name}", f"one whose {part} images have labels"
        )

    def read(train_pixels: np.ndarray, test_pixels: np.ndarray) -> Contents:
        for part, pixels in zip(parts, (train_pixels, test_pixels), strict=True):
            for start, encoded in _encoded(name, part, image):
                decode(encoded, pixels[start : start + len(encoded)], fit=fit)
        return Contents(labels[0], labels[1], names)

    return Source(
        name="hf",
        version={
            "name": name,
            "fingerprints": [part._fingerprint for part in parts],
            "columns": [image, label],
            "side": side,
            "fit": fit,
            "classes": list(names),
        },
        shape=(3, side, side),
        counts=(len(parts[0]), len(parts[1])),
        flips=flips,
        read=read,
        keep=True,
        files=tuple(
            tuple(_names(part, image, kind))
            for part, kind in zip(parts, ("train", "test"), strict=True)
        ),  # type: ignore[arg-type]
    )


def _load(name: str, root: Path, download: bool) -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        install = "pip install 'tada-companion[hf]'"
        raise MissingDependencyError(f"dataset hf:{name}", error.name, install) from error
    path = Path(name).expanduser()
    local = path.is_dir()
    require(
        local or download,
        "dataset",
        f"hf:{name}",
        "a folder, or a name of the hub with the download allowed (--download)",
    )
    mode = datasets.DownloadConfig(local_files_only=not download)
    before = datasets.utils.logging.get_verbosity()
    datasets.utils.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub.repocard").setLevel(logging.ERROR)  # of cards without data
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(
            str(path.resolve()) if local else name,
            cache_dir=str(root / "hf"),
            download_config=mode,
        )
    except Exception as error:  # whatever a builder, the hub or a file raises
        said = " ".join(str(error).split())[:200]
        allowed = f"a data set that the datasets library reads ({type(error).__name__}: {said})"
        raise ParameterError("dataset", f"hf:{name}", allowed) from error
    finally:
        datasets.utils.logging.set_verbosity(before)
        datasets.enable_progress_bars()


def _column(name: str, what: str, features: Mapping[str, Any], given: str | None) -> str:
    """The column of images or of labels."""
    kind = {"image": "Image", "label": "ClassLabel"}[what]
    ours = [column for column, feature in features.items() if type(feature).__name__ == kind]
    if given is not None:
        has = f"a column of kind {kind}: {', '.join(ours) or 'none'}"
        require(given in ours, f"{what}_column", given, has)
        return given
    one = f"one with one column of kind {kind}; choose by --{what}-column among {ours}"
    require(len(ours) == 1, "dataset", f"hf:{name}", one)
    return ours[0]


def _has(part: Any, label: str) -> bool:
    """Whether a split has labels: those of a challenge's test images are -1."""
    return label in part.features and min(part[label], default=-1) >= 0


def _cut(name: str, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = stratified_order(labels, numpy_stream("datasets", "hf", name))
    n_test = max(1, round(TEST_SHARE * len(labels)))
    return np.sort(order[n_test:]), np.sort(order[:n_test])


def _encoded(name: str, part: Any, image: str) -> Iterator[tuple[int, list[Encoded]]]:
    """The image files of a split, in blocks, each with its first row."""
    import datasets

    raw = part.cast_column(image, datasets.Image(decode=False))
    for start in range(0, len(raw), BLOCK):
        rows = raw[start : start + BLOCK][image]
        yield start, [_file(f"hf:{name}, row {start + i}", row) for i, row in enumerate(rows)]


def _file(said: str, row: Mapping[str, Any]) -> Encoded:
    return Path(row["path"]) if row["bytes"] is None else (said, row["bytes"])


def _names(part: Any, image: str, kind: str) -> Iterator[str]:
    """Names of the files where they have any, else the rows'."""
    import datasets

    raw = part.cast_column(image, datasets.Image(decode=False))
    number = 0
    for start in range(0, len(raw), BLOCK):
        for row in raw[start : start + BLOCK][image]:
            yield Path(row["path"]).name if row["path"] else f"{kind}/{number:06d}"
            number += 1
