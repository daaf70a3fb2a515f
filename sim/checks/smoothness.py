"""How smooth the loss is on a ball of filters: the bounds, and where they are attained."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sim.checks.base import Check, Plan, Predict, Quantity, exact, predicted
from sim.data import DataConfig, Dataset, sample
from sim.network import Logits, gradient, init, logit_term
from sim.train import prepare, train
from theory import convergence

_STEP = 1e-4  # of the difference quotients
_BROKEN_REACH = 1.2  # the control measures this much farther out
_ATTAINED = 1e-3  # where (C1) and (C2) are all but equalities: l(1 − l) is not 1/4, only nearly


def hessian(W: Tensor, data: Dataset, logits: Logits = None) -> Tensor:
    """Derivative of the gradient at each W (..., J, d), by difference quotients, (..., Jd, Jd)."""
    J, d = W.shape[-2:]
    basis = torch.eye(J * d, dtype=W.dtype).view(J * d, J, d)
    up, down = (gradient(W.unsqueeze(-3) + s * basis, data, logits) for s in (_STEP, -_STEP))
    columns = ((up - down) / (2 * _STEP)).flatten(-2)
    return (columns + columns.mT) / 2


def largest(matrix: Tensor) -> Tensor:
    """Spectral norm of symmetric matrices, (...)."""
    return torch.linalg.eigvalsh(matrix).abs().amax(-1)


# --- attained ------------------------------------------------------------------------------------


def _aligned(n: int, n_patches: int, filters: int, reach: float) -> tuple[Dataset, Tensor]:
    """Wrong examples whose patches are all one vector x, and filters along it, ⟨w_j,x⟩ = `reach`.

    All curvature then has one direction. The output is small, so that l(1 − l) is almost 1/4.
    """
    direction = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    length = 1.3
    x = (length * direction).expand(n, n_patches, 3)
    W = (reach / length * direction).repeat(filters, 1)
    where = torch.zeros(n, n_patches, dtype=torch.bool)
    index = torch.arange(n)
    config = DataConfig(dim=3, n_patches=n_patches)
    y = torch.full((n,), -1.0, dtype=torch.float64)
    return Dataset(x, y, index >= 0, where, index, n, config), W


def _attained(plan: Plan) -> list[Quantity]:
    out = []
    for n, n_patches, filters, inside in ((1, 2, 1, 1.0), (2, 2, 2, 1.0), (3, 2, 1, 0.4)):
        data, farthest = _aligned(n, n_patches, filters, 0.3)
        centre = inside * farthest
        at = farthest * (_BROKEN_REACH if plan.broken else 1.0)
        out.append(
            exact(
                f"attained: curvature, n={n} J={filters}, centre at {inside:g} of the reach",
                largest(hessian(at, data)),
                _from_data(data, centre, float((farthest - centre).norm())),
                rounding=_ATTAINED,
            )
        )
    data, W = _aligned(1, 2, 2, 0.3)
    W[1] = 0.0
    at = W * (_BROKEN_REACH if plan.broken else 1.0)
    label = "attained: curvature, n=1 J=2, one filter at 0"
    out.append(exact(label, largest(hessian(at, data)), _from_data(data, W, 0.0), _ATTAINED))
    for n_patches in (2, 3):
        data, W = _aligned(1, n_patches, 1, 0.3)
        at = W * (_BROKEN_REACH if plan.broken else 1.0)
        # (C2) bounds two parts one by one, with l ≤ 1 and with l(1 − l) ≤ 1/4, which no single
        # network attains: the one is measured with logits frozen at 1, the other with real ones
        frozen = hessian(at, data, 1.0)
        moving = hessian(at, data) - hessian(at, data, logit_term(at, data))
        out.append(
            exact(
                f"attained: both parts of the curvature, P={n_patches}",
                largest(frozen) + largest(moving),
                _from_norms(data, float(W.norm())),
                rounding=_ATTAINED,
            )
        )
    return out


# --- bounds --------------------------------------------------------------------------------------

_CONFIG = DataConfig(n_examples=6, dim=5, alpha=0.5, beta_slow=0.6, sigma_noise=0.4)
_FILTERS, _RADIUS, _POINTS, _LR, _STEPS = 3, 0.5, 300, 0.2, 60


def _bounds(plan: Plan) -> list[Quantity]:
    """The largest curvature found on balls: random, on the edge, towards patches, in training."""
    out = []
    for case, sigma_init in enumerate((0.0, 0.3)):
        g = plan.generator(43, case)
        data = sample(_CONFIG, g)
        centre = init(_FILTERS, _CONFIG.dim, sigma_init, g)
        away = init(_FILTERS, _CONFIG.dim, 1.0, g, (_POINTS,))
        away /= away.norm(dim=(-2, -1), keepdim=True)
        away[: _POINTS // 2] *= torch.rand(_POINTS // 2, 1, 1, generator=g, dtype=away.dtype)
        rows = data.x.flatten(0, 1) / data.x.flatten(0, 1).norm(dim=-1, keepdim=True)
        one = torch.eye(_FILTERS, dtype=rows.dtype)
        towards = torch.einsum("ij,pd->ipjd", one, torch.cat([rows, -rows])).flatten(0, 1)
        start = centre + 0.2 * away[-8:] * _RADIUS  # not at 0, where the gradient vanishes
        path = train(prepare(start, data), _LR, _STEPS, record=lambda p: {"W": p.W}).history["W"]
        path = (path.flatten(0, 1) - centre) / _RADIUS
        path = path[path.norm(dim=(-2, -1)) <= 1]
        reach = 4 * _BROKEN_REACH if plan.broken else 1.0
        points = centre + reach * _RADIUS * torch.cat([away, towards, path])
        found = largest(hessian(points, data)).max()
        label = f"largest curvature within {_RADIUS:g} of W, sigma_init={sigma_init:g}"
        for basis, predict in (
            ("the data", _from_data(data, centre, _RADIUS)),
            ("norms", _from_norms(data, float(centre.norm()) + _RADIUS)),
        ):
            out.append(Quantity(f"{label}, from {basis}", float(found), 0.0, predict, "<"))
    return out


def _from_data(data: Dataset, W: Tensor, radius: float) -> Predict:
    """(C1)."""
    return partial(convergence.local_smoothness, data.x.numpy(), W.numpy(), radius)


def _from_norms(data: Dataset, weight_norm: float) -> Predict:
    """(C2)."""
    return predicted(
        "smoothness",
        "smoothness",
        patch_norm=float(data.x.norm(dim=-1).max()),
        n_patches=data.x.shape[-2],
        weight_norm=weight_norm,
    )


def _measure(plan: Plan) -> list[Quantity]:
    return _attained(plan) + _bounds(plan)


CHECKS = (
    Check(
        "smoothness",
        "the filters stay in the ball (control: they are farther out)",
        _measure,
    ),
)
