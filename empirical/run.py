"""The whole of Algorithm 1 in one folder, stage by stage, each found again when it is finished.

In the folder, in this order: settings.json, selection.json, generator/, synthetic/,
network.safetensors, result.json. A killed run goes on from the last finished stage (the generator
from its last checkpoint) and ends with the same bytes.

    from pathlib import Path
    from empirical.run import Settings, run

    result = run(Settings(arm="tada", k=2, optimizer="sam", seed=3), Path("runs/tada"))
    print(result["test_error"], result["slow_fraction"])
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from empirical import algorithm, arms
from empirical.arms import Pair
from empirical.data import Images, Split, load, partition
from empirical.files import file_digest, write_tensors
from empirical.generator import Generator, Recipe, train_generator
from empirical.settings import Settings
from empirical.store import Row, read_store, write_store
from sim import provenance
from sim.progress import progress, say
from theory.files import digest, read_json, write_json
from theory.parameters import ParameterError, require

__all__ = ["Settings", "Workplace", "generate", "open_folder", "run", "select", "versions"]

NETWORK = "network.safetensors"

STAGES = ("selection.json", "generator", "synthetic", NETWORK, "result.json")

SELECTION_DEPENDS_ON = (
    *("dataset", "n_train", "split", "seed", "network", "batch_size", "momentum", "weight_decay"),
    *("separating_epoch", "separating_lr", "outputs"),
)

RESULT_KEYS = (
    *("arm", "dataset", "network", "optimizer", "seed", "k", "test_error", "slow_fraction"),
    *("n_original", "n_synthetic", "seconds", "versions", "command"),
)


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return provenance.versions("diffusers", "scikit-learn")


@dataclass(frozen=True)
class Workplace:
    """A run's folder, its settings and its data."""

    settings: Settings
    out: Path
    images: Images
    split: Split

    @contextmanager
    def timed(self, stage: str, seconds: float = 0.0) -> Iterator[None]:
        """Note the seconds of a stage in timings.json, `seconds` spent earlier included."""
        path = self.out / "timings.json"
        known = read_json(path, "timings") if path.exists() else {}
        start = time.monotonic()
        yield
        write_json(path, known | {stage: round(seconds + time.monotonic() - start, 2)})


