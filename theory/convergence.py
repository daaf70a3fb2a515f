"""Corollary 4.4: SGD's rate on G(k) and on U(k), and what a network that misses a feature costs.

Equation numbers refer to theory/convergence.md.
"""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import ArrayLike


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
    gradient variance; L_T may be replaced by any lower bound L*. An identity for isotropic
    quadratics at lr = 1/L_s, so neither constant can be improved.
    """
    return 2 * (loss_initial - loss_final) / (lr * steps) + lr * smoothness * variance


def error_without_slow_feature(alpha: float) -> float:
    """Test error of a network that learned the fast feature only: (1 − alpha)/2, equation (29).

    Fast test examples are right; a slow one shows it nothing but fresh noise, whose sign is
    a fair coin.
    """
    return (1 - alpha) / 2


# --- smoothness of the cubic network -------------------------------------------------------------


def local_smoothness(x: ArrayLike, W: ArrayLike, radius: float) -> float:
    """L_s of the loss on the ball ‖W' − W‖_F ≤ radius, from the data, equation (C1).

    x: (n, P, d) patches; W: (J, d). With a = |⟨w_j,x⟩| + radius ‖x‖ for each patch and l̄_i =
    sigmoid(Σ a³): max_j ‖(6/n) Σ l̄ a x xᵀ‖ + ‖K‖/(4n), K_im = 9 Σ_jpq a² a² |⟨x_ip, x_mq⟩|.
    """
    x, W = np.asarray(x, dtype=float), np.asarray(W, dtype=float)
    n, patches, d = x.shape
    rows = x.reshape(n * patches, d)
    lengths = np.linalg.norm(rows, axis=1)
    reach = np.abs(rows @ W.T) + radius * lengths[:, None]  # (nP, J)
    logits = 1 / (1 + np.exp(-(reach**3).sum(1).reshape(n, patches).sum(1)))
    weight = np.repeat(logits, patches)[:, None] * reach
    gram = rows @ rows.T
    curvature = max(np.linalg.eigvalsh(np.sqrt(np.outer(a, a)) * gram)[-1] for a in weight.T)
    kernel = (reach**2 @ (reach**2).T) * np.abs(gram)
    kernel = kernel.reshape(n, patches, n, patches).sum((1, 3))
    return float(6 / n * curvature + 9 / 4 / n * np.linalg.eigvalsh(kernel)[-1])


def smoothness_from_norms(patch_norm: float, n_patches: int, weight_norm: float) -> float:
    """L_s ≤ 6 P R X³ + (9/4) P² R⁴ X⁶ where ‖W‖_F ≤ R and all ‖x‖ ≤ X, equation (C2).

    R = `weight_norm`, X = `patch_norm`. Coarser than (C1), and needs no data.
    """
    reach = weight_norm * patch_norm**3
    return 6 * n_patches * reach + 9 / 4 * n_patches**2 * (reach * weight_norm) ** 2


# --- steps to a target ---------------------------------------------------------------------------


def steps_to_target(
    target: float, loss_gap: float, smoothness: float, variance: float, lr: float
) -> float:
    """Steps after which (28) brings the mean of E‖∇L‖² to `target`, equation (C3).

    2 (L_0 − L*) / (lr (target − lr L_s V)); infinite where target ≤ lr L_s V, the floor of this lr.
    """
    floor = lr * smoothness * variance
    return 2 * loss_gap / (lr * (target - floor)) if target > floor else inf


def fastest_lr(target: float, smoothness: float, variance: float) -> float:
    """The lr that makes (C3) least, min(1, target/(2V))/L_s, equation (C4).

    So the steps needed are 2 (L_0 − L*) L_s/(target − V), or 8 (L_0 − L*) L_s V/target² where V >
    target/2: then they are proportional to V, and G(k) needs V_G/V_U times those of U(k).
    """
    return 1 / smoothness if variance <= target / 2 else target / (2 * variance * smoothness)


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
    return (
        stationarity_bound(loss_initial, loss_final, lr, smoothness, batch_variance, steps) + bias
    )


def split_variance(
    noise: float, repeated: float, n_augmented: float, batch_size: int
) -> tuple[float, float]:
    """(bias, V_B): the noise's part of V between data and batch, equation (C6).

    bias = S (1 + (N' − 1) q)/N' and V_B = S (1 − q)(1/B − 1/N'), at W independent of the data and
    without replacement; noise = S of (21), repeated = q of (23): q_U, or 0 for G(k). Their sum is
    the noise term of (24).
    """
    n = n_augmented
    bias = noise * (1 + (n - 1) * repeated) / n
    return bias, noise * (1 - repeated) * (1 / batch_size - 1 / n)


def upsampling_penalty(
    noise: float, repeated: float, n_augmented: float, batch_size: int, lr: float, smoothness: float
) -> float:
    """How much (C5) of U(k) exceeds that of G(k), equation (C7): never negative.

    S q [ 1 − 1/N' − lr L_s (1/B − 1/N') ] ≥ 0 for lr ≤ 1/L_s and any B ≥ 1.
    """
    n = n_augmented
    return noise * repeated * (1 - 1 / n - lr * smoothness * (1 / batch_size - 1 / n))
