"""The commands of one run, whole or stage by stage, and `stability` of its slow examples."""

from __future__ import annotations

from pathlib import Path

import tyro
from rich.console import Console

from common.cli import is_main_process
from common.errors import require
from common.progress import say
from empirical.commands.start import NO_START, Flat, Start
from empirical.runtime import HERE, Machine


def select(settings: Flat, *, out: Path, machine: Machine = HERE, start: Start = NO_START) -> None:
    """Find the slow examples (Algorithm 1, steps 1 and 2) and write OUT/selection.json.

    For example: python -m empirical select --dataset digits --seed 3 --out runs/tada

    or with the highest losses: python -m empirical select --preset cifar10-resnet18
    --selection loss --theta .3 --out runs/loss
    """
    from common import distributed
    from empirical.pipeline.run import select

    slow = select(settings, out, machine)
    if distributed.is_first():
        print(f"{int(slow.train.sum())} of {len(slow.train)} slow: {out / 'selection.json'}")


def stability(
    settings: Flat,
    *,
    out: Path,
    seeds: int = 5,
    data_seeds: int = 0,
    machine: Machine = HERE,
    start: Start = NO_START,
) -> None:
    """How alike the slow examples of several seeds are: Jaccard index, overlap, and chance.

    Writes OUT/stability.json and OUT/stability.png, and each seed's selection in a folder. On
    planted images also how true they are, by epoch, with OUT/truth.png; --data-seeds says on how
    many further planted data sets.

    For example: python -m empirical stability --dataset digits --seeds 5 --out runs/stability

    or against the truth: python -m empirical stability --preset planted-small --data-seeds 3
    --out runs/planted

    Args:
        out: folder of the result.
        seeds: how many seeds, from --seed on.
        data_seeds: on how many further planted data sets.
    """
    from empirical.experiments.stability import stability

    found = stability(settings, out, seeds, machine, data_seeds)
    for name, value in found.get("truth", {}).get("selected", {}).items():
        print(f"{name} {value['mean']:.3f} ± {value['standard_error']:.3f}")
    print(
        f"slow {100 * found['share']:.0f}%, Jaccard {found['jaccard']:.2f} "
        f"(by chance {found['chance']:.2f}), overlap {found['overlap']:.2f}: "
        f"{out / 'stability.json'}"
    )


def difficulty(
    settings: Flat,
    *,
    out: Path,
    seeds: int = 5,
    wrong_labels: float = 0.05,
    machine: Machine = HERE,
    start: Start = NO_START,
) -> None:
    """Which difficulty score finds the slow examples, and which takes wrong labels for slow.

    Writes OUT/difficulty.json and OUT/difficulty.png: on planted images precision and recall of
    every selection, and on any the share of its slow set that is mislabelled.

    For example: python -m empirical difficulty --dataset planted --out runs/difficulty

    Args:
        out: folder of the result.
        seeds: how many seeds, from --seed on.
        wrong_labels: share of the training labels that are made wrong.
    """
    from empirical.experiments.difficulty import difficulty

    found = difficulty(settings, out, seeds, wrong_labels, machine)
    for name, own in found["methods"].items():
        known = [what for what in ("precision", "recall") if what in own]
        said = "".join(f"{what} {own[what]['mean']:.3f}, " for what in known)
        wrong = 100 * own["wrong_in_slow"]["mean"]
        print(f"{name}: {said}{wrong:.0f}% of the slow set mislabelled")
    print(out / "difficulty.json")


def generate(
    settings: Flat,
    *,
    out: Path,
    machine: Machine = HERE,
    repair: bool = False,
    start: Start = NO_START,
) -> None:
    """Make the synthetic images (steps 1 to 3) in OUT/synthetic, with a generator trained or named.

    --repair makes damaged files of the store again.

    For example: python -m empirical generate --arm tada --k 2 --strength .7 --out runs/tada

    or with any image-to-image pipeline of diffusers: python -m empirical generate --preset
    cifar10-resnet18 --generator hub:stabilityai/sd-turbo --out runs/hub
    """
    from common import distributed
    from empirical.pipeline.run import generate

    made = generate(settings, out, machine, repair)
    if distributed.is_first():
        print(f"{len(made)} synthetic images: {machine.synthetic or out / 'synthetic'}")


def export(
    folder: tyro.conf.Positional[Path],
    *,
    out: Path,
    to: str = "imagefolder",
    machine: Machine = HERE,
) -> None:
    """Write the images that a run trains on, and its test images, for other tools.

    Names of real images are their files'; synthetic ones are called synthetic-SOURCE-COPY.

    For example: python -m empirical export runs/tada --to imagefolder --out runs/images

    Args:
        folder: of a run, finished or not.
        out: a new folder.
        to: imagefolder (torchvision, timm), webdataset (tar files) or huggingface (Parquet).
    """
    from common.files import read_json
    from empirical.config.settings import from_record
    from empirical.pipeline.run import export

    path = folder / "settings.json"
    require(path.is_file(), "folder", folder, "a run's folder, with settings.json")
    print(export(from_record(read_json(path, "settings"), path), folder, to, out, machine))


def train(
    settings: Flat,
    *,
    out: Path,
    machine: Machine = HERE,
    start: Start = NO_START,
    dry_run: bool = False,
) -> None:
    """Train and score the network (step 4), and do first what OUT lacks of the steps before.

    For example: python -m empirical train --arm tada --k 2 --strength .7 --out runs/tada
    """
    run(settings, out=out, machine=machine, start=start, dry_run=dry_run)


def run(
    settings: Flat,
    *,
    out: Path,
    machine: Machine = HERE,
    start: Start = NO_START,
    dry_run: bool = False,
) -> None:
    """The whole of Algorithm 1; the result is OUT/result.json.

    For example: python -m empirical run --dataset digits --arm tada --k 2 --optimizer sam
    --seed 3 --out runs/tada. The same command resumes a stopped run, and gives the same
    bytes in another folder.

    The paper's experiment, planned only: python -m empirical run --preset cifar10-resnet18
    --arm tada --optimizer sam --out runs/cifar --dry-run. On several GPUs: accelerate launch -m
    empirical run ... or torchrun -m empirical run ...
    """
    console = Console(highlight=False, soft_wrap=True)
    if dry_run:
        from empirical.pipeline.plan import plan, tables

        found = plan(settings, out, machine)
        for table in tables(found):
            console.print(table)
        for line in found["generator"]:
            console.print(line, markup=False)
        return
    from empirical.pipeline.finished import begun_with, finished

    result = finished(settings, out) if begun_with(settings, out) else None
    if result is None:
        from empirical.pipeline.run import run

        result = run(settings, out, machine)
    elif is_main_process():
        say(f"{out / 'result.json'}: finished before, used again")
    if is_main_process():
        console.print(
            f"{result['arm']}, {result['optimizer']}, seed {result['seed']}: "
            f"test error {100 * result['test_error']:.2f}%, "
            f"slow {100 * result['slow_fraction']:.0f}%, "
            f"{result['n_original']} real + {result['n_synthetic']} synthetic images: "
            f"{out / 'result.json'}",
            markup=False,
        )
