"""One simulated training run, several seeds in one tensor program, in a folder that resumes.

from sim.run import simulate
from sim.settings import RunSettings

result = simulate(RunSettings(arm="tada", k=5))
print(result["metrics"]["test_error_slow"]["mean"])
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from common.errors import ParameterError, require
from common.files import check_writable, finite, nothing_left, read_json, whole_file, write_json
from common.locks import one_writer
from common.progress import say
from common.provenance import versions
from common.seeding import torch_stream
from sim.arms import ARMS, augmented
from sim.data import FAST, SLOW, DataConfig, sample
from sim.measure import fresh_errors
from sim.memory import check_run
from sim.network import init
from sim.optim import Space
from sim.settings import RunSettings
from sim.train import BACKENDS, Point, prepare, train

METRICS = {
    "train_error": "wrong signs on the training set",
    "train_error_fast": "on its fast examples",
    "train_error_slow": "on its slow examples",
    "test_error": "wrong signs on fresh examples",
    "test_error_fast": "on fast ones",
    "test_error_slow": "on slow ones",
    "loss": "on the training set",
    "alignment_fast": "max_j <w_j, v_fast>",
    "alignment_slow": "max_j <w_j, v_slow>",
}
"""What a run measures, at its end and along the way; errors are shares, copies counted."""

CURVE_POINTS = 100
CURVE_EXAMPLES = 1000
"""Fresh examples of each kind at a point of the curves, at most: they are for looking."""

MOST = {"test_examples": 10**9, "power": 1000}
"""Largest values where neither memory nor 64 bits set them: 10^9 fresh examples take hours, and
say an error to 2e-5; the higher powers of anything are 0 or infinite."""

DTYPES = {"float32": torch.float32, "float64": torch.float64}
DEVICES = ("cpu", "cuda")

# Independent streams of random numbers, so that arms share data, initial filters and test draws.
DATA, AUGMENTATION, BATCHES, TEST = range(4)


def check(settings: RunSettings) -> None:
    """Raise ParameterError unless a run with these settings is possible (device apart)."""
    for name, value in asdict(settings).items():
        if isinstance(value, float):
            require(math.isfinite(value), name, value, "finite")
    whole = (
        *(("n_examples", 2), ("dim", 3), ("n_patches", 2), ("k", 1), ("filters", 1), ("power", 2)),
        *(("steps", 1), ("seeds", 1), ("seed", 0), ("test_examples", 1)),
    )
    for name, least in whole:
        value = getattr(settings, name)
        most = MOST.get(name, 2**63 - 1)
        allowed = f"a whole number, at least {least}"
        allowed += f" and at most {most}" if value > least else ""
        require(value == int(value) and least <= value <= most, name, value, allowed)
    for name, choices in (
        ("arm", ARMS),
        ("dtype", DTYPES),
        ("device", DEVICES),
        ("backend", BACKENDS),
    ):
        value = getattr(settings, name)
        require(value in choices, name, value, f"one of {', '.join(choices)}")
    for name in ("sigma_init", "rho", "sigma_synthetic"):
        value = getattr(settings, name)
        require(value is None or value >= 0, name, value, "0 or more")
    for name in ("fidelity", "kept_noise"):
        require(0 <= getattr(settings, name) <= 1, name, getattr(settings, name), "inside [0, 1]")
    require(settings.lr > 0, "lr", settings.lr, "positive")
    config = settings.data
    _ = settings.activation
    n, slow = config.n_examples, config.n_slow
    allowed = f"such that some of the {n} examples are fast and some slow"
    require(0 < slow < n, "alpha", config.alpha, allowed)
    _check_sizes(settings, config, slow)


def _check_sizes(settings: RunSettings, config: DataConfig, slow: int) -> None:
    n = config.n_examples
    made = {"original": 0, "syn-all": n}.get(settings.arm, (settings.k - 1) * slow)
    if settings.batch_size is not None:
        b, total = settings.batch_size, n + made
        allowed = f"a whole number between 1 and {total}, the number of training examples"
        require(b == int(b) and 1 <= b <= total, "batch_size", b, allowed)
    if config.noise == "orthogonal":
        # in variant "both" a fast example has a noise patch less, but any may be synthetic
        fast_patches = config.n_patches - (2 if config.variant == "both" else 1)
        patches = (n - slow) * fast_patches + slow * (config.n_patches - 1)
        if settings.arm == "syn-all":
            patches *= 2
        elif settings.arm != "upsample":
            patches += made * (config.n_patches - 1)
        allowed = f"at least {patches + 2} for that many orthogonal noise patches"
        require(patches <= config.dim - 2, "dim", config.dim, allowed)


def check_device(settings: RunSettings) -> None:
    """Raise ParameterError unless this machine has the device."""
    there = settings.device != "cuda" or torch.cuda.is_available()
    require(there, "device", settings.device, "cpu: torch finds no CUDA device here")


def simulate(
    settings: RunSettings,
    checkpoint: Path | None = None,
    show: str | None = None,
    curves: bool = True,
    stop_diverged: bool = False,
) -> dict[str, Any]:
    """Train with these settings and measure; JSON values only.

    metrics: for each of METRICS, at the end, its mean over seeds, the standard error of that
    (None for one seed) and the value of each seed. Test errors are of `test_examples` fresh
    examples of each kind; these are the same for all seeds, which adds up to
    0.5/√test_examples to what the standard error says.
    curves: steps, and for each of METRICS the means and standard errors before those steps (the
    last: at the end), test errors on CURVE_EXAMPLES fresh examples; left out when False.
    n_training: training examples, augmentation included. diverged: seeds that ended outside the
    floating-point numbers; they count as wrong, and their loss and means over it are None.
    diverged_at: the step of each seed (from 1) after which its filters were not finite, else None.
    stop_diverged: raise DivergenceError where all seeds diverge, with the step of the last.
    checkpoint: a file to continue from when it exists; the result is the same to the byte on a
    CPU with as many threads. show: name of the progress bar, None for none.
    Raises ParameterError: settings that are not allowed or need too much memory, a device that is
    not there, or the checkpoint of another run.
    """
    check(settings)
    check_device(settings)
    check_run(settings, checkpoint=checkpoint is not None)
    start = time.perf_counter()
    last = min(CURVE_POINTS, settings.steps)
    curve_examples = min(CURVE_EXAMPLES, settings.test_examples)
    space = _prepared(settings)
    run = train(
        space,
        settings.lr,
        settings.steps,
        settings.rho,
        batch_size=settings.batch_size,
        generator=torch_stream(settings.seed, BATCHES),
        record=(lambda point: _measured(point, settings, curve_examples)) if curves else None,
        record_at=[round(i * settings.steps / last) for i in range(last + 1)],
        checkpoint=checkpoint,
        checkpoint_every=max(1, settings.steps // 20),
        show=show,
        stop_diverged=stop_diverged,
    )
    end = _measured(run.end, settings, settings.test_examples)
    result = {
        "settings": asdict(settings),
        "n_training": space.n_total,
        "diverged": int((~torch.stack(list(end.values())).isfinite().all(0)).sum()),
        "diverged_at": [step or None for step in run.diverged.tolist()],
        "metrics": {
            name: {
                **{part: number[0] for part, number in _statistics(end[name][None]).items()},
                "per_seed": finite(end[name].tolist()),
            }
            for name in METRICS
        },
    }
    if curves:
        along = {name: _statistics(values) for name, values in run.history.items()}
        result["curves"] = {"steps": run.steps, **along}
    seconds = round(time.perf_counter() - start, 2)
    return result | {"seconds": seconds, "versions": versions()}


def _prepared(settings: RunSettings) -> Space:
    """Data, augmentation and initial filters, ready to train."""
    dtype, batch = DTYPES[settings.dtype], (settings.seeds,)
    draws = torch_stream(settings.seed, DATA)
    try:
        data = sample(settings.data, draws, batch, dtype)
        W = init(settings.filters, settings.dim, settings.sigma_init, draws, batch, dtype)
        data = augmented(
            settings.arm,
            data,
            settings.k,
            torch_stream(settings.seed, AUGMENTATION),
            settings.sigma_synthetic,
            settings.fidelity,
            settings.kept_noise,
        )
        device = settings.device
        return prepare(
            W.to(device),
            data.to(device),
            settings.activation,
            settings.backend,
            settings.batch_size,
        )
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        allowed = "smaller, or seeds, dim, k or filters: there is not enough memory"
        raise ParameterError("n_examples", settings.n_examples, allowed) from None


def _measured(point: Point, settings: RunSettings, n: int) -> dict[str, Tensor]:
    """METRICS at a point of training, each (seeds,) on the CPU."""
    features = point.features
    on_train = point.errors()
    on_test = fresh_errors(
        features,
        point.covariance,
        settings.data,
        n,
        torch_stream(settings.seed, TEST),
        settings.activation,
    )
    values = {
        **{f"train_error{ending}": on_train[kind] for ending, kind in _KINDS.items()},
        **{f"test_error{ending}": on_test[kind] for ending, kind in _KINDS.items()},
        "loss": point.loss(),
        "alignment_fast": features[..., FAST].amax(-1),
        "alignment_slow": features[..., SLOW].amax(-1),
    }
    return {name: value.double().cpu() for name, value in values.items()}


_KINDS = {"": "all", "_fast": "fast", "_slow": "slow"}


def _statistics(values: Tensor) -> dict[str, list[float | None]]:
    """Mean over seeds and its standard error: (points, seeds) -> lists over points."""
    n = values.shape[-1]
    error = values.std(-1) / n**0.5 if n > 1 else torch.full(values.shape[:-1], torch.nan)
    return {"mean": finite(values.mean(-1).tolist()), "standard_error": finite(error.tolist())}


@one_writer
def run_in(out: Path, settings: RunSettings) -> dict[str, Any]:
    """`simulate` into a folder; returns what is in out/result.json, found there or made.

    Files: settings.json, checkpoint.safetensors while it runs, result.json, curves.png. A killed
    run resumes from its checkpoint and gives the same result.json, its `seconds` apart.
    Raises ParameterError as `simulate` does, for a folder of other settings and for a damaged
    file in it; OSError where the folder cannot be written.
    """
    check(settings)
    path, checkpoint = out / "result.json", out / "checkpoint.safetensors"
    if not path.exists():
        check_device(settings)
        check_run(settings, checkpoint=True)
    fresh = not (out / "settings.json").exists()
    with nothing_left(out):
        check_writable(path)
        _claim(out, settings)
        if path.exists():
            keys = ("settings", "metrics", "curves", "seconds", "versions")
            result = read_json(path, "result", keys)
            same = result["settings"] == asdict(settings)
            require(same, "out", out, "a folder of these settings")
            say(f"{path}: finished before, used again")
        else:
            words = ["python", "-m", "sim", "run", *settings.flags, "--out", str(out)]
            try:
                result = simulate(settings, checkpoint, show="training steps", stop_diverged=True)
            except ParameterError:
                if fresh and not checkpoint.exists():
                    (out / "settings.json").unlink()
                raise
            result["command"] = shlex.join(words)
            write_json(path, result)
    if not (out / "curves.png").exists():
        draw_curves(result, out / "curves.png")
    checkpoint.unlink(missing_ok=True)
    return result


def _claim(out: Path, settings: RunSettings) -> None:
    """Note in the folder whose it is, or check that it is ours."""
    path = out / "settings.json"
    ours = asdict(settings)
    if not path.exists():
        foreign = (out / "result.json").exists()
        require(not foreign, "out", out, "another folder: it holds result.json of something else")
        write_json(path, ours)
        return
    found = read_json(path, "settings")
    for name in sorted(set(ours) | set(found)):
        allowed = f"{found.get(name)} as in {path}, or another --out"
        require(name in found and found[name] == ours.get(name), name, ours.get(name), allowed)


def draw_curves(result: Mapping[str, Any], path: Path) -> None:
    """Draw loss, test errors and feature alignments along training, ± 2 standard errors."""
    from matplotlib import rc_context

    from common.plotting import BLUE, GREY, ORANGE, STYLE, canvas, line

    panels = {
        "training loss": (("", "loss", GREY),),
        "test error": (("fast", "test_error_fast", BLUE), ("slow", "test_error_slow", ORANGE)),
        "$\\max_j \\langle w_j, v\\rangle$": (
            *(("fast", "alignment_fast", BLUE), ("slow", "alignment_slow", ORANGE)),
        ),
    }
    curves, settings = result["curves"], result["settings"]
    with rc_context(STYLE):
        figure, row = canvas(10, 3.2, ncols=len(panels))
        for axes, (title, lines) in zip(row, panels.items(), strict=True):
            for label, name, color in lines:
                line(axes, curves["steps"], curves[name], color, label)
            axes.set(title=title, xlabel="step")
            if len(lines) > 1:
                axes.legend()
        what = f"{settings['arm']}, k = {settings['k']}, {settings['seeds']} seeds"
        figure.suptitle(f"{what}: means ± 2 standard errors")
        with whole_file(path) as part:
            figure.savefig(part, format="png", dpi=120)


def table(result: Mapping[str, Any]) -> Table:
    """A row for each metric: mean over seeds ± its standard error."""
    s = result["settings"]
    title = f"{s['arm']}, k = {s['k']}, {s['seeds']} seeds, {s['steps']} steps, "
    out = Table(title=f"{title}{result['n_training']} training examples", box=SIMPLE_HEAD)
    out.add_column("at the end")
    out.add_column("mean ± s.e.", justify="right", no_wrap=True)
    out.add_column("")
    for name, meaning in METRICS.items():
        out.add_row(name, shown(**result["metrics"][name]), f"[dim]{meaning}[/]")
    if result["diverged"]:
        out.caption = f"{result['diverged']} of {s['seeds']} seeds diverged"
        steps = [step for step in result.get("diverged_at", ()) if step]
        out.caption += f", the first at step {min(steps)}" if steps else ""
        out.caption += f": lower --lr {s['lr']:g}"
    return out


def shown(mean: float | None, standard_error: float | None, **_: Any) -> str:
    """A mean and its standard error as people read them."""
    if mean is None:
        return "not finite"
    return f"{mean:.4g}" + ("" if standard_error is None else f" ± {standard_error:.1g}")
