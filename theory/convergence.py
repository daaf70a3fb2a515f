"""Corollary 4.4: SGD's rate on G(k) and on U(k), and what a network that misses a feature costs.

Equation numbers refer to theory/README.md.
"""

from __future__ import annotations


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
