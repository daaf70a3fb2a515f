"""Whole runs: against autograd, what is measured on the way, checkpoints, bad parameters."""

import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from common.errors import ParameterError
from sim.backends.dense import Dense
from sim.backends.span import Span
from sim.data import DataConfig, Dataset, batch_index, generate, sample, upsample
from sim.measure import errors
from sim.network import Activation, init
from sim.train import Point, Run, cheaper, prepare, train

BACKENDS = ("dense", "span")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest entry; NaN counts as different."""
    difference = float((a - b).abs().max() / b.abs().max())
    return difference if difference == difference else math.inf


SMALL = DataConfig(n_examples=10, dim=14, n_patches=3, alpha=0.6, sigma_noise=0.3, beta_slow=0.6)
DATA = generate(sample(SMALL, rng()), 2, rng(1), sigma_synthetic=0.4)
COPIES = upsample(sample(SMALL, rng()), 3)
W0 = init(2, 14, 0.4, rng(2))


# Against autograd


def sigma(z: Tensor, activation: Activation) -> Tensor:
    return (relu(z) if activation.rectified else z) ** activation.power


def autograd(
    data: Dataset,
    activation: Activation,
    lr: float,
    steps: int,
    rho: float = 0.0,
    frozen: float | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    def slope(W: Tensor, index: Tensor) -> Tensor:
        W = W.clone().requires_grad_()
        f = sigma(torch.einsum("jd,npd->npj", W, data.x[index]), activation).sum((1, 2))
        margin = data.y[index] * f
        objective = -logsigmoid(margin) if frozen is None else -frozen * margin
        return torch.autograd.grad(objective.mean(), W)[0]

    W, index = W0, torch.arange(data.n)
    for _ in range(steps):
        if batch_size:
            index = batch_index(data.n, batch_size, generator)
        g = slope(W, index)
        if rho:
            g = slope(W + rho * g / g.norm(), index)
        W = W - lr * g
    return W


@pytest.mark.parametrize("data", [DATA, COPIES], ids=["generated", "copies"])
@pytest.mark.parametrize(
    "activation",
    [Activation(p, r) for p in (2, 3, 4) for r in (False, True)],
    ids=lambda a: f"{'ReLU' if a.rectified else 'z'}^{a.power}",
)
@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("frozen", [None, 0.3])
def test_a_run_is_autograd(
    activation: Activation, data: Dataset, batch_size: int | None, frozen: float | None
) -> None:
    for rho in (0.0, 0.1):
        settings = {"batch_size": batch_size, "rho": rho, "lr": 0.07 / activation.power}
        expected = autograd(data, activation, steps=30, frozen=frozen, generator=rng(3), **settings)
        assert 0.03 < relative(expected, W0) < 50
        for backend in BACKENDS:
            space = prepare(W0, data, activation, backend)
            W = train(space, steps=30, logits=frozen, generator=rng(3), **settings).W
            assert relative(W, expected) < 1e-10, (backend, rho)


# What a point measures


def points(
    data: Dataset, activation: Activation, state_seed: int = 7
) -> tuple[Point, Point, Tensor]:
    """The same filters, off the start, in both representations."""
    span = prepare(W0, data, activation, "span")
    A = 0.3 * torch.randn(span.initial.shape, generator=rng(7), dtype=torch.float64)
    W = span.filters(A)
    return Point(prepare(W0, data, activation, "dense"), W), Point(span, A), W


def by_example(
    W: Tensor, data: Dataset, activation: Activation, frozen: float | None
) -> tuple[list[float], Tensor]:
    """Each example's output, and its gradient by autograd."""
    outputs, gradients = [], []
    for x, y in zip(data.x, data.y, strict=True):
        own = W.clone().requires_grad_()
        f = sum(sigma(w @ patch, activation) for w in own for patch in x)
        objective = -logsigmoid(y * f) if frozen is None else -frozen * y * f
        gradients.append(torch.autograd.grad(objective, own)[0])
        outputs.append(float(f.detach()))
    return outputs, torch.stack(gradients)


VARIANTS = {
    "either": SMALL,
    "both": DataConfig(10, 14, 4, 0.6, sigma_noise=0.3, beta_slow=0.6, variant="both"),
    "isotropic": DataConfig(10, 14, 3, 0.6, sigma_noise=0.3, beta_slow=0.6, noise="isotropic"),
}


