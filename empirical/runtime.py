"""Where a run happens: what its result does not depend on, up to rounding."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import require

MOST_THREADS = 1024
"""More than any machine's cores; torch itself would end in a segmentation fault at some number."""


@dataclass(frozen=True)
class Machine:
    """Data, device and checkpoints. Raises ParameterError for a value that is not allowed."""

    data: Path = Path("data")
    """folder with the published data sets; missing ones are downloaded to it"""
    download: bool = True
    """download a data set that is not there"""
    cpu: bool = False
    """do not use a GPU"""
    threads: int = 1
    """threads of computation on a CPU; another number rounds otherwise"""
    checkpoint_every: float = 60.0
    """seconds between checkpoints of a training"""
    generation_batch: int = 64
    """images denoised together; another number rounds otherwise (by 1 of 255 levels at most)"""
    synthetic: Path | None = None
    """folder of synthetic images that several runs share; None: OUT/synthetic"""
    offload: bool = False
    """keep a hub pipeline's parts on the CPU, and move each to the GPU when it works"""
    trackers: tuple[str, ...] = ()
    """where losses go as well: tensorboard, wandb, ... (what accelerate supports)"""
    project: str = "tada"
    """what trackers call the project"""

    def __post_init__(self) -> None:
        for name, most in (("threads", MOST_THREADS), ("generation_batch", 2**31)):
            value = getattr(self, name)
            require(value >= 1, name, value, "at least 1")
            require(value <= most, name, value, f"at most {most}")
        plain = re.fullmatch(r"[\w.-]+", self.project) and self.project.strip(".")
        allowed = "letters, digits, '-', '_' and '.': it is a folder's name too"
        require(bool(plain), "project", self.project, allowed)
        every = self.checkpoint_every
        require(every >= 0, "checkpoint_every", every, "0 or more seconds")

    @property
    def device(self) -> str:
        """Where images are made: this process's GPU, or cpu."""
        import torch  # heavy, and not needed to parse a command line

        if self.cpu or not torch.accelerator.is_available():
            return "cpu"
        return str(torch.accelerator.current_accelerator())

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of `engine.train`, but for trackers."""
        names = ("cpu", "threads", "checkpoint_every")
        return {name: getattr(self, name) for name in names}


HERE = Machine()
"""This machine, with the defaults."""
