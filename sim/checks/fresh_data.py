"""SGD of the network on fresh data at every step, from U(k) and from G(k): steps to a target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sim.checks.base import Plan, Quantity, quantity, ratio
from sim.data import DataConfig, Dataset, batch_index, generate, sample, upsample
from sim.measure import Estimate
from sim.network import gradient, init
from sim.population import curvature, population
from theory import convergence


@dataclass(frozen=True)
class Fresh:
    """Mini-batches of U(k) and of G(k), each of a data set of its own."""

    config: DataConfig
    k: int
    batch_size: int

    def draw(self, g: torch.Generator, runs: int, kept_noise: float = 0.0) -> dict[str, Dataset]:
        """One batch for each run; both arms have the same originals and the same places."""
        data = sample(self.config, g, (runs,))
        up, made = upsample(data, self.k), generate(data, self.k, g, kept_noise=kept_noise)
        index = batch_index(up.n, self.batch_size, g, batch=(runs,))
        return {"U": up.take(index), "G": made.take(index)}

    @property
    def share_fast(self) -> float:
        """N_e/N'."""
        fast = self.config.n_fast
        return fast / (fast + self.k * (self.config.n_examples - fast))


def passing(squares: Tensor, at: int) -> tuple[float, Tensor]:
    """The mean of |grad|² over the first `at` points, and each run's part in its error, (runs,).

    squares: (points, runs). A path passes this level there, whatever the level is, so that a time
    can be measured on every path.
    """
    level = squares[:at].mean(0)
    return float(level.mean()), level - level.mean()


def falling(squares: Tensor, at: int) -> float:
    """How fast the mean so far falls at `at`, per point; NaN where it does not fall."""
    before, after = squares[: at - 1].mean(), squares[: at + 1].mean()
    return float((before - after) / 2) if before > after else math.nan


def crossing(squares: Tensor, target: float) -> tuple[float, Tensor]:
    """The last T, between points, at which the mean of |grad|² so far passes the target.

    squares: (points, runs), averaged over runs. Second, each run's part in T's error, (runs,).
    NaN where the path never passes the target, or ends above it.
    """
    excess = (squares - target).cumsum(0)  # [t]: of the first t + 1 points
    mean = excess.mean(1)
    above = (mean > 0).nonzero()
    if not len(above) or int(above.max()) + 1 == len(mean):
        return math.nan, torch.full_like(excess[0], math.nan)
    last = int(above.max())
    slope = float(mean[last + 1] - mean[last])
    part = -float(mean[last]) / slope
    return last + 1 + part, -torch.lerp(excess[last], excess[last + 1], part) / slope


def time_ratio(squares: dict[str, Tensor], target: float) -> Estimate:
    """T_G/T_U from |grad|² of each arm, (points, runs); runs are paired."""
    up, up_parts = crossing(squares["U"], target)
    made, made_parts = crossing(squares["G"], target)
    parts = made_parts / up - made * up_parts / up**2
    return Estimate.of(parts).through(made / up, 1.0)


_EVERY, _DRAWS = 4, 128  # the population is looked at every so many steps, through so many draws


@dataclass(frozen=True)
class Path:
    """SGD with real logits on fresh data, seen every `_EVERY` steps.

    squares: |grad|² of the population loss, (points, runs); deviations: |ĝ − grad|² likewise;
    losses: (points,), mean over runs; smoothness: the largest curvature met.
    """

    squares: Tensor
    deviations: Tensor
    losses: Tensor
    smoothness: float


def sgd(
    plan: Plan, fresh: Fresh, sigma_init: float, lr: float, steps: int, runs: int
) -> dict[str, Path]:
    """Runs of both arms from the same filters, on the same originals."""
    config = fresh.config
    g = plan.generator("network", fresh.k)
    start = init(4, config.dim, sigma_init, plan.fixed("start")).expand(runs, -1, -1)
    W = {"U": start, "G": start}
    vector = {arm: torch.randn(start.shape, generator=g, dtype=start.dtype) for arm in W}
    seen: dict[str, list[tuple[Tensor, ...]]] = {arm: [] for arm in W}

    def expected(W: Tensor) -> tuple[Tensor, Tensor]:
        return population(W, config, plan.fixed("population"), fresh.share_fast, _DRAWS)

    for t in range(steps):
        for arm, batch in fresh.draw(g, runs).items():
            estimate = gradient(W[arm], batch)
            if t % _EVERY == 0:
                loss, slope = expected(W[arm])
                deviation = (estimate - slope).square().sum((-1, -2))
                # the vector of the last time is almost right: a few iterations do
                most, vector[arm] = curvature(
                    lambda V: expected(V)[1], W[arm], vector[arm], 2 if t else 20
                )
                seen[arm].append((slope.square().sum((-1, -2)), deviation, loss, most))
            W[arm] = W[arm] - lr * estimate
    out = {}
    for arm, points in seen.items():
        squares, deviations, losses, most = (torch.stack(v) for v in zip(*points, strict=True))
        out[arm] = Path(squares, deviations, losses.mean(1), float(most.max()))
    return out


_MILD = Fresh(DataConfig(n_examples=6, dim=12, alpha=0.5, beta_slow=0.7, sigma_noise=0.3), 4, 12)
_NOISY = Fresh(DataConfig(n_examples=2, dim=22, alpha=0.5, beta_slow=0.7, sigma_noise=0.3), 5, 6)
_MILD_LR, _NOISY_LR = 0.2, 0.05


def steps_of_network(plan: Plan) -> list[Quantity]:
    """Steps to a level against (C3)."""
    out = []
    paths = sgd(plan, _MILD, 0.5, _MILD_LR, 160, plan.size(64))
    for arm, path in paths.items():
        for at in (24, 38):  # of 40 points, where the mean so far falls
            target, parts = passing(path.squares, at)
            error = Estimate.of(parts).standard_error / falling(path.squares, at)
            out.append(
                quantity(
                    f"network: steps of {arm}({_MILD.k}) to the mean of its first {_EVERY * at}",
                    Estimate(_EVERY * at, _EVERY * error),
                    partial(
                        convergence.steps_to_target,
                        target,
                        float(path.losses[0] - path.losses[: at + 1].min()),
                        path.smoothness,
                        float(path.deviations[:at].mean()),
                        _MILD_LR,
                    ),
                    "<",
                )
            )
    return out


def noisy_network(plan: Plan) -> list[Quantity]:
    """G(k) against U(k) at equal steps, where U(k)'s noise counts."""
    steps = 80
    paths = sgd(plan, _NOISY, 0.4, _NOISY_LR, steps, plan.size(256))
    both = ratio(*(paths[arm].squares.mean(0) for arm in ("G", "U")))
    label = f"network, noisy: mean |grad|^2 over {steps} steps, G/U, k={_NOISY.k}"
    return [quantity(label, both, 1.0, "<")]
