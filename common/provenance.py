"""What a result was made by: versions, and a digest of the code."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from types import ModuleType


def versions(*more: str) -> dict[str, str]:
    """Versions that a simulated result depends on, and of `more` packages."""
    packages = ("tada-companion", "torch", "numpy", *more)
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def sources(*packages: ModuleType) -> str:
    """Digest of all code of some packages."""
    hashed = hashlib.sha256()
    for package in packages:
        root = Path(package.__path__[0])
        for source in sorted(root.rglob("*.py")):
            hashed.update(json.dumps(str(source.relative_to(root))).encode())
            hashed.update(source.read_bytes())
    return hashed.hexdigest()[:16]
