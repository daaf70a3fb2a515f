"""The whole of Algorithm 1 in one folder, stage by stage, each found again when it is finished.

In the folder, in this order: settings.json, early/ and slow_sets.json, generator/, synthetic/,
training/, network.safetensors, result.json. A killed run resumes from the last finished stage, or
from that stage's last checkpoint, and on a CPU ends with the same bytes.

    from pathlib import Path
    from empirical.pipeline.run import Settings, run

    result = run(Settings(arm="tada", k=2, optimizer="sam", seed=3), Path("runs/tada"))
    print(result["test_error"], result["slow_fraction"])

Under `accelerate launch` or torchrun all processes train, and the first alone writes.
"""

from __future__ import annotations

import csv
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import distributed
from common.divergence import DivergenceError
from common.errors import require
from common.files import digest, file_digest, read_json, whole_file, write_json
from common.locks import writing
from common.progress import say
from common.run_folder import open_folder, release_folder
from common.tensors import read_tensors, write_tensors
from common.threads import one_thread
from empirical.config.arms import SLOW_ARMS, SYNTHETIC_ARMS
from empirical.config.settings import Settings
from empirical.datasets.base import ImageSet, take
from empirical.datasets.splits import Split, make_split, open_set
from empirical.pipeline import arms, memory, synthesis
from empirical.pipeline.algorithm import arm_pairs, final_job, recipe_of
from empirical.pipeline.arms import Pair
from empirical.pipeline.finished import NETWORK, RESULT_KEYS, finished
from empirical.pipeline.synthesis import load_backend, seen_by, stored_images, trained_here
from empirical.runtime import HERE, Machine
from empirical.selection import slow_sets
from empirical.selection.early_training import Found, find_slow, fresh_network
from empirical.storage import export as exporting
from empirical.training import evaluate, networks
from empirical.training.devices import Tracked, accelerated
from empirical.training.engine import check_company, train
from empirical.versions import versions

__all__ = ["Machine", "Settings", "Workplace", "generate", "run", "select"]

TIMINGS = "timings.json"
EARLY = "early.safetensors"
"""The early network, where synthetic images are filtered by it."""
CONFIDENT = 0.5
"""Probability of its class from which a synthetic image is kept with keep = confident."""

STAGES = ("selection.json", "generator", "synthetic", "training", NETWORK, "result.json")

SELECTION_DEPENDS_ON = (
    *("dataset", "n_train", "split", "seed", "network", "batch_size", "momentum", "weight_decay"),
    *("separating_epoch", "separating_epochs", "separating_lr", "augmentation", "precision"),
    *("selection", "clusters", "theta", "outputs", "accumulation", "channels_last"),
    *("scores", "scores_column", "pretrained", "clip_norm", "head_lr"),
)


@dataclass(frozen=True)
class Workplace:
    """A run's folder, its settings and its data."""

    settings: Settings
    out: Path
    data: ImageSet
    split: Split
    machine: Machine = HERE

    @contextmanager
    def timed(self, stage: str, seconds: float = 0.0) -> Iterator[None]:
        """Note the seconds of a stage in timings.json, `seconds` spent earlier included."""
        path = self.out / TIMINGS
        start = time.monotonic()
        yield
        if distributed.is_first():
            known = read_json(path, "timings") if path.exists() else {}
            write_json(path, known | {stage: round(seconds + time.monotonic() - start, 2)})


@contextmanager
def _opened(
    settings: Settings, out: Path, machine: Machine, generates: bool = True
) -> Iterator[Workplace]:
    """The folder, ours alone until the block ends; a finished one is only read.

    generates: whether synthetic images may have to be made in the block.
    """
    distributed.start(machine.cpu)
    place = distributed.run_on_all(lambda: _checked(settings, out, machine, generates))

    def check_folder() -> None:
        if not (out / "result.json").exists():
            alone.enter_context(writing(out))
        open_folder(out, settings.record(), STAGES)
        if (out / TIMINGS).exists():
            read_json(out / TIMINGS, "timings")

    with ExitStack() as alone:
        distributed.run_on_main(check_folder)
        with free_if_diverged(out):
            yield place


def check(settings: Settings, out: Path, machine: Machine = HERE) -> None:
    """Every check that `run` makes before its first long step, and nothing else.

    Raises:
        ParameterError: a setting does not fit the data or the machine, or a generator does not
            work.
    """
    distributed.start(machine.cpu)
    distributed.run_on_all(lambda: _checked(settings, out, machine, generates=True))


