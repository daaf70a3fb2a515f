"""Checkpoints of a training: the whole state in one folder, of which there is always a whole one.

A checkpoint is a folder checkpoint-STEP with state.safetensors (network, optimizer, sums of the
epoch under way) and state.json (all else, with the digests of both). It is written under another
name, renamed at once, and only then is the one before it removed. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from common.errors import ParameterError, require
from common.files import digest, file_digest, read_json, whole_folder, write_json
from common.tensors import write_tensors

TENSORS, RECORD = "state.safetensors", "state.json"
_KEYS = ("fingerprint", "step", "seconds", "history", "scaler", "sha256", "digest")
_REMEDY = "remove it to train from the start"
_MORE = "more."
"""Begins the names of tensors that are of neither network nor optimizer."""


@dataclass
class State:
    """How far a training is.

    sums: float (2,), of losses and of wrong answers over the epoch under way; history: a JSON
    object for each finished epoch; scaler: the state of the loss scale, empty without one.
    """

    step: int
    seconds: float
    sums: Tensor
    history: list[dict[str, Any]]
    scaler: dict[str, Any]


def save(
    folder: Path,
    fingerprint: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint into `folder`, then remove those before it.

    more: tensors that are kept beside those of network and optimizer.

    Raises:
        OSError: it cannot be written; the one before it is as it was.
    """
    path = folder / f"checkpoint-{state.step:09d}"
    if path.exists():
        return
    with whole_folder(path) as part:
        others = {f"{_MORE}{name}": value for name, value in (more or {}).items()}
        tensors = _tensors(network, optimizer) | {"sums": state.sums} | others
        write_tensors(part / TENSORS, tensors)
        record = {
            "fingerprint": fingerprint,
            "step": state.step,
            "seconds": state.seconds,
            "history": state.history,
            "scaler": state.scaler,
            "sha256": file_digest(part / TENSORS),
        }
        write_json(part / RECORD, record | {"digest": digest(record)})
    clean(folder)


def clean(folder: Path) -> None:
    """Remove what a killed process left: all but the newest checkpoint."""
    newest = _newest(folder)
    for path in list(folder.glob("checkpoint-*")):
        if path != newest:
            shutil.rmtree(path)


def restore(
    folder: Path,
    fingerprint: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    more: Mapping[str, Tensor] | None = None,
) -> State | None:
    """Put the newest checkpoint of `folder` in place; None if there is none.

    more: tensors that are given what was saved of them.

    Raises:
        ParameterError: it is damaged, or of another training. Nothing is changed then.
    """
    path = _newest(folder)
    if path is None:
        return None
    for name in (RECORD, TENSORS):
        require((path / name).is_file(), "checkpoint", path, f"a folder with {name}; {_REMEDY}")
    record = read_json(path / RECORD, "checkpoint", _KEYS)
    content = (path / TENSORS).read_bytes()
    made_as = record.pop("digest")
    for name, found, noted in (
        (RECORD, digest(record), made_as),
        (TENSORS, hashlib.sha256(content).hexdigest(), record["sha256"]),
    ):
        require(found == noted, "checkpoint", path / name, f"the file that was written; {_REMEDY}")
    require(
        record["fingerprint"] == fingerprint,
        "checkpoint",
        path,
        f"of the same recipe, data and initial network; {_REMEDY}",
    )
    try:
        tensors = load(content)
    except SafetensorError as error:  # not ours, though its digest is
        raise ParameterError("checkpoint", path / TENSORS, f"safetensors ({error})") from error
    sums = tensors.pop("sums")
    for name, value in (more or {}).items():
        value.copy_(tensors.pop(f"{_MORE}{name}"))
    _put(tensors, network, optimizer)
    return State(record["step"], record["seconds"], sums, record["history"], record["scaler"])


def network_fingerprint(network: nn.Module) -> str:
    """SHA-256 of a network's structure, parameters and buffers."""
    structure = [(name, type(module).__qualname__) for name, module in network.named_modules()]
    found = hashlib.sha256(json.dumps(structure).encode())
    for name, value in network.state_dict().items():
        found.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _newest(folder: Path) -> Path | None:
    whole = [path for path in folder.glob("checkpoint-*") if not path.name.endswith(".part")]
    return max(whole, default=None)  # names sort as their steps do


def _tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Network and optimizer as one flat dictionary; settings of the optimizer are the recipe's."""
    flat = {f"network.{name}": value for name, value in network.state_dict().items()}
    for number, own in optimizer.state_dict()["state"].items():
        flat |= {
            f"optimizer.{number}.{name}": value
            for name, value in own.items()
            if isinstance(value, Tensor)
        }
    return flat


def _put(
    tensors: Mapping[str, Tensor], network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    parameters = [own for group in optimizer.param_groups for own in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            number, _, name = rest.partition(".")
            parameter = parameters[int(number)]
            if value.shape == parameter.shape:
                # laid out in memory like its parameter, as it was: kernels round differently
                value = torch.empty_like(parameter).copy_(value)
            moments.setdefault(int(number), {})[name] = value
    prefix = "network."
    network.load_state_dict(
        {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
    )
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
