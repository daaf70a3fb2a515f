"""What is learned first on a member of the family, the best k, and the best strength.

Equations (F7) to (F12) of theory/family.md. Growth rates are exact where noise is orthogonal and of
its typical length, and are measured to rounding; learning times are measured in steps of GD.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sim.checks.amplification import memorisation
from sim.checks.base import (
    Check,
    Plan,
    Predict,
    Quantity,
    combine,
    constant,
    exact,
    predicted,
    quantity,
    unbroken,
)
from sim.checks.family import as_member, augmented, matched, name_of, shares_of
from sim.checks.gradients import LOGIT
from sim.data import FAST, SLOW, DataConfig, Dataset, generate, sample
from sim.measure import Estimate
from sim.network import gradient
from sim.optim import step
from sim.train import prepare
from theory import family as theory
from theory.claims import CLAIMS
from theory.family import FamilyMember

# --- Equations (F7) to (F9): feature or noise first ----------------------------------------------

_RACE = DataConfig(n_examples=4, dim=90, alpha=0.5, beta_slow=0.8, noise="orthogonal")
_TURNING = (
    FamilyMember(5, 0.9, 0.6, 1.0),
    FamilyMember(5, 0.8, 0.6, 1.3),
)  # filters turn, and speed up
_GROWTHS = (
    *_TURNING,
    FamilyMember(3, 0.8, 0.4, 1.3),
    FamilyMember(4, 1.0, 0.9, 0.7),
    FamilyMember(2, 0.7, 0.5, 1.2),
    FamilyMember(6, 0.9, 0.0, 1.0),
    4,
)
_LEAST = (
    # (33), member (its k is not used)
    (0.95, FamilyMember(1, 0.5, 0.0, 1.0)),
    (1.05, FamilyMember(1, 0.5, 0.0, 1.0)),
    (1.7, FamilyMember(1, 0.7, 0.3, 1.0)),
    (1.6, FamilyMember(1, 0.9, 0.6, 1.0)),
    (1.4, FamilyMember(1, 0.8, 0.4, 1.2)),
)
_START, _TARGET, _RATE = 0.05, 4.0, 0.2


def _growth_rates(plan: Plan) -> list[Quantity]:
    out = []
    world = _balanced(1.3)
    for case, member in enumerate(_GROWTHS):
        data = _race_data(world, member, plan, plan.generator(65, case))
        label = name_of(member)
        originals = _race_data(world, 1, plan, plan.generator(65, case))
        alone = _growth(originals, _along_original(originals))
        directions = {"original": _along_original(data), "synthetic": _along_synthetic(data)}
        for name, w in directions.items():
            rate = _growth(data, w) / alone
            predict = partial(_printed, world, member, f"noise_growth_{name}")
            out.append(exact(f"growth along the {name}'s noise, {label}", rate, predict))
        fastest = _fastest(data)
        rate = _growth(data, fastest) / alone
        out.append(
            exact(f"fastest growth of noise, {label}", rate, partial(_fastest_growth, member))
        )
        # and by training: each filter alone, all with the same projection on their directions
        filters = torch.stack([_along_feature(data), fastest, *directions.values()])
        slow, noise, *started = _steps(data, filters)
        out.append(
            exact(
                f"slow feature's time over its noise's, {label}",
                slow / noise,
                partial(_printed, world, member, "memorisation"),
                rounding=0.02,  # steps are not a flow
            )
        )
        if member in _TURNING:
            for index, (name, steps) in enumerate(zip(directions, started, strict=True)):
                for relation, rate, predict in (
                    (">", "first", partial(_first_memorisation, world, member, index)),
                    ("<", "fastest", partial(_printed, world, member, "memorisation")),
                ):
                    out.append(
                        quantity(
                            f"the same along the {name}'s noise, against its {rate} rate, {label}",
                            Estimate(float(slow / steps), 0.0),
                            predict,
                            relation,
                        )
                    )
    bare = FamilyMember(1, 0.9, 0.5, 1.3)
    data = _race_data(world, bare, plan, plan.generator(66))
    rate = _growth(data, _along_original(data)) / _growth(data, _fastest(data))
    out.append(
        exact("growths without synthetic examples", rate, lambda: sum(theory.noise_growth(bare)))
    )
    return out


def _printed(world: DataConfig, member: FamilyMember | int, key: str) -> float:
    """What `theory predict family-memorisation` prints."""
    inputs = _world_inputs(world) | asdict(as_member(member))
    return CLAIMS["family-memorisation"].predict(**inputs)[key]


def _fastest_growth(member: FamilyMember | int) -> float:
    return theory.fastest_growth(as_member(member))


def _first_memorisation(world: DataConfig, member: FamilyMember, direction: int) -> float:
    """(33) with (F7) along an original's noise (0) or a synthetic one's (1)."""
    return memorisation(world) * theory.noise_growth(member)[direction] / theory.effective_k(member)


def _world_inputs(world: DataConfig) -> dict[str, Any]:
    names = ("n_examples", "dim", "alpha", "beta_fast", "beta_slow", "sigma_noise")
    return {name: getattr(world, name) for name in names}


def _balanced(ratio: float, config: DataConfig = _RACE) -> DataConfig:
    """The world in which noise of typical length grows `ratio` times as fast as the feature."""
    n_slow = (1 - config.alpha) * config.n_examples
    length = (ratio * n_slow) ** (1 / 3) * config.beta_slow
    return replace(config, sigma_noise=length / config.dim**0.5)


def _race_data(
    config: DataConfig, member: FamilyMember | int, plan: Plan, g: torch.Generator
) -> Dataset:
    """Orthogonal noise of its typical length sigma_noise √d, the synthetic's fresh part too."""
    data = sample(config, g)
    length = config.sigma_noise * config.dim**0.5
    data.x[:, 1] *= length / data.x[:, 1].norm(dim=-1, keepdim=True)
    made = augmented(data, member, plan, g)
    if isinstance(member, int):
        return made
    source, own = made.x[made.source[data.n :], 1], made.x[data.n :, 1]
    kept = (own * source).sum(-1, keepdim=True) / length**2 * source
    fresh = own - kept
    wanted = (member.amplitude * length) ** 2 - kept.square().sum(-1, keepdim=True)
    made.x[data.n :, 1] = kept + normalize(fresh, dim=-1) * wanted.clamp_min(0).sqrt()
    return made