@contextmanager
def free_if_diverged(out: Path, *stages: str) -> Iterator[None]:
    """Where a training in the block diverges, or finds no slow example, `out` may be used again
    under other settings.

    What is finished there is kept, but for `stages`; each file knows what it depends on.
    """
    try:
        yield
    except (DivergenceError, slow_sets.NoSlowError) as error:
        if distributed.is_first():
            shutil.rmtree(out / "early", ignore_errors=True)
            for stage in stages:
                (out / stage).unlink(missing_ok=True)
            release_folder(out, str(error))
        raise


def _checked(settings: Settings, out: Path, machine: Machine, generates: bool) -> Workplace:
    """What does not exist, or does not fit, is named before anything is written."""
    data = open_set(settings.data, machine.data, machine.download)
    split = make_split(data, settings.data)
    size = settings.data.train_images or len(split.train)
    require(
        settings.training.batch_size <= size,
        "batch_size",
        settings.training.batch_size,
        f"at most {size}",
    )
    with torch.device("meta"):
        network = networks.make(settings.network, data.channels, data.side, len(data.classes))
    if settings.selection.selection == "cluster":
        labels = data.train.labels[split.train].numpy()
        slow_sets.check_clusters(settings.selection.clusters, labels, data.classes)
    shape = data.train.pixels.shape[1:]
    check_company(network, recipe_of(settings, size), size, shape, distributed.world())
    if settings.arm in SYNTHETIC_ARMS:
        synthesis.check(data, split, settings)
    memory.check_split(settings, data, split, machine)
    with accelerated(recipe_of(settings, size), machine.cpu, machine.trackers, out):
        pass  # what this machine cannot do is said now
    if generates and settings.arm in SYNTHETIC_ARMS and not (out / "selection.json").exists():
        synthesis.check_installed(settings)
        shape = (data.channels, data.side, len(data.classes))
        tried = synthesis.try_named(settings, *shape, machine)
        here = tried is not None or not synthesis.is_named(settings)
        allowed = "a model on this machine, or one that may be downloaded (--download)"
        require(here, "generator", settings.generation.generator, allowed)
    return Workplace(settings, out, data, split, machine)


def _selected(place: Workplace) -> slow_sets.Slow:
    """selection.json, read or made."""
    path = place.out / "selection.json"
    record = place.settings.record()
    depends = {name: record[name] for name in SELECTION_DEPENDS_ON}
    if place.settings.selection.scores is not None:  # on what the file says, not on its name alone
        scores = Path(place.settings.selection.scores).expanduser()
        depends["scores_sha256"] = file_digest(scores)
    made_by = digest(depends)
    if path.exists():
        found = read_json(path, "selection", ("fingerprint", "slow", "slow_test"))
        require(
            found["fingerprint"] == made_by,
            "selection",
            path,
            "a selection with the same settings; remove it to select again",
        )
        return slow_sets.Slow(
            np.isin(place.split.train, found["slow"]), np.isin(place.split.test, found["slow_test"])
        )
    with place.timed("selection"):
        found = find_slow(
            place.data, place.split, place.settings, place.out / "early", place.machine
        )
    slow = found.slow
    if distributed.is_first():
        for note in found.about["notes"]:
            say(note)
    if place.settings.arm in SLOW_ARMS and place.settings.k > 1:
        slow_sets.check_some(slow.train, place.settings.selection.selection)

    def write() -> None:
        write_slow_list(place.out / "slow.csv", place.data, place.split.train, found)
        if place.settings.generation.keep != "all":
            weights = {name: value.cpu() for name, value in found.network.state_dict().items()}
            write_tensors(place.out / EARLY, weights)
        write_json(
            path,
            {
                "fingerprint": made_by,
                "separating_epoch": found.epoch,
                "slow_fraction": float(slow.train.mean()),
                **found.about,
                "slow": place.split.train[slow.train].tolist(),
                "slow_test": place.split.test[slow.test].tolist(),
            },
        )
        shutil.rmtree(place.out / "early", ignore_errors=True)

    distributed.run_on_main(write)
    return slow


def share_selection(source: Path, target: Path, settings: Settings) -> None:
    """Give a run's folder the selection of another of its seed, which depends on neither arm,
    budget, k nor strength."""

    def share() -> None:
        open_folder(target, settings.record(), STAGES)
        for name in ("slow.csv", EARLY, "selection.json"):
            if (source / name).exists() and not (target / name).exists():
                with whole_file(target / name) as part:
                    shutil.copyfile(source / name, part)

    distributed.run_on_main(share)


