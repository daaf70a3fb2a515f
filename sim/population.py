"""The expected loss of fresh examples at given filters: its value, gradient and curvature."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor
from torch.nn.functional import softplus

from common.errors import require
from sim.data import FAST, SLOW, DataConfig
from sim.network import norm


def population(
    W: Tensor,
    config: DataConfig,
    generator: torch.Generator,
    share_fast: float | None = None,
    draws: int = 1000,
) -> tuple[Tensor, Tensor]:
    """L̄ (...) and ∇L̄ (..., J, d) at W (..., J, d): E over one example, not over a data set.

    share_fast: probability of the fast feature; config's alpha by default, N_e/N' for U(k) and
    G(k), whose distribution is the same where sigma_synthetic = sigma_noise.
    An example is seen through its projections h on the J filters, which are Gaussian: `draws` of
    them, rounded up to a power of two, each with its mirror image −h, for all leading dimensions
    together. They are a scrambled Sobol sequence, which leaves an error some five times smaller
    than as many independent draws. The gradient off the
    features is by Stein's lemma, E[l h_j² ξ] = sigma² E[∇_ξ (l h_j²)], a combination of filters:
    with the mirror images that leaves far less noise than fresh examples in d dimensions would.
    Raises ParameterError unless noise is "gaussian" and variant "either".
    """
    require(config.noise == "gaussian", "noise", config.noise, "gaussian")
    require(config.variant == "either", "variant", config.variant, "either")
    sigma, patches = config.sigma_noise, config.n_patches - 1
    u, off = W[..., :2], W[..., 2:]
    values, vectors = torch.linalg.eigh(off @ off.mT)
    # the symmetric root, which moves smoothly with W, so that the same draws can be differentiated
    root = sigma * (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mT
    J = W.shape[-2]
    z = _spread(patches, draws, J, generator).to(W)
    h = z @ root.unsqueeze(-3)  # (..., patches, draws, J)
    noise = h.pow(3).sum((-1, -3))  # (..., draws)
    share = config.alpha if share_fast is None else share_fast
    loss = torch.zeros_like(noise[..., 0])
    gradient = torch.zeros_like(W)
    odd, even = torch.zeros_like(noise), torch.zeros_like(noise)
    for v, p, beta in ((FAST, share, config.beta_fast), (SLOW, 1 - share, config.beta_slow)):
        margin = beta**3 * u[..., v].pow(3).sum(-1, keepdim=True)
        both = torch.stack([margin + noise, margin - noise])  # y f of an example and its mirror
        l = torch.sigmoid(-both)
        loss = loss + p * softplus(-both).mean((0, -1))
        mean_logit = l.mean((0, -1)).unsqueeze(-1)
        gradient[..., v] = -3 * p * beta**3 * u[..., v].square() * mean_logit
        odd = odd + p * (l[0] - l[1]) / 2
        even = even + p * (l * (1 - l)).mean(0)
    # E[l h_j² ξ] = sigma² (2 E[l h_j] w_j − 3 Σ_k E[l (1 − l) h_j² h_k²] w_k)
    weight = odd[..., None, :, None] * h
    own = weight.mean(-2).sum(-2)  # (..., J)
    squares = h.square()
    pairs = (squares * even[..., None, :, None]).mT @ squares / z.shape[1]
    mixing = 9 * pairs.sum(-3) - 6 * torch.diag_embed(own)
    gradient[..., 2:] = sigma**2 * mixing @ off
    return loss, gradient


def _spread(patches: int, draws: int, J: int, generator: torch.Generator) -> Tensor:
    """Evenly spread standard normal numbers, (patches, power of two ≥ draws, J)."""
    seed = int(torch.randint(0, 2**31, (), generator=generator))
    sobol = qmc.MultivariateNormalQMC(np.zeros(patches * J), rng=np.random.default_rng(seed))
    points = torch.from_numpy(sobol.random(2 ** math.ceil(math.log2(draws))))
    return points.unflatten(1, (patches, J)).transpose(0, 1)


def curvature(
    gradient: Callable[[Tensor], Tensor], W: Tensor, direction: Tensor, iterations: int = 40
) -> tuple[Tensor, Tensor]:
    """Largest |eigenvalue| of the derivative of a gradient at each W (..., J, d), and its vector.

    By power iteration from `direction`, with difference quotients: an estimate from below. (...)
    and (..., J, d); the vector is a starting point for a nearby W.
    """
    step = 1e-4
    size = norm(direction)
    for _ in range(iterations):
        direction = direction / size
        change = gradient(W + step * direction) - gradient(W - step * direction)
        direction = change / (2 * step)
        size = norm(direction)
    return size.squeeze(-1).squeeze(-1), direction
