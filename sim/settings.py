"""The settings of one simulated run. Without torch, so that a command line starts at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.data import DataConfig
    from sim.network import Activation


@dataclass(frozen=True)
class RunSettings:
    """Everything that the result of a run depends on; `check` says what is allowed.

    It is not checked here: a sweep may start from settings that none of its cells has.
    """

    arm: str = "tada"
    """original, upsample, tada, syn-rand or syn-all"""
    k: int = 5
    """amplification: a slow example counts k times (upsample, tada; syn-rand makes as many)"""
    sigma_synthetic: float | None = None
    """noise of synthetic examples; None: sigma_noise"""
    fidelity: float = 1.0
    """share of the feature that a synthetic example keeps, in [0, 1]"""
    kept_noise: float = 0.0
    """correlation of a synthetic example's noise with its original's, in [0, 1]"""
    n_examples: int = 100
    """original training examples"""
    dim: int = 315
    """dimension of a patch"""
    n_patches: int = 2
    """patches of an example"""
    alpha: float = 0.8
    """share of fast examples; exactly round(alpha n_examples) are fast"""
    beta_fast: float = 1.0
    """strength of the fast feature"""
    beta_slow: float = 0.45
    """strength of the slow feature"""
    sigma_noise: float = 0.1
    """standard deviation of the noise"""
    variant: str = "either"
    """either (a fast or a slow feature) or both (slow in all, fast added with share alpha)"""
    noise: str = "gaussian"
    """gaussian, orthogonal or isotropic"""
    filters: int = 40
    """filters of the network"""
    sigma_init: float = 0.05
    """standard deviation of the initial filters"""
    power: int = 3
    """the activation is z^power; for an even one outputs are >= 0, and test errors about 1/2"""
    rectified: bool = False
    """the activation is max(z, 0)^power; outputs are >= 0, and test errors about 1/2"""
    lr: float = 0.4
    """learning rate"""
    steps: int = 600
    """steps of training"""
    rho: float = 0.0
    """radius of SAM's ascent step; 0: none"""
    batch_size: int | None = None
    """examples of a mini-batch; None: the whole training set (GD)"""
    seeds: int = 10
    """independent runs: other data, filters and mini-batches"""
    seed: int = 0
    """seed of all of them together"""
    dtype: str = "float64"
    """float64 or float32"""
    device: str = "cpu"
    """cpu or cuda"""
    backend: str = "auto"
    """dense (the filters), span (coordinates in the span of the data) or auto (the cheaper)"""
    test_examples: int = 10_000
    """fresh examples of each kind, the same for all seeds"""

    @property
    def data(self) -> DataConfig:
        """The data set's part. Raises ParameterError."""
        from sim.data import DataConfig

        shared = {f.name for f in fields(DataConfig)} & {f.name for f in fields(self)}
        return DataConfig(**{name: getattr(self, name) for name in shared})

    @property
    def activation(self) -> Activation:
        """The network's activation. Raises ParameterError."""
        from sim.network import Activation

        return Activation(self.power, self.rectified)

    @property
    def flags(self) -> list[str]:
        """The command line's flags for what differs from the defaults."""
        words: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                words.append("--" + field.name.replace("_", "-"))
                words += [] if value is True else [str(value)]
        return words