def write_slow_list(path: Path, data: ImageSet, rows: np.ndarray, found: Found) -> None:
    """Every training image as a line of a table: file, class, loss, cluster, slow or fast.

    index: of the image in the data set; cluster: of its class, by rising mean loss from 0; empty
    where the selection has none.
    """
    labels = data.train.labels.numpy()
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("index", "file", "class", "loss", "cluster", "slow"))
        for place, row in enumerate(rows.tolist()):
            name = data.files[0][row] if data.files is not None else ""
            group = int(found.group[place])
            table.writerow(
                (
                    *(row, name, data.classes[labels[row]], f"{found.losses[place]:.6g}"),
                    *("" if group < 0 else group, "slow" if found.slow.train[place] else "fast"),
                )
            )


def _synthetic(place: Workplace, pairs: list[Pair], repair: bool = False) -> dict[Pair, Tensor]:
    """The synthetic images, read or made; nothing for arms that need none."""
    if not pairs:
        return {}
    settings, data, machine = place.settings, place.data, place.machine
    folder = place.out / "generator"
    if settings.generation.generator == "pixel":

        def train_first() -> None:
            # the first looks whether it is there: a slower process might see it finished
            if not folder.exists():
                given = (data, place.split, settings, folder, machine.device)
                with place.timed("generator", trained_here(*given).seconds):
                    pass

        distributed.run_on_main(train_first)
    backend = load_backend(data, place.split, settings, folder, machine)
    store = machine.synthetic or place.out / "synthetic"
    start = time.monotonic()
    known = read_json(place.out / TIMINGS, "timings") if (place.out / TIMINGS).exists() else {}
    made = stored_images(
        *(data.train, pairs, settings, backend, settings.seed, store),
        *(machine.generation_batch, repair),
        seen=seen_by(settings, folder),
    )
    if "synthetic" not in known:
        with place.timed("synthetic", time.monotonic() - start):
            pass
    return made


def _dropped(place: Workplace, made: Mapping[Pair, Tensor]) -> set[Pair]:
    """The synthetic images that are not trained on, since the early network contradicts their
    class: none with keep = all."""
    keep, data = place.settings.generation.keep, place.data
    if keep == "all" or not made:
        return set()
    network = fresh_network(data, place.settings, "early")
    path = place.out / EARLY
    require(path.is_file(), "early network", path, "present; remove selection.json to select again")
    weights, _ = read_tensors(path, "early network", network.state_dict())
    network.load_state_dict(weights)
    pairs = list(made)
    with one_thread():
        pixels = torch.stack([made[pair] for pair in pairs])
        logits = evaluate.outputs(network, pixels, data.mean, data.std)
    labels = data.train.labels[torch.tensor([source for source, _ in pairs])]
    own = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    fine = logits.argmax(1) == labels if keep == "agreeing" else own >= CONFIDENT
    dropped = {pair for pair, good in zip(pairs, fine.tolist(), strict=True) if not good}
    if distributed.is_first():
        say(f"{len(dropped)} of {len(pairs)} synthetic images are dropped (keep = {keep})")
    return dropped


def select(settings: Settings, out: Path, machine: Machine = HERE) -> slow_sets.Slow:
    """Steps 1 and 2 into `out`: the slow examples."""
    with _opened(settings, Path(out), machine, generates=False) as place:
        return _selected(place)


def generate(
    settings: Settings, out: Path, machine: Machine = HERE, repair: bool = False
) -> dict[Pair, Tensor]:
    """Steps 1 to 3 into `out`: the slow examples, the generator, the synthetic images.

    repair: damaged files of the store are made again, and not only named.
    """
    with _opened(settings, Path(out), machine) as place:
        pairs = arm_pairs(place.split, settings, _selected(place).train)
        return _synthetic(place, arms.synthetic(pairs), repair)


def export(settings: Settings, out: Path, kind: str, path: Path, machine: Machine = HERE) -> Path:
    """Write what the run in `out` trains on, and its test images, in a form others read.

    kind: imagefolder, webdataset or huggingface, see `storage.export`. Steps 1 to 3 that `out`
    lacks are done first.

    Raises:
        ParameterError: as `generate`, or `path` is there already.
    """
    exporting.check(kind, path)
    with _opened(settings, Path(out), machine) as place:
        pairs = arm_pairs(place.split, settings, _selected(place).train)
        made = _synthetic(place, arms.synthetic(pairs))
        data, names = place.data, place.data.files or (None, None)
        real = [source for source, copy in pairs if copy == 0]

        def training() -> Iterator[exporting.Example]:
            yield from exporting.real(data.train, real, names[0])
            yield from exporting.synthetic(data.train, made)

        test = exporting.real(data.test, place.split.test.tolist(), names[1])
        return exporting.export(kind, path, data.classes, {"train": training(), "test": test})


