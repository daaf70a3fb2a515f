"""SGD on data that are used again and again: what copies cost, and where it is paid.

V of Theorem 4.3 splits into the distance of the data's gradient from the population's, and the
batch's variance around the data's gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sim.checks.base import DRAWN, Check, Plan, Quantity, combine, exact, quantity, unbroken
from sim.checks.quadrature import normal, planted
from sim.data import DataConfig, Dataset, batch_index, generate, sample, upsample
from sim.measure import Estimate, batch_variance
from sim.network import gradient, init
from sim.population import curvature, population
from theory import convergence
from theory import gradient_variance as variance

# --- the split, equations (C6) and (C7) ----------------------------------------------------------

_LOGIT = 0.4
_TINY = DataConfig(n_examples=2, dim=3, alpha=0.5, sigma_noise=0.6)
_TINY_PATCHES = DataConfig(n_examples=2, dim=3, n_patches=3, alpha=0.5, sigma_noise=0.6)
_SMALL = DataConfig(n_examples=6, dim=34, alpha=0.5, sigma_noise=0.3)
_CHUNK = 500  # data sets at a time


def _split(W: Tensor, data: Dataset, batch_size: int) -> dict[str, Tensor]:
    """Both parts at filters without feature components, where the population's gradient is 0."""
    return {
        "bias": gradient(W, data, _LOGIT).square().sum((-1, -2)),
        "batch": batch_variance(W, data, batch_size, _LOGIT),
    }


def _filters(plan: Plan, config: DataConfig) -> Tensor:
    W = init(16, config.dim, 0.4, plan.fixed(config.dim))
    W[:, :2] = 0
    return W


def _integrated(plan: Plan) -> list[Quantity]:
    """The fewest examples, so that every 1 weighs; exact means over the noise."""
    out = []
    for config, k, batch_size, share in (
        (_TINY, 2, 1, 0.5),
        (_TINY, 2, 2, 1.0),
        (_TINY, 3, 2, 0.7),
        (_TINY_PATCHES, 2, 2, 0.9),
    ):
        W, g = _filters(plan, config), plan.generator(48)
        one = sample(config, g)
        # squared gradients have degree 6 in each number
        made, weight = planted(generate(one, k, g), normal(4), normal(4))
        arms = {"U": upsample(made.take(torch.arange(one.n)), k), "G": made}
        parts = {a: _split(W, data, batch_size) for a, data in arms.items()}
        for arm, split in parts.items():
            for part, value in split.items():
                label = f"{part} of {arm}({k}), B={batch_size} P={config.n_patches}, integrated"
                predict = partial(_part, _Noise.of(config, W, k, batch_size), arm, part)
                out.append(exact(label, value @ weight, predict))
        costs = {a: split["bias"] + share * split["batch"] for a, split in parts.items()}
        out.append(
            exact(
                f"U({k}) over G({k}) in the bound, B={batch_size} lr L_s={share:g}, integrated",
                (costs["U"] - costs["G"]) @ weight,
                partial(_penalty, _Noise.of(config, W, k, batch_size), share),
            )
        )
    return out


def _drawn(plan: Plan) -> list[Quantity]:
    k, batch_size, share = 3, 5, 0.8
    W, g = _filters(plan, _SMALL).to(DRAWN), plan.generator(49)
    chunks = plan.size(36)
    kinds = [(arm, part) for arm in ("U", "G") for part in ("bias", "batch")]
    # filled, not appended to: small tensors that stay between large ones that go waste memory
    found = {kind: torch.empty(chunks, _CHUNK, dtype=W.dtype) for kind in kinds}
    for chunk in range(chunks):
        data = sample(_SMALL, g, (_CHUNK,), DRAWN)
        made = generate(data, k, g, kept_noise=1.0 if plan.broken else 0.0)
        for arm, augmented in (("U", upsample(data, k)), ("G", made)):
            for part, value in _split(W, augmented, batch_size).items():
                found[arm, part][chunk] = value
    noise = _Noise.of(_SMALL, W, k, batch_size)
    out = [
        quantity(
            f"{part} of {arm}({k}), B={batch_size}",
            Estimate.of(value),
            partial(_part, noise, arm, part),
        )
        for (arm, part), value in found.items()
    ]
    costs = {arm: found[arm, "bias"] + share * found[arm, "batch"] for arm in ("U", "G")}
    label = f"U({k}) over G({k}) in the bound, B={batch_size} lr L_s={share:g}"
    penalty = Estimate.of(costs["U"] - costs["G"])
    return [*out, quantity(label, penalty, lambda: _penalty(noise, share))]


@dataclass(frozen=True)
class _Noise:
    """What (C6) and (C7) need: a world, Σ_j ‖w_j‖⁴ of the filters, k and the batch size."""

    config: DataConfig
    quartic: float
    k: int
    batch_size: int

    @staticmethod
    def of(config: DataConfig, W: Tensor, k: int, batch_size: int) -> _Noise:
        return _Noise(config, float(W.square().sum(1).square().sum()), k, batch_size)

    @property
    def size(self) -> int:
        """N'."""
        return self.config.n_fast + self.k * self.config.n_slow

    def strength(self) -> float:
        """S of (21)."""
        filters = variance.Filters(self.quartic, 0.0, 0.0)
        config = self.config
        return variance.single_sample_noise(
            config.sigma_noise, _LOGIT, filters, config.dim, config.n_patches
        )

    def repeated(self) -> float:
        """ω_U of (23)."""
        counts = self.config.n_fast, self.config.n_slow, self.k
        return variance.same_noise_probability(*counts, replacement=False)


