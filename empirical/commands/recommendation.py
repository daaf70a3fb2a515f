"""The commands `recommend` and `grid`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from empirical.commands.start import NO_START, Flat, Start
from empirical.runtime import HERE, Machine


def recommend(
    settings: Flat,
    *,
    out: Path,
    ks: tuple[int, ...] = (2, 3, 4, 5, 8),
    sources: int = 256,
    copies: int = 2,
    judge: str = "conv4",
    judge_epochs: int = 20,
    machine: Machine = HERE,
    start: Start = NO_START,
) -> None:
    """Recommend strength and k before the images are made, by theory/family.md, with the reason.

    Makes --copies images of --sources slow ones at each of --strengths (by default .1 to 1),
    measures which share of the feature and of the noise they keep, and writes
    OUT/recommendation.json and OUT/recommendation.png. OUT is then the folder of the recommended
    run: `empirical run` with that strength and k continues there.

    For example: python -m empirical recommend --dataset digits --strengths .3 .5 .7 .9
    --out runs/advice

    or on planted images: python -m empirical recommend --preset planted-small --generator
    ideal:fading --sources 128 --ks 2 4 8 --out runs/planted

    Args:
        out: folder of the recommendation, and of the run that follows it.
        ks: amplifications to choose from, beside 1, which is no synthetic images.
        sources: at most so many slow images, which copies are made of.
        copies: of each source at each strength.
        judge: network of the two classifiers that say what copies keep.
        judge_epochs: of their training.
    """
    from common import distributed
    from empirical.recommendation.recommend import recommend

    found = recommend(settings, out, ks, sources, copies, judge, judge_epochs, machine)
    if distributed.is_first():
        console = Console(highlight=False, soft_wrap=True)
        chosen = "no synthetic images" if found["strength"] is None else f"k = {found['k']}"
        if found["strength"] is not None:
            chosen += f" at strength {found['strength']:g}"
        console.print(f"recommended: {chosen}", markup=False)
        for sentence in found["reason"]:
            console.print(sentence, markup=False)
        if "go_on" in found:
            console.print(found["go_on"], markup=False)
        console.print(str(out / "recommendation.json"), markup=False)


def grid(
    settings: Flat,
    *,
    out: Path,
    ks: tuple[int, ...] = (2, 4),
    seeds: int = 3,
    machine: Machine = HERE,
    start: Start = NO_START,
) -> None:
    """Measure the test error at every k with each of --strengths, over seeds, and without images.

    Writes OUT/grid.json and OUT/grid.png; cells share generator, slow examples and images. With
    OUT/recommendation.json there, the recommended cell is compared with the best one.

    For example: python -m empirical grid --dataset digits --strengths .3 .5 .7 .9 --ks 2 4
    --seeds 3 --out runs/advice

    Args:
        out: folder of the grid, also one that has a recommendation.
        ks: amplifications that are run, beside 1, which is no synthetic images.
        seeds: how many seeds, from --seed on.
    """
    from common import distributed
    from empirical.recommendation.grid import ERRORS, grid

    found = grid(settings, out, ks, seeds, machine)
    if distributed.is_first():
        for name, what in ERRORS.items():
            best = found["best"][name]
            if best["mean"] is None:
                print(f"no {what}: no test image is slow")
                continue
            at = "" if best["strength"] is None else f" at strength {best['strength']:g}"
            print(f"least {what}: {100 * best['mean']:.1f}%, k = {best['k']}{at}")
            over = (found["recommended_against_best"] or {}).get(name)
            if over is not None:
                error = over["standard_error"]
                spread = "" if error is None else f" ± {100 * error:.1f}"
                print(f"  recommended: {100 * over['mean']:.1f}{spread} points more")
        print(out / "grid.json")