def _along_feature(data: Dataset) -> Tensor:
    """The unit filter along the slow feature."""
    return torch.eye(data.config.dim, dtype=torch.float64)[SLOW]


def _along_original(data: Dataset) -> Tensor:
    """The unit filter along the first slow original's noise, as its label has it."""
    return _unit(data, int(data.slow[0]))


def _along_synthetic(data: Dataset) -> Tensor:
    return _unit(data, data.n_original)


def _unit(data: Dataset, example: int) -> Tensor:
    return data.y[example] * data.x[example, 1] / data.x[example, 1].norm()


def _growth(data: Dataset, w: Tensor) -> float:
    """How fast the filter w grows, per example: ⟨−∇L, w⟩ N'."""
    return float(-(gradient(w.unsqueeze(0), data, LOGIT)[0] @ w)) * data.n


def _fastest(data: Dataset) -> Tensor:
    """The unit filter that grows fastest among those to which its own gradient leads."""
    starts = [_along_original(data)]
    if data.n > data.n_original:
        starts.append(_along_synthetic(data))
    ends = []
    for w in starts:
        rate, before = 0.0, -1.0
        while rate > before:
            rate, before = _growth(data, w), rate
            pull = -gradient(w.unsqueeze(0), data, LOGIT)[0]
            w = pull / pull.norm()
        ends.append(w)
    return max(ends, key=lambda w: _growth(data, w))


def _steps(data: Dataset, filters: Tensor, head_start: Tensor | float = 1.0) -> Tensor:
    """Steps of GD with frozen logits until each unit filter alone has grown 4-fold, (filters,)."""
    start = filters * torch.as_tensor(_START * head_start).unsqueeze(-1)
    space = prepare(start.unsqueeze(1), data, backend="dense")
    state, steps = space.initial, torch.zeros(len(filters))
    learning = torch.ones(len(filters), dtype=torch.bool)
    while learning.any():
        state = step(space, state, _RATE, logits=LOGIT)
        steps += learning
        length = space.filters(state).norm(dim=-1).squeeze(-1)
        learning &= length < _TARGET * _START  # false once it has grown out of all bounds
    return steps


def _least_ks(plan: Plan) -> list[Quantity]:
    """(F9): the first k at which the slow feature grows faster than any of its noise."""
    out = []
    for balance, member in _LEAST:
        world = _balanced(balance)
        k = next(k for k in itertools.count(1) if _memorised(world, member, k, plan) < 1)
        label = f"least k at which the feature is first, (33)={balance:g} {shares_of(member)}"
        out.append(exact(label, k, partial(_printed, world, member, "least_k")))
    world = _balanced(1.0)
    for member in (FamilyMember(20, 0.9, 0.7, 1.1), FamilyMember(20, 0.6, 0.7, 1.0)):
        few, many = (_memorised(world, member, k, plan) for k in (1, 20))
        label = f"whether k=20 helps (1) or not (-1), {shares_of(member)}"
        out.append(exact(label, math.copysign(1, few - many), partial(_helps, member)))
    return out


def _helps(member: FamilyMember) -> float:
    return 1.0 if theory.amplification_helps(member) else -1.0


def _memorised(world: DataConfig, member: FamilyMember, k: int, plan: Plan) -> float:
    """Growth of the fastest filter on noise over that of the slow feature's, equally long."""
    data = _race_data(world, replace(member, k=k), plan, plan.generator(67, k))
    return _growth(data, _fastest(data)) / _growth(data, _along_feature(data))


# --- Equations (F10) to (F12): the best k and the best strength ----------------------------------