def _part(noise: _Noise, arm: str, part: str) -> float:
    """(C6)."""
    repeated = noise.repeated() if arm == "U" else 0.0
    bias, batch = convergence.split_variance(
        noise.strength(), repeated, noise.size, noise.batch_size
    )
    return bias if part == "bias" else batch


def _penalty(noise: _Noise, share: float) -> float:
    """(C7), which lr and L_s enter by their product alone."""
    return convergence.upsampling_penalty(
        noise.strength(), noise.repeated(), noise.size, noise.batch_size, share, 1.0
    )


# --- the bound, equation (C5) --------------------------------------------------------------------


def _quadratic(plan: Plan) -> list[Quantity]:
    """An isotropic quadratic at lr = 1/L_s, where the bound is an identity.

    The data's gradient is off by a constant; noise of a fixed length at right angles to it.
    """
    smoothness, steps, bias, deviation = 2.0, 6, 0.7, 1.1
    g = plan.generator(50)
    W = torch.tensor([3.0, 0.0], dtype=torch.float64)
    losses, total = [], 0.0
    for _ in range(steps):
        losses.append(smoothness / 2 * float(W.square().sum()))
        total += float((smoothness * W).square().sum()) / steps
        sign = 1.0 - 2.0 * float(torch.randint(0, 2, (), generator=g))
        off = torch.tensor([bias, sign * deviation], dtype=W.dtype)
        W = W - (smoothness * W + off) / smoothness
    return [
        exact(
            "quadratic: mean |grad|^2 of the population",
            total,
            partial(
                convergence.reused_data_bound,
                loss_initial=losses[0],
                loss_final=smoothness / 2 * float(W.square().sum()),
                lr=1 / smoothness,
                smoothness=smoothness,
                bias=bias**2,
                batch_variance=deviation**2,
                steps=steps,
            ),
        )
    ]


_WORLD = DataConfig(n_examples=12, dim=12, alpha=0.5, beta_slow=0.8, sigma_noise=0.22)
_K, _BATCH, _LR, _STEPS, _EVERY, _DRAWS = 4, 10, 0.2, 120, 4, 128


def _network(plan: Plan) -> list[Quantity]:
    """SGD with real logits on one data set for each run; the population seen now and then."""
    runs = plan.size(48)
    g = plan.generator(51)
    data = sample(_WORLD, g, (runs,))
    start = init(4, _WORLD.dim, 0.5, plan.fixed("start")).expand(runs, -1, -1)
    out = []
    for arm, augmented in (("U", upsample(data, _K)), ("G", generate(data, _K, g))):
        share = float(augmented.is_fast.double().mean())

        def expected(W: Tensor, share: float = share) -> tuple[Tensor, Tensor]:
            return population(W, _WORLD, plan.fixed("population"), share, _DRAWS)

        W = start
        vector = torch.randn(W.shape, generator=g, dtype=W.dtype)
        seen: list[tuple[Tensor, ...]] = []
        for t in range(_STEPS):
            if t % _EVERY == 0:
                loss, slope = expected(W)
                off = gradient(W, augmented) - slope
                # the vector of the last time is almost right: a few iterations do
                most, vector = curvature(
                    lambda V: expected(V)[1],
                    W,
                    vector,
                    2 if t else 20,
                )
                squares = [v.square().sum((-1, -2)) for v in (slope, off)]
                seen.append((*squares, batch_variance(W, augmented, _BATCH), loss, most))
            index = batch_index(augmented.n, _BATCH, g, batch=(runs,))
            W = W - _LR * gradient(W, augmented.take(index))
        square, bias, batch, loss, most = (torch.stack(v) for v in zip(*seen, strict=True))
        # the bound's bias is that of the same runs, and large where the gradient is: what chance
        # leaves open is the difference
        error = Estimate.of((square - bias).mean(0)).standard_error
        out.append(
            quantity(
                f"network: mean |grad|^2 of the population over {_STEPS} steps on {arm}({_K})",
                Estimate(float(square.mean()), error),
                partial(
                    convergence.reused_data_bound,
                    loss_initial=float(loss[0].mean()),
                    loss_final=float(expected(W)[0].mean()),
                    lr=_LR,
                    smoothness=float(most.max()),
                    bias=float(bias.mean()),
                    batch_variance=float(batch.mean()),
                    steps=_STEPS,
                ),
                "<",
            )
        )
    return out


CHECKS = (
    Check(
        "reused-data",
        "synthetic noise is fresh (control: each synthetic example keeps its source's noise)",
        combine(_drawn, unbroken(_integrated), unbroken(_quadratic), unbroken(_network)),
    ),
)
