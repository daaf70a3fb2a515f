"""The parameters of Definition 1 that results depend on."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import require


def n_fast(n_examples: int, alpha: float) -> int:
    """N_e: alpha N, rounded to the nearest whole number of examples, a half to the even one.

    The one rule for every function, command and simulation with fixed counts; N_d = N − N_e, and
    where N is given, alpha in an equation stands for N_e/N. See theory/README.md, Notation.
    """
    return round(alpha * n_examples)


def both_kinds(n_examples: int, alpha: float) -> tuple[int, int]:
    """(N_e, N_d) by `n_fast`, where a claim needs examples of both kinds.

    Raises ParameterError where alpha N rounds to 0 or to N.
    """
    fast = n_fast(n_examples, alpha)
    missing = "slow" if fast else "fast"
    allowed = f"such that fast and slow examples remain (of {n_examples} none is {missing})"
    require(0 < fast < n_examples, "alpha", alpha, allowed)
    return fast, n_examples - fast


def check_betas(beta_fast: float, beta_slow: float) -> None:
    """Raise ParameterError unless the fast feature is the stronger one."""
    require(beta_slow < beta_fast, "beta_slow", beta_slow, f"below beta_fast = {beta_fast}")


def check_batch(batch_size: int, n_augmented: float, replacement: bool) -> None:
    """Raise ParameterError unless batches of this size can be drawn from N' examples.

    Without replacement 1 ≤ B ≤ N', and N' ≥ 2: of one example there is one batch only.
    """
    require(batch_size >= 1, "batch_size", batch_size, "at least 1")
    if not replacement:
        require(n_augmented > 1, "n_examples", n_augmented, "at least 2")
        allowed = f"at most N' = {n_augmented:.12g}, or drawn with replacement"
        require(batch_size <= n_augmented, "batch_size", batch_size, allowed)


@dataclass(frozen=True)
class World:
    """N examples of P patches in R^d; a share alpha has the fast feature, the others the slow one.

    Strengths beta_fast > beta_slow > 0; the P − 1 noise patches have standard deviation
    sigma_noise in each direction off the features. Raises ParameterError for a value out of range.
    """

    n_examples: int = 400
    dim: int = 400
    n_patches: int = 2
    alpha: float = 0.8
    beta_fast: float = 1.0
    beta_slow: float = 0.3
    sigma_noise: float = 0.1

    def __post_init__(self) -> None:
        require(self.n_examples >= 2, "n_examples", self.n_examples, "at least 2")
        require(self.dim >= 3, "dim", self.dim, "at least 3 (two features and noise)")
        require(self.n_patches >= 2, "n_patches", self.n_patches, "at least 2")
        require(0 < self.alpha < 1, "alpha", self.alpha, "inside (0, 1)")
        require(self.beta_slow > 0, "beta_slow", self.beta_slow, "positive")
        check_betas(self.beta_fast, self.beta_slow)
        require(self.sigma_noise >= 0, "sigma_noise", self.sigma_noise, "0 or more")

    @property
    def dim_noise(self) -> int:
        """d' = d − 2, the dimensions of the noise."""
        return self.dim - 2

    @property
    def n_fast(self) -> int:
        """N_e, the fast examples at fixed counts: `n_fast`."""
        return n_fast(self.n_examples, self.alpha)

    @property
    def n_slow(self) -> int:
        """N_d = N − N_e, the slow examples at fixed counts."""
        return self.n_examples - self.n_fast

    @property
    def share_fast(self) -> float:
        """N_e/N, what alpha stands for in an equation where N is given."""
        return self.n_fast / self.n_examples

    @property
    def features(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(share, beta) of the fast and of the slow feature: N_e/N and N_d/N."""
        n = self.n_examples
        return (self.n_fast / n, self.beta_fast), (self.n_slow / n, self.beta_slow)


def two_kinds(
    n_examples: int,
    dim: int,
    n_patches: int,
    alpha: float,
    beta_fast: float,
    beta_slow: float,
    sigma_noise: float,
) -> World:
    """A `World` with fast and with slow examples; else ParameterError, as of `both_kinds`."""
    world = World(n_examples, dim, n_patches, alpha, beta_fast, beta_slow, sigma_noise)
    both_kinds(n_examples, alpha)
    return world
