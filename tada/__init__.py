"""The public face: the dozen names that most users need, each imported when it is first used.

import tada

tada.predict("gradient-variance", k=5, batch_size=64)      # Theorem 4.3 as numbers
tada.verify(["gradient-variance"])                         # the same by simulation
settings = tada.changed(tada.PRESETS["digits-small"], arm="tada", k=3)
tada.run(settings, Path("runs/tada"))                      # Algorithm 1 in one folder
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from empirical.config.presets import PRESETS as PRESETS
    from empirical.config.settings import Settings as Settings
    from empirical.config.settings import changed as changed
    from empirical.diagnosis.stores import diagnose_store as diagnose_store
    from empirical.experiments.compare import compare as compare
    from empirical.experiments.study import compare_arms as compare_arms
    from empirical.pipeline.augment import augment as augment
    from empirical.pipeline.run import generate as generate
    from empirical.pipeline.run import run as run
    from empirical.recommendation.recommend import recommend as recommend
    from empirical.selection.slow_sets import select_slow as select_slow
    from sim.run import simulate as simulate
    from sim.settings import RunSettings as RunSettings
    from sim.verify import verify as verify
    from theory.claims import CLAIMS as CLAIMS
    from theory.claims import predict as predict

_HOMES = {
    "theory.claims": ("CLAIMS", "predict"),
    "sim.settings": ("RunSettings",),
    "sim.run": ("simulate",),
    "sim.verify": ("verify",),
    "empirical.config.presets": ("PRESETS",),
    "empirical.config.settings": ("Settings", "changed"),
    "empirical.selection.slow_sets": ("select_slow",),
    "empirical.pipeline.augment": ("augment",),
    "empirical.pipeline.run": ("generate", "run"),
    "empirical.experiments.study": ("compare_arms",),
    "empirical.experiments.compare": ("compare",),
    "empirical.diagnosis.stores": ("diagnose_store",),
    "empirical.recommendation.recommend": ("recommend",),
}
"""Where each name lives."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = version("tada-companion")
__all__ = ["__version__", *_HOME_OF]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tada' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
