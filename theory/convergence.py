"""Corollary 4.4: SGD's rate on G(k) and on U(k), and what a network that misses a feature costs.

Equation numbers refer to theory/convergence.md.
"""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import ArrayLike

from common.errors import require
from theory.gradient_variance import same_noise_probability
from theory.parameters import Prediction
from theory.world import both_kinds, check_batch


def stationarity_bound(
    loss_initial: float,
    loss_final: float,
    lr: float,
    smoothness: float,
    variance: float,
    steps: int,
) -> float:
    """(1/T) Σ_t E‖∇L(W_t)‖² ≤ 2 (L_0 − L_T)/(lr T) + lr L_s V, equation (28).

    For lr ≤ 1/L_s, with L_s the smoothness on the region visited and V a bound on the
    gradient variance; L_T may be replaced by any lower bound L*. An identity, with L_T, for
    isotropic quadratics at lr = 1/L_s, so neither constant can be improved. Raises ParameterError
    for a larger lr, and for an L_T above what any such run can end at, where it would be negative.
    """
    return reused_data_bound(loss_initial, loss_final, lr, smoothness, 0.0, variance, steps)


def check_rate(lr: float, smoothness: float) -> None:
    """Raise ParameterError for a learning rate above 1/L_s."""
    require(lr * smoothness <= 1, "lr", lr, f"at most 1/smoothness = {1 / smoothness:.6g}")


def error_without_slow_feature(alpha: float) -> float:
    """Test error of a network that learned the fast feature only: (1 − alpha)/2, equation (29).

    Fast test examples are right; a slow one shows it nothing but fresh noise, whose sign is
    a fair coin.
    """
    return (1 - alpha) / 2


# --- smoothness of the cubic network -------------------------------------------------------------


def local_smoothness(x: ArrayLike, W: ArrayLike, radius: float) -> float:
    """L_s of the loss on the ball ‖W' − W‖_F ≤ radius, from the data, equation (C1).

    x: (n, P, d) patches; W: (J, d). With o = |⟨w_j,x⟩| + radius ‖x‖ for each patch and l̂_i =
    sigmoid(Σ o³): max_j ‖(6/n) Σ l̂ o x xᵀ‖ + ‖K̂‖/(4n), K̂_im = 9 Σ_j Σ_xx' o² o² |⟨x,x'⟩|.
    """
    x, W = np.asarray(x, dtype=float), np.asarray(W, dtype=float)
    n = len(x)
    lengths = np.sqrt(np.einsum("npd,npd->np", x, x))
    reach = np.abs(np.einsum("npd,jd->npj", x, W)) + radius * lengths[..., None]
    logits = 1 / (1 + np.exp(-np.einsum("npj->n", reach**3)))
    weight = np.einsum("n,npj->jnp", logits, reach)
    curvature = max(
        np.linalg.eigvalsh(np.einsum("np,npc,npd->cd", a, x, x, optimize=True)).max()
        for a in weight
    )
    gram = np.abs(np.einsum("npd,mqd->npmq", x, x))
    kernel = np.einsum("npj,mqj,npmq->nm", reach**2, reach**2, gram, optimize=True)
    return float(6 / n * curvature + 9 / 4 / n * np.linalg.eigvalsh(kernel).max())


def smoothness_from_norms(patch_norm: float, n_patches: int, weight_norm: float) -> float:
    """L_s ≤ 6 P W̄ X̄³ + (9/4) P² W̄⁴ X̄⁶ where ‖W‖_F ≤ W̄ and all ‖x‖ ≤ X̄, equation (C2).

    W̄ = `weight_norm`, X̄ = `patch_norm`. Needs no data. On a ball around W it is coarser than (C1)
    with W̄² = Σ_j (‖w_j‖ + radius)²; (C1) grants every filter the whole radius.
    """
    reach = weight_norm * patch_norm**3
    return 6 * n_patches * reach + 9 / 4 * n_patches**2 * (reach * weight_norm) ** 2


# --- steps to a target ---------------------------------------------------------------------------


def steps_to_target(
    target: float, loss_gap: float, smoothness: float, variance: float, lr: float
) -> float:
    """Steps after which the mean of E‖∇L‖² is at most `target`, for lr < 2/L_s, equation (C3).

    2 (L_0 − L*) / (lr [(2 − lr L_s) target − lr L_s V]); infinite where the bracket is not above 0.
    loss_gap = L_0 − L*, L* a lower bound. It is (28) without its proof's last step,
    1 − lr L_s/2 ≥ 1/2. With L_T for L* it is an identity for isotropic quadratics at every lr, as
    (28) is at lr = 1/L_s alone; with L* < L_T it is more steps than they need.
    """
    share = lr * smoothness
    room = (2 - share) * target - share * variance
    return 2 * loss_gap / (lr * room) if room > 0 else inf


def fastest_lr(target: float, smoothness: float, variance: float) -> float:
    """The lr that makes (C3) least, target/(L_s (target + V)), equation (C4).

    The steps are then 2 (L_0 − L*) L_s (target + V)/target²: with one L_s and one L* those of G(k)
    are (target + V_G)/(target + V_U) times those of U(k), which falls to V_G/V_U where noise
    decides (V ≫ target).
    """
    return target / (smoothness * (target + variance))