def open_folder(out: Path, record: dict[str, Any], stages: tuple[str, ...]) -> None:
    """Make `out` the folder of the run with these settings, or check that it is.

    Raises:
        ParameterError: `out` was begun with other settings (the first that differs is named), or
            holds files of a run but no settings.
        OSError: it cannot be written.
    """
    path = out / "settings.json"
    if path.exists():
        found = read_json(path, "settings")
        for name in sorted(set(record) | set(found)):
            require(
                name in record and name in found and record[name] == found[name],
                name,
                record.get(name),
                f"{found.get(name)} as in {path}, or another --out",
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        require(
            not (out / stage).exists(),
            "out",
            out,
            f"a new folder or one with settings.json (it holds {stage} of another run)",
        )
    write_json(path, record)


def _open(settings: Settings, out: Path) -> Workplace:
    images = load(settings.dataset)
    split = partition(images, settings)
    open_folder(out, settings.record(), STAGES)
    return Workplace(settings, out, images, split)


def _selected(place: Workplace) -> algorithm.Slow:
    """selection.json, read or made."""
    path = place.out / "selection.json"
    record = place.settings.record()
    made_by = digest({name: record[name] for name in SELECTION_DEPENDS_ON})
    if path.exists():
        found = read_json(path, "selection", ("fingerprint", "slow", "slow_test"))
        require(
            found["fingerprint"] == made_by,
            "selection",
            path,
            "a selection with the same settings; remove it to select anew",
        )
        return algorithm.Slow(
            np.isin(place.split.train, found["slow"]), np.isin(place.split.test, found["slow_test"])
        )
    with place.timed("selection"):
        slow = algorithm.find_slow(
            place.images, place.split, place.settings, [place.settings.seed]
        )[0]
        write_json(
            path,
            {
                "fingerprint": made_by,
                "slow_fraction": float(slow.train.mean()),
                "slow": place.split.train[slow.train].tolist(),
                "slow_test": place.split.test[slow.test].tolist(),
            },
        )
    return slow


def generator_data(images: Images, split: Split, settings: Settings) -> tuple[Tensor, Tensor]:
    """The images that the generator is trained on, and their labels."""
    rows = torch.from_numpy(split.pool if settings.generator_data == "pool" else split.train)
    return images.pixels[rows], images.labels[rows]


def _generator(place: Workplace) -> Generator:
    """generator/, loaded, gone on with or trained."""
    pixels, labels = generator_data(place.images, place.split, place.settings)
    folder = place.out / "generator"
    new = not folder.exists()
    generator = train_generator(
        pixels,
        labels,
        len(place.images.classes),
        Recipe(steps=place.settings.generator_steps),
        place.settings.generator_seed,
        folder,
    )
    if new:
        with place.timed("generator", generator.seconds):
            pass
    return generator


def store_rows(
    images: Images, pairs: list[Pair], settings: Settings, generator: Generator, seed: int
) -> list[Row]:
    """The metadata of a store: everything that its images depend on."""
    return [
        {
            "source": source,
            "copy": copy,
            "label": int(images.labels[source]),
            "class": images.classes[int(images.labels[source])],
            "strength": settings.strength,
            "steps": settings.denoising_steps,
            "sampler": settings.sampler,
            "guidance": settings.guidance,
            "seed": seed,
            "generator": generator.digest,
        }
        for source, copy in pairs
    ]


def stored_images(
    images: Images,
    pairs: list[Pair],
    settings: Settings,
    generator: Generator,
    seed: int,
    folder: Path,
    advance: algorithm.Advance = lambda: None,
) -> dict[Pair, Tensor]:
    """The synthetic images of `pairs` from the store in `folder`, made first if it is missing."""
    rows = store_rows(images, pairs, settings, generator, seed)
    if not folder.exists():
        made = algorithm.generate(images, pairs, settings, generator, seed, advance)
        write_store(folder, made, rows)
    return dict(zip(pairs, read_store(folder, rows), strict=True))


def _synthetic(place: Workplace, pairs: list[Pair]) -> dict[Pair, Tensor]:
    """synthetic/, read or made; nothing for arms that need none."""
    if not pairs:
        return {}
    settings, folder = place.settings, place.out / "synthetic"
    generator = _generator(place)
    arguments = (place.images, pairs, settings, generator, settings.seed, folder)
    if folder.exists():
        return stored_images(*arguments)
    with place.timed("synthetic"), progress("synthetic images", len(pairs)) as advance:
        return stored_images(*arguments, advance)


def select(settings: Settings, out: Path) -> algorithm.Slow:
    """Steps 1 and 2 into `out`: the slow examples."""
    return _selected(_open(settings, out))


def generate(settings: Settings, out: Path) -> dict[Pair, Tensor]:
    """Steps 1 to 3 into `out`: the slow examples, the generator, the synthetic images."""
    place = _open(settings, out)
    pairs = algorithm.arm_pairs(place.split, settings, _selected(place).train, settings.seed)
    return _synthetic(place, arms.synthetic(pairs))


def _share(wrong: np.ndarray) -> float | None:
    return float(wrong.mean()) if len(wrong) else None


def run(settings: Settings, out: Path) -> dict[str, Any]:
    """The whole of Algorithm 1 into `out`; returns what is in out/result.json.

    Errors are shares in [0, 1]. What `out` already holds of this run is used again.

    Raises:
        ParameterError: a setting does not fit the data, `out` belongs to a run with other
            settings, or a file in it is damaged.
    """
    out = Path(out)
    place = _open(settings, out)
    path = out / "result.json"
    made_by = digest(settings.record())
    if path.exists():
        result = read_json(path, "result", RESULT_KEYS)
        if result.get("fingerprint") != made_by:
            raise ParameterError("result", path, "a result of these settings; remove it to train")
        _check_network(out / NETWORK, result)
        say(f"{path}: finished before, used again")
        return result
    slow = _selected(place)
    pairs = algorithm.arm_pairs(place.split, settings, slow.train, settings.seed)
    made = arms.synthetic(pairs)
    synthetic = _synthetic(place, made)
    steps = algorithm.training_steps(settings, len(pairs))
    with place.timed("training"), progress("training steps", steps) as advance:
        trained = algorithm.train_arm(
            place.images,
            place.split,
            settings,
            [settings.seed],
            [pairs],
            [synthetic],
            place.split.test,
            advance,
        )
        network = {name: value[0] for name, value in trained.parameters.items()}
        write_tensors(out / NETWORK, network)
    wrong = trained.wrong[0]
    result = {
        "arm": settings.arm,
        "dataset": settings.dataset,
        "network": settings.network,
        "optimizer": settings.optimizer,
        "seed": settings.seed,
        "split": settings.split,
        "k": settings.k,
        "strength": settings.strength,
        "budget": settings.budget,
        "test_error": float(wrong.mean()),
        "test_error_slow": _share(wrong[slow.test]),
        "test_error_fast": _share(wrong[~slow.test]),
        "slow_fraction": float(slow.train.mean()),
        "slow_fraction_test": float(slow.test.mean()),
        "n_original": len(place.split.train),
        "n_synthetic": len(made),
        "n_training": len(pairs),
        "n_test": len(place.split.test),
        "steps": trained.steps[0],
        "seconds": read_json(out / "timings.json", "timings"),
        "versions": versions(),
        "command": settings.command("run", out),
        "fingerprint": made_by,
        "network_sha256": file_digest(out / NETWORK),
    }
    write_json(path, result)
    return result


def _check_network(path: Path, result: dict[str, Any]) -> None:
    """The trained network beside a finished result must be the one that was scored."""
    same = path.exists() and file_digest(path) == result.get("network_sha256")
    require(
        same, "network", path, "the file scored in result.json; remove result.json to train anew"
    )
