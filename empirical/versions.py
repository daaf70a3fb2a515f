"""Versions of the packages that a result depends on."""

from __future__ import annotations

from common import provenance


def versions() -> dict[str, str]:
    """Name to version."""
    return provenance.versions("torchvision", "timm", "accelerate", "diffusers", "scikit-learn")