_PAYS = (
    # alpha, N, k*, c^3: on either side of 1 - alpha, and such that (F11) is a whole number
    (0.6, 5, 3.0, 1.0),
    (0.6, 5, 3.15, 0.43),
    (0.6, 5, 3.15, 0.37),
    (0.3, 10, 0.5, 0.9),
    (0.8, 10, 5.0, 0.5),
)
_MOST = 10

_STRENGTH = replace(_RACE, n_examples=5, dim=30, alpha=0.6, beta_slow=0.5 ** (1 / 3))  # k* = 3
_CURVE = [FamilyMember(3, math.sqrt(1 - t * t), 1 - t, 1.0) for t in (i / 40 for i in range(41))]
_WHOLE = [  # their own best k are 3, 4, 5 and 1
    FamilyMember(1, (2 / m) ** (1 / 3), tau, 1.0)
    for m, tau in ((2, 0.9), (3, 0.7), (4, 0.4), (7, 0.1))
]
_CHOICES = (
    # (33), curve, k (None: each point's own best)
    (1.3, _CURVE, 3),
    (5.0, _CURVE, 4),
    (1.8, _WHOLE, None),
)


def _fewest_steps(plan: Plan) -> list[Quantity]:
    out = []
    # two worlds are enough to contradict the control's
    for alpha, n, target, cube in _PAYS[:2] if plan.broken else _PAYS:
        world = DataConfig(n, 4, alpha=alpha, beta_slow=(alpha / (1 - alpha) / target) ** (1 / 3))
        fidelity = cube ** (1 / 3)
        times = _times(world, fidelity, plan)
        best = times.index(min(times)) + 1
        label = f"alpha={alpha} k*={target:g} c^3={cube:g}"
        given = _world_inputs(world) | {"fidelity": fidelity}
        predict = predicted("best-k", "best_k", **given)
        out.append(exact(f"k at which both are learned in fewest steps, {label}", best, predict))
        for k in sorted({1, best, _MOST}):
            out.append(
                exact(
                    f"steps to learn both at k={k} over the fast one's without, {label}",
                    times[k - 1],
                    predicted("best-k", "time", k=k, **given),
                    rounding=0.02,  # steps are not a flow
                )
            )
    return out


def _times(world: DataConfig, fidelity: float, plan: Plan) -> list[float]:
    """Steps of GD until both features are learned, over the fast one's on the originals, by k."""
    g = plan.generator(68)
    data = sample(world, g)
    filters = torch.eye(2, world.dim, dtype=torch.float64)
    alone = _steps(data, filters[FAST : FAST + 1])
    # matched filters; the control gives the slow feature a head start of a fifth
    head_start = torch.tensor([1.0, 1.2 if plan.broken else 1.0])
    return [
        float((_steps(generate(data, k, g, fidelity=fidelity), filters, head_start) / alone).max())
        for k in range(1, _MOST + 1)
    ]


def _best_strengths(plan: Plan) -> list[Quantity]:
    """(F12), from growth rates at every point of a curve."""
    out = []
    for balance, curve, k in _CHOICES:
        world = _balanced(balance, _STRENGTH)
        points = []
        for index, member in enumerate(curve):
            ks = range(1, _MOST + 1) if k is None else [k]
            time, own = min((_flow_time(world, member, k, plan), k) for k in ks)
            points.append((index, own, _memorised(world, member, own, plan), time))
        learned = [p for p in points if p[2] < 1]
        if learned:
            best = min(learned, key=lambda p: (p[3], p[2]))
        else:
            best = min(points, key=lambda p: p[2])
        for what, value in zip(("index", "k", "memorisation", "time"), best, strict=True):
            label = f"{what} of the best of {len(curve)} strengths, (33)={balance:g}"
            out.append(exact(label, value, _choice(what, world, curve, k)))
    return out


def _choice(what: str, world: DataConfig, curve: list[FamilyMember], k: int | None) -> Predict:
    """(F12): what is printed of the best point, where it is."""
    if k is None and what != "time":
        key = "best_point" if what == "index" else f"best_point_{what}"
        return predicted(
            "best-k",
            key,
            **_world_inputs(world),
            fidelity_curve=[member.fidelity for member in curve],
            kept_noise_curve=[member.kept_noise for member in curve],
        )
    return lambda: getattr(theory.best_strength(world, curve, k), what)


def _flow_time(world: DataConfig, member: FamilyMember, k: int, plan: Plan) -> float:
    """The same by growth rates, to the digits that a tie of two strengths needs."""
    g = plan.generator(69)
    data = sample(world, g)
    W = matched(world)
    made = generate(data, k, g, fidelity=member.fidelity)
    alone, growth = (-gradient(W, d, LOGIT)[0] / W[0] for d in (data, made))
    return round(float(alone[FAST] / growth[:2].min()), 9)


CHECKS = (
    Check(
        "family-memorisation",
        "synthetic noise keeps tau of its source's (control: it is fresh)",
        combine(constant(_growth_rates), constant(_least_ks)),
    ),
    Check(
        "best-k",
        "filters are matched (control: the slow feature starts a fifth ahead)",
        combine(constant(_fewest_steps), constant(unbroken(_best_strengths))),
    ),
)