@pytest.mark.parametrize("frozen", [None, 0.3])
@pytest.mark.parametrize("activation", [Activation(), Activation(2), Activation(3, True)])
@pytest.mark.parametrize("arm", ["upsample", "generate"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_measurements_are_their_definitions(
    variant: str, arm: str, activation: Activation, frozen: float | None
) -> None:
    data = sample(VARIANTS[variant], rng())
    data = upsample(data, 3) if arm == "upsample" else generate(data, 3, rng(1))
    *both, W = points(data, activation)
    outputs, each = by_example(W, data, activation, frozen)
    full = each.mean(0)
    right = [float(y) * f > 0 for y, f in zip(data.y, outputs, strict=True)]
    loss = sum(math.log1p(math.exp(-float(y) * f)) for y, f in zip(data.y, outputs, strict=True))
    first = 0 if variant == "isotropic" else 2
    covariance = torch.stack([torch.stack([v[first:] @ w[first:] for v in W]) for w in W])
    alignment = {}
    for rho in (0.0, 0.2):
        g = full
        if rho:
            g = by_example(W + rho * full / full.norm(), data, activation, frozen)[1].mean(0)
        alignment[rho] = [
            [
                float(y * (-g[j] @ patch))
                for x, y, noise in zip(data.x, data.y, data.is_noise, strict=True)
                for patch in x[noise]
                if y * (W[j] @ patch) > 0
            ]
            for j in range(len(W))
        ]
    assert 0 < len(alignment[0.0][0]) < int(data.is_noise.sum())
    for point in both:
        assert relative(point.W, W) < 1e-12
        assert relative(point.features, W[:, :2]) < 1e-12
        assert relative(point.covariance, covariance) < 1e-12
        assert float(point.loss()) == pytest.approx(loss / data.n, rel=1e-12)
        assert float(point.gradient_norm(frozen)) == pytest.approx(float(full.norm()), rel=1e-10)
        for rho, along in alignment.items():
            for value, own in zip(point.noise_alignment(rho, frozen), along, strict=True):
                assert float(value) == pytest.approx(sum(own) / len(own), rel=1e-9)
        share = point.errors()
        for name, of in (("all", [True] * data.n), ("fast", data.is_fast), ("slow", ~data.is_fast)):
            group = [r for r, wanted in zip(right, of, strict=True) if wanted]
            assert float(share[name]) == pytest.approx(1 - sum(group) / len(group), abs=1e-12)
        for b in (1, 4):
            variance = ((each - full) ** 2).sum((1, 2)).mean() / b * (data.n - b) / (data.n - 1)
            assert float(point.batch_variance(b, frozen)) == pytest.approx(
                float(variance), rel=1e-9
            )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batch_variance_is_that_of_all_batches(variant: str, batch_size: int) -> None:
    data = upsample(sample(VARIANTS[variant], rng()).take(torch.arange(10)), 2)
    *both, W = points(data, Activation())
    each = by_example(W, data, Activation(), None)[1]
    batches = itertools.combinations(range(data.n), batch_size)
    drawn = torch.stack([each[list(batch)].mean(0) for batch in batches])
    assert len(drawn) == math.comb(14, batch_size)
    expected = float((drawn - each.mean(0)).square().sum((1, 2)).mean())
    for point in both:
        assert float(point.batch_variance(batch_size)) == pytest.approx(expected, rel=1e-10)


def test_all_examples_at_once_have_no_variance() -> None:
    for point in points(DATA, Activation())[:2]:
        assert float(point.batch_variance(DATA.n)) == 0.0
        with pytest.raises(ParameterError, match=r"^batch_size = 15"):
            point.batch_variance(DATA.n + 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_measuring_does_not_disturb(backend: str) -> None:
    for activation in (Activation(2), Activation()):
        space = prepare(W0, DATA, activation, backend)

        def measure(point: Point) -> dict[str, Tensor]:
            before = point.state.clone()
            values = {
                "loss": point.loss(),
                "alignment": point.noise_alignment(0.1),
                "norm": point.gradient_norm(),
                "variance": point.batch_variance(2),
                "covariance": point.covariance,
            }
            assert torch.equal(before, point.state)
            assert torch.equal(values["norm"], point.gradient_norm())
            return values

        quiet = train(space, 0.03, 10, rho=0.1)
        watched = train(space, 0.03, 10, rho=0.1, record=measure)
        assert torch.equal(quiet.W, watched.W)
        assert watched.history["alignment"].shape == (11, 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_diverged_run_is_wrong_not_right(backend: str) -> None:
    end = train(prepare(W0, DATA, backend=backend), 1e6, 20, logits=0.5).end
    assert not end.W.isfinite().all()
    assert float(end.errors()["all"]) == 1.0
    assert float(errors(end.W, DATA)["all"]) == 1.0


# Recording


def test_records_before_the_chosen_steps_and_after_the_last() -> None:
    seen = []

    def record(point: Point) -> dict[str, Tensor]:
        seen.append(point.t)
        return {"W": point.W, "loss": point.loss()}

    space = prepare(W0, DATA)
    run = train(space, 0.05, 4, record=record)
    assert seen == run.steps == [0, 1, 2, 3, 4]
    assert torch.equal(run.history["W"][0], W0)
    assert torch.equal(run.history["W"][4], run.W)
    assert run.history["loss"].shape == (5,)
    assert run.end.t == 4
    for t in range(5):
        assert torch.equal(run.history["W"][t], train(space, 0.05, t).W)
    seen.clear()
    some = train(space, 0.05, 4, record=record, record_at=iter([4, 1, 99, 1]))
    assert seen == some.steps == [1, 4]
    assert torch.equal(some.history["W"], run.history["W"][[1, 4]])
    assert train(space, 0.05, 4, record=record, record_at=[]).history == {}
    quiet = train(space, 0.05, 4)
    assert (quiet.steps, quiet.history) == ([], {})


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_steps(backend: str) -> None:
    lr = torch.tensor([0.1, 0.2]).double()
    run = train(
        prepare(W0, DATA, backend=backend), lr, 0, record=lambda point: {"loss": point.loss()}
    )
    assert torch.equal(run.W, W0.expand(2, *W0.shape))
    assert run.steps == [0]
    assert torch.equal(run.history["loss"], run.end.loss()[None])


def test_a_record_that_changes_its_mind_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"^record = \['t1'\]"):
        train(prepare(W0, DATA), 0.1, 3, record=lambda p: {f"t{min(p.t, 1)}": p.W})


# Checkpoints


class Interrupted(Exception):  # noqa: N818
    pass


def watch(stop: int | None = None) -> Callable[[Point], dict[str, Tensor]]:
    def record(point: Point) -> dict[str, Tensor]:
        if point.t == stop:
            raise Interrupted
        return {"loss": point.loss(), "W": point.W, "wrong": point.errors()["all"] > 0.5}

    return record


def same_bytes(a: Run, b: Run) -> None:
    assert a.steps == b.steps
    assert a.history.keys() == b.history.keys()
    for name, expected in b.history.items():
        assert a.history[name].numpy().tobytes() == expected.numpy().tobytes()
        assert a.history[name].dtype == expected.dtype
    assert a.end.state.numpy().tobytes() == b.end.state.numpy().tobytes()


KINDS = {"SAM": {"rho": 0.1}, "mini-batch SAM": {"rho": 0.1, "batch_size": 3}}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("record_at", [None, [0, 3, 17, 20]], ids=["all", "some"])
def test_an_interrupted_run_gives_the_same_bytes(
    kind: str, backend: str, record_at: list[int] | None, transposed: bool, tmp_path: Path
) -> None:
    W = init(2, 14, 0.4, rng(2), (2,))
    space = prepare(W.mT.contiguous().mT if transposed else W, DATA, backend=backend)
    file = tmp_path / "run.safetensors"

    def go(stop: int | None, checkpoint: Path | None) -> tuple[Run, bytes]:
        generator = rng(9)
        run = train(
            space,
            torch.tensor([0.05, 0.1]).double(),
            20,
            **KINDS[kind],
            generator=generator,
            record=watch(stop),
            record_at=record_at,
            checkpoint=checkpoint,
            checkpoint_every=4,
        )
        return run, generator.get_state().numpy().tobytes()

    undisturbed, draws = go(None, None)
    for stops in ([0], [3], [17], [3, 20]):
        file.unlink(missing_ok=True)
        for stop in stops:
            with pytest.raises(Interrupted):
                go(stop, file)
            assert file.exists() == (stop >= 4)
        resumed, resumed_draws = go(None, file)
        same_bytes(resumed, undisturbed)
        assert resumed_draws == draws
    same_bytes(go(None, file)[0], undisturbed)  # and once more after the end
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_resumed_run_does_not_repeat_what_is_saved(tmp_path: Path) -> None:
    seen: list[int] = []

    def record(point: Point) -> dict[str, Tensor]:
        seen.append(point.t)
        if seen.count(10) == 1 and point.t == 10:
            raise Interrupted
        return {"loss": point.loss()}

    arguments = {"record": record, "checkpoint": tmp_path / "run", "checkpoint_every": 4}
    with pytest.raises(Interrupted):
        train(prepare(W0, DATA), 0.1, 12, **arguments)
    run = train(prepare(W0, DATA), 0.1, 12, **arguments)
    assert seen == [*range(11), *range(8, 13)]
    assert run.history["loss"].shape == (13,)


KILLED = """
import sys, time
from pathlib import Path
import torch
from sim.data import DataConfig, generate, sample
from sim.train import prepare, train
from sim.network import init

torch.set_num_threads(1)
rng = lambda seed: torch.Generator().manual_seed(seed)
data = generate(sample(DataConfig(10, 14, alpha=0.6, sigma_noise=0.3), rng(0)), 2, rng(1))
space = prepare(init(2, 14, 0.4, rng(2)), data, backend="span")
slow, file, out = sys.argv[1] == "slow", Path(sys.argv[2]), Path(sys.argv[3])

def record(point):
    if slow:
        time.sleep(0.01)
    return {"loss": point.loss()}

run = train(space, 0.1, 150, 0.1, batch_size=3, generator=rng(3), record=record,
            checkpoint=file, checkpoint_every=1)
out.write_bytes(run.W.numpy().tobytes() + run.history["loss"].numpy().tobytes())
"""


def test_a_killed_process_is_continued_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arguments(pace: str, name: str) -> list[str]:
        return [pace, str(tmp_path / name), str(tmp_path / f"{name}.out")]

    def go(name: str) -> bytes:
        monkeypatch.setattr(sys, "argv", ["-c", *arguments("fast", name)])
        exec(KILLED, {})
        return (tmp_path / f"{name}.out").read_bytes()

    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments("slow", "killed")])
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert (tmp_path / "killed").exists()
    assert not (tmp_path / "killed.out").exists()
    assert go("killed") == go("whole")


def checkpointed(file: Path, **change) -> Run:
    settings = {"W": W0, "data": DATA, "activation": Activation(), "backend": "span"} | {
        "lr": 0.1,
        "steps": 6,
        "rho": 0.1,
        "logits": None,
        "batch_size": 3,
        "replacement": False,
        "seed": 4,
        "record": lambda point: {"loss": point.loss()},
        "record_at": None,
    }
    settings |= change
    space = prepare(*(settings.pop(name) for name in ("W", "data", "activation", "backend")))
    generator = rng(settings.pop("seed"))
    return train(space, **settings, generator=generator, checkpoint=file, checkpoint_every=4)


@pytest.mark.parametrize(
    "change",
    [
        {"W": W0 + 1e-12},
        {"W": W0.expand(1, *W0.shape)},
        {"data": upsample(sample(SMALL, rng()), 2)},
        {"activation": Activation(3, True)},
        {"backend": "dense"},
        {"lr": 0.2},
        {"lr": torch.tensor([0.1]).double()},
        {"steps": 7},
        {"rho": 0.2},
        {"logits": 0.5},
        {"batch_size": 4},
        {"batch_size": None},
        {"replacement": True},
        {"seed": 5},
        {"record_at": [0, 6]},
        {"record": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_checkpoint_of_another_run_is_refused(change: dict, tmp_path: Path) -> None:
    file = tmp_path / "run"
    checkpointed(file)
    before = file.read_bytes()
    with pytest.raises(ParameterError, match=r"run: must be of this run") as caught:
        checkpointed(file, **change)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before
    checkpointed(file)


def test_a_record_of_other_names_is_refused(tmp_path: Path) -> None:
    checkpointed(tmp_path / "run")
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(ParameterError, match=r"^record = \['norm'\]"):
        checkpointed(tmp_path / "run", record=lambda point: {"norm": point.gradient_norm()})
    assert (tmp_path / "run").read_bytes() == before


@pytest.mark.parametrize("damage", ["empty", "header", "half", "short", "text", "other"])
def test_a_damaged_checkpoint_is_refused_and_kept(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "run"
    checkpointed(file)
    whole = file.read_bytes()
    if damage == "other":
        save_file({"state": W0}, file)
    else:
        file.write_bytes(
            {
                "empty": b"",
                "header": whole[:5],
                "half": whole[: len(whole) // 2],
                "short": whole[:-1],
                "text": b"not a checkpoint at all, but long enough to have a header\n" * 20,
            }[damage]
        )
    before = file.read_bytes()
    with pytest.raises(ParameterError, match=r": must be (a whole|of this run)") as caught:
        checkpointed(file)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


def test_a_checkpoint_that_cannot_be_saved_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run"
    checkpointed(file)
    before = file.read_bytes()

    write = Path.write_bytes

    def full(part: Path, content: bytes) -> int:
        write(part, content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    settings = {"steps": 12, "record": None}
    shutil.move(file, tmp_path / "kept")
    with pytest.raises(OSError, match="No space"):
        checkpointed(file, **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    assert (tmp_path / "kept").read_bytes() == before


# Which backend


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("arm", ["original", "upsample", "generate"])
@pytest.mark.parametrize("dim", [6, 11, 12, 13, 20, 40, 100])
def test_the_cheaper_backend(dim: int, arm: str, batch_size: int | None) -> None:
    data = sample(DataConfig(12, dim, 3, 0.75), rng(), (2,))
    if arm != "original":
        data = upsample(data, 5) if arm == "upsample" else generate(data, 5, rng(1))
    noise = {"original": 24, "upsample": 24, "generate": 24 + 4 * 3 * 2}[arm]
    rows = 2 + noise
    if batch_size is None:
        span = rows**2 < 2 * data.n * 3 * dim
    else:
        span = (2 + batch_size * 2) * rows < 2 * batch_size * 3 * dim
    assert cheaper(data, batch_size) == ("span" if span else "dense")
    chosen = prepare(W0.new_zeros(1, dim), data, batch_size=batch_size)
    assert isinstance(chosen, Span if span else Dense)


def test_a_gram_matrix_above_4_gib_is_not_made() -> None:
    data = sample(DataConfig(1000, 300, 2), rng())
    for draws, backend in ((530, "span"), (540, "dense")):  # of 8 × 1002² bytes
        many = replace(data, x=data.x.expand(draws, -1, -1, -1), y=data.y.expand(draws, -1))
        assert cheaper(many) == cheaper(many, batch_size=64) == backend


# Compiled


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compiled_steps_are_the_eager_ones() -> None:
    space = prepare(W0, DATA, backend="span")
    eager = train(space, 0.05, 20, rho=0.1).W
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch(\.|$)")
        compiled = train(space, 0.05, 20, rho=0.1, compile=True).W
    assert relative(compiled, eager) < 1e-10


# Bad parameters


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("lr", {"lr": 0.0}),
        ("lr", {"lr": -1.0}),
        ("lr", {"lr": math.nan}),
        ("lr", {"lr": torch.tensor([0.1, 0.0])}),
        ("lr", {"lr": torch.tensor([0.1, math.nan])}),
        ("steps", {"steps": -1}),
        ("rho", {"rho": -0.1}),
        ("rho", {"rho": math.nan}),
        ("rho", {"rho": torch.tensor([0.1, -0.1])}),
        ("checkpoint_every", {"checkpoint_every": 0}),
        ("batch_size", {"batch_size": 15, "generator": rng()}),
        ("batch_size", {"batch_size": 0, "generator": rng()}),
        ("batch_size", {"batch_size": 0, "generator": rng(), "replacement": True}),
        ("generator", {"batch_size": 4}),
    ],
)
def test_bad_parameters_of_train(backend: str, name: str, change: dict) -> None:
    assert DATA.n == 14
    with pytest.raises(ParameterError, match=f"^{name} = ") as caught:
        train(prepare(W0, DATA, backend=backend), **{"lr": 0.1, "steps": 1, **change})
    assert "\n" not in str(caught.value)


def test_bad_parameters_of_prepare() -> None:
    with pytest.raises(ParameterError, match=r"^backend = fast: must be one of auto, dense, span"):
        prepare(W0, DATA, backend="fast")
    with pytest.raises(ParameterError, match=r"^W = 13 wide: must be as wide as the data, 14"):
        prepare(W0[:, 1:], DATA)
