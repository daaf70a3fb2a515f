"""Whether a run is finished: answered without torch, so that a second call takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import ParameterError, require
from common.files import digest, file_digest, read_json
from empirical.config.settings import Settings

NETWORK = "network.safetensors"

RESULT_KEYS = (
    *("arm", "dataset", "network", "optimizer", "seed", "k", "test_error", "slow_fraction"),
    *("n_original", "n_synthetic", "seconds", "versions", "command"),
)


def begun_with(settings: Settings, out: Path) -> bool:
    """Whether `out` is the folder of a run with these settings."""
    path = out / "settings.json"
    return path.exists() and read_json(path, "settings") == settings.record()


def finished(settings: Settings, out: Path) -> dict[str, Any] | None:
    """What is in out/result.json; None if there is no such file.

    Raises:
        ParameterError: it is damaged, of other settings, or the network beside it is not the one
            that was scored.
    """
    path = out / "result.json"
    if not path.exists():
        return None
    result = read_json(path, "result", RESULT_KEYS)
    if result.get("fingerprint") != digest(settings.record()):
        raise ParameterError("result", path, "a result of these settings; remove it to train")
    network = out / NETWORK
    same = network.exists() and file_digest(network) == result.get("network_sha256")
    allowed = "the file scored in result.json; remove result.json to train again"
    require(same, "network", network, allowed)
    return result