def run(settings: Settings, out: Path, machine: Machine = HERE) -> dict[str, Any]:
    """The whole of Algorithm 1 into `out`; returns what is in out/result.json.

    Errors are shares in [0, 1]. What `out` already holds of this run is used again.

    Raises:
        DivergenceError: a training diverged; `out` may be used again with better settings.
        ParameterError: a setting does not fit the data, `out` belongs to a run with other
            settings, another process writes there, or a file in it is damaged.
    """
    with _opened(settings, Path(out), machine) as place:
        return _run(place)


def _run(place: Workplace) -> dict[str, Any]:
    settings, machine, out = place.settings, place.machine, place.out
    path = out / "result.json"
    before = finished(settings, out)
    if before is not None:
        if distributed.is_first():
            say(f"{path}: finished before, used again")
        return before
    slow = _selected(place)
    pairs = arm_pairs(place.split, settings, slow.train)
    synthetic = _synthetic(place, arms.synthetic(pairs))
    dropped = _dropped(place, synthetic)
    pairs = [pair for pair in pairs if pair not in dropped]
    synthetic = {pair: image for pair, image in synthetic.items() if pair not in dropped}
    data, split = place.data, place.split
    job = final_job(data, split, settings, pairs, synthetic)
    trained = train(
        job.network,
        job.data,
        job.recipe,
        out / "training",
        trackers=machine.trackers,
        tracked=Tracked(machine.project, run_name(settings), settings.record()),
        name=job.name,
        advice=job.advice,
        **machine.options,
    )
    with place.timed("training", trained.seconds):
        pass
    test = take(data.test, split.test)
    found = evaluate.evaluate(job.network, test, data.mean, data.std, torch.from_numpy(slow.test))

    def write() -> dict[str, Any]:
        weights = {name: value.cpu() for name, value in job.network.state_dict().items()}
        write_tensors(out / NETWORK, weights)
        result = {
            "arm": settings.arm,
            "dataset": settings.data.dataset,
            "network": settings.network,
            "optimizer": settings.training.optimizer,
            "seed": settings.seed,
            "split": settings.data.split,
            "k": settings.k,
            "strengths": list(settings.arm_strengths),
            "generator": settings.generation.generator,
            "budget": settings.budget,
            "test_error": found["error"],
            "test_error_slow": found["error_slow"],
            "test_error_fast": found["error_fast"],
            "test_error_per_class": found["per_class"],
            "test_loss": found["loss"],
            "slow_fraction": float(slow.train.mean()),
            "slow_fraction_test": float(slow.test.mean()),
            "n_original": len(split.train),
            "n_synthetic": len(synthetic),
            "n_dropped": len(dropped),
            "n_training": len(pairs),
            "n_test": len(split.test),
            "steps": trained.steps,
            "history": trained.history,
            "notes": _notes(place),
            "seconds": read_json(out / TIMINGS, "timings"),
            "versions": versions(),
            "command": settings.command("run", out),
            "fingerprint": digest(settings.record()),
            "network_sha256": file_digest(out / NETWORK),
        }
        write_json(path, result)
        for checkpoint in (out / "training").glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        return result

    written = distributed.run_on_main(write)
    return read_json(path, "result", RESULT_KEYS) if written is None else written


def _notes(place: Workplace) -> list[str]:
    """What is to be known of the slow set, in words; a selection of an earlier version has none."""
    return read_json(place.out / "selection.json", "selection").get("notes", [])


def run_name(settings: Settings) -> str:
    """A name that tells runs of one project apart, and that a folder may have."""
    # the last folder of folder:PATH, and timm:NAME
    names = [settings.data.dataset.rstrip("/").split("/")[-1], settings.network, settings.arm]
    names += [f"k{settings.k}"] if settings.arm in SLOW_ARMS else []
    if settings.arm in SYNTHETIC_ARMS:
        names.append("strength" + "-".join(f"{own:g}" for own in settings.arm_strengths))
    names += [
        settings.training.optimizer,
        settings.budget,
        f"split{settings.data.split}",
        f"seed{settings.seed}",
    ]
    return re.sub(r"[^\w.-]", "_", "-".join(names))[:200]