# --- data that are used again and again ----------------------------------------------------------


def reused_data_bound(
    loss_initial: float,
    loss_final: float,
    lr: float,
    smoothness: float,
    bias: float,
    batch_variance: float,
    steps: int,
) -> float:
    """(1/T) Σ E‖∇L̄(W_t)‖² ≤ 2 (L̄_0 − L̄_T)/(lr T) + bias + lr L_s V_B, equation (C5).

    L̄ is the population loss, with L_s-Lipschitz gradient; lr ≤ 1/L_s. bias: the mean over the run
    of ‖∇L − ∇L̄‖², L the loss of the data in use; batch_variance: V_B around ∇L, given the data.
    """
    check_rate(lr, smoothness)
    gap = 2 * (loss_initial - loss_final) / (lr * steps)
    bound = gap + bias + lr * smoothness * batch_variance
    highest = f"{loss_final + bound * lr * steps / 2:.6g}"
    require(bound >= 0, "loss_final", loss_final, f"at most {highest}: no such run ends higher")
    return bound


def split_variance(
    noise: float, repeated: float, n_augmented: float, batch_size: int
) -> tuple[float, float]:
    """(bias, V_B): the noise's part of V between data and batch, equation (C6).

    bias = S (1 + (N' − 1) ω)/N' and V_B = S (1 − ω)(1/B − 1/N'), at W independent of the data and
    without replacement; noise = S of (21), repeated = ω of (23): ω_U, or 0 for G(k). Their sum is
    the noise term of (24).
    """
    n = n_augmented
    bias = noise * (1 + (n - 1) * repeated) / n
    return bias, noise * (1 - repeated) * (1 / batch_size - 1 / n)


def upsampling_penalty(
    noise: float, repeated: float, n_augmented: float, batch_size: int, lr: float, smoothness: float
) -> float:
    """How much the noise terms of (C5) on U(k) exceed those on G(k), equation (C7): at least 0.

    S ω [ 1 − 1/N' − lr L_s (1/B − 1/N') ] ≥ 0 for lr ≤ 1/L_s and any B ≥ 1, ω = `repeated`. The
    bounds themselves are ordered so if they share L̄_0, L_s and what stands for L̄_T, say inf L̄:
    with each run's own L̄_T the one that has come down further can have the larger bound.
    """
    check_rate(lr, smoothness)
    n = n_augmented
    return noise * repeated * (1 - 1 / n - lr * smoothness * (1 / batch_size - 1 / n))


# --- what `theory predict` prints -----------------------------------------------------------------


def predict_convergence(
    loss_initial: float = 0.6931,
    loss_final: float = 0.0,
    lr: float = 0.1,
    smoothness: float = 1.0,
    variance: float = 0.01,
    steps: int = 1000,
) -> Prediction:
    """The bound on the mean squared gradient norm over `steps` steps of SGD."""
    return {
        "mean_squared_gradient_norm": stationarity_bound(
            loss_initial, loss_final, lr, smoothness, variance, steps
        )
    }


def predict_smoothness(
    patch_norm: float = 1.5, n_patches: int = 2, weight_norm: float = 0.5
) -> Prediction:
    """A bound on the Lipschitz constant of the gradient where |W| <= weight_norm."""
    return {"smoothness": smoothness_from_norms(patch_norm, n_patches, weight_norm)}


def predict_steps_to_target(
    target: float = 0.01, loss_gap: float = 0.6931, smoothness: float = 1.0, variance: float = 0.1
) -> Prediction:
    """The learning rate that reaches a mean squared gradient norm first, and its steps."""
    lr = fastest_lr(target, smoothness, variance)
    steps = steps_to_target(target, loss_gap, smoothness, variance, lr)
    return {"lr": lr, "steps": steps}


def predict_reused_data(
    n_examples: int = 400,
    alpha: float = 0.8,
    k: int = 5,
    batch_size: int = 32,
    noise: float = 1.0,
    lr: float = 0.1,
    smoothness: float = 1.0,
) -> Prediction:
    """Noise of U(k) and G(k) split into the data's part and the batch's; U(k)'s penalty."""
    n_fast, n_slow = both_kinds(n_examples, alpha)
    n = n_fast + k * n_slow
    check_batch(batch_size, n, replacement=False)
    q = same_noise_probability(n_fast, n_slow, k, False)
    up = split_variance(noise, q, n, batch_size)
    made = split_variance(noise, 0.0, n, batch_size)
    return {
        "bias_upsampled": up[0],
        "bias_generated": made[0],
        "batch_variance_upsampled": up[1],
        "batch_variance_generated": made[1],
        "penalty": upsampling_penalty(noise, q, n, batch_size, lr, smoothness),
    }


def predict_whole_run(alpha: float = 0.8) -> Prediction:
    """Test error of a network that has learned the fast feature only, as on U(k)."""
    return {"upsampled": error_without_slow_feature(alpha)}
