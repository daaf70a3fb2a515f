"""SAM and ASAM for real modules: the gradient at the perturbed weights, for any optimizer.

Foret et al. 2021 (eq. 2 and 3, p = 2) and Kwon et al. 2021 (algorithm 1). The gradient of each
parameter is left in `.grad`, where a plain backward pass would have left its own, so that the
optimizer, its weight decay (no part of the perturbation), gradient clipping, the schedule and the
GradScaler are used as always:

    loss = gradient(network, [lambda: criterion(network(x), y)], Sam(rho=0.05))
    optimizer.step()
    scheduler.step()

With Hugging Face accelerate, pass `backward=accelerator.backward` and the prepared network and
optimizer. Give the micro-batches of an accumulated step to one call (each loss divided by their
number) instead of `accelerator.accumulate`, and leave the accelerator's
gradient_accumulation_steps at 1.

With fp16, `backward=lambda loss: scaler.scale(loss).backward()`, then `scaler.step(optimizer)` and
`scaler.update()`; accelerate does both by itself. rho g / ||g|| does not depend on the scale, so
scaled gradients serve. Where they hold an inf or NaN the perturbed weights are NaN throughout, and
so is the second gradient, on every rank: the scaler then skips the step and lowers its scale, as
it always does. No weight keeps a trace, and nothing waits for the device to find out.

`optimizers.py` is the same for stacked networks without state, `sim/` for the theory's network.
FSDP and DeepSpeed are not supported: no rank holds a whole gradient there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.errors import require

ACCUMULATION = ("full", "m-sam")
RANKS = ("local", "synchronised")


@dataclass(frozen=True)
class Sam:
    """What is perturbed, and by whose gradient.

    Raises:
        ParameterError: a value is not allowed.
    """

    rho: float = 0.05
    """length of the ascent step (Foret et al.: 0.05 on CIFAR-10; ASAM about ten times as much);
    0: no ascent, a plain gradient at the price of one"""
    adaptive: bool = False
    """ASAM: the length is measured relative to each weight"""
    eta: float = 0.01
    """ASAM: what is added to |w| (Kwon et al.: 0.01)"""
    accumulation: str = "full"
    """full: one perturbation, from the gradient of all micro-batches; m-sam: each micro-batch is
    perturbed by its own gradient (m-sharpness: Foret et al., section 4.1)"""
    ranks: str = "local"
    """local: each rank of a DistributedDataParallel network perturbs by its own gradient, as m-sam
    does across devices (Foret et al.); synchronised: all by the mean gradient, which costs a second
    all-reduce and makes the step that of one process with the whole batch"""

    def __post_init__(self) -> None:
        require(0 <= self.rho < math.inf, "rho", self.rho, "at least 0")
        require(0 <= self.eta < math.inf, "eta", self.eta, "at least 0")
        require(
            self.accumulation in ACCUMULATION,
            "accumulation",
            self.accumulation,
            " or ".join(ACCUMULATION),
        )
        require(self.ranks in RANKS, "ranks", self.ranks, " or ".join(RANKS))


def gradient(
    network: nn.Module,
    losses: Sequence[Callable[[], Tensor]],
    sam: Sam,
    backward: Callable[[Tensor], object] = torch.Tensor.backward,
) -> Tensor:
    """Leave the gradient of sum(losses) at the perturbed weights in `.grad`; returns sum(losses).

    What `.grad` held before is dropped. Weights are bit-equal afterwards. Running statistics (all
    buffers) are those of the first, unperturbed passes. The second pass of a micro-batch meets the
    dropout masks of the first, since both are of one loss; torch's random streams are left where
    plain training would leave them.

    losses: one function for each micro-batch, which runs the network on it (inside autocast, if
    any) and returns a scalar, weighted so that their sum is the loss of the step. Each is called
    twice, or once if rho is 0, and must return the same loss for the same weights.
    backward: what to call in place of loss.backward().
    The sum returned is detached, of the unperturbed weights, and this rank's own.

    Raises:
        ParameterError: no losses.
    """
    require(len(losses) > 0, "losses", len(losses), "at least one function")
    last = len(losses) - 1

    def run(index: int, share: bool) -> Tensor:
        # DDP shares gradients in the backward pass of a forward pass outside of no_sync, and
        # shares all that has accumulated since: once a step is enough.
        with nullcontext() if share else _no_sync(network):
            loss = losses[index]()
            backward(loss)
        return loss.detach()

    network.zero_grad(set_to_none=True)
    if sam.rho == 0:
        return _sum([run(index, index == last) for index in range(len(losses))])

    synchronised = sam.ranks == "synchronised"
    values: list[Tensor] = []
    if sam.accumulation == "full":
        groups = [range(len(losses))]
    else:
        groups = [range(index, index + 1) for index in range(len(losses))]
    for group in groups:
        total = [parameter.grad for parameter in network.parameters()]
        network.zero_grad(set_to_none=True)
        with _replayed(network):
            values += [run(index, synchronised and index == group[-1]) for index in group]
        with perturbed(network, sam.rho, sam.adaptive, sam.eta):
            for parameter, own in zip(network.parameters(), total, strict=True):
                parameter.grad = own
            for index in group:
                run(index, index == last)
    return _sum(values)


@contextmanager
def perturbed(
    network: nn.Module, rho: float, adaptive: bool = False, eta: float = 0.01
) -> Iterator[None]:
    """Inside, the weights are w + rho g / ||g||, g from `.grad`; afterwards exactly w again.

    adaptive (ASAM): w + rho T^2 g / ||T g||, T = |w| + eta, for all parameters. (The code published
    with the paper takes T = 1 for parameters which are not named weight.)
    The norm is over all parameters together. Those without a gradient, or with a sparse one, take
    no part. A zero gradient gives no perturbation; one with inf or NaN gives NaN everywhere.
    Whatever happens to buffers inside is undone, also when an exception ends the block.
    """
    gradients = {
        parameter.detach(): parameter.grad
        for parameter in network.parameters()
        if parameter.grad is not None and not parameter.grad.is_sparse
    }
    weights = [(weight, weight.clone()) for weight in gradients]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        _ascend(gradients, rho, adaptive, eta)
        # an autocast block around all of this would keep its low-precision copies of w
        torch.clear_autocast_cache()
        yield
    finally:
        with torch.no_grad():
            for weight, before in weights:
                weight.copy_(before)
            for module, name, buffer, before in buffers:
                setattr(module, name, buffer.copy_(before))
        torch.clear_autocast_cache()


@torch.no_grad()
def _ascend(gradients: dict[Tensor, Tensor], rho: float, adaptive: bool, eta: float) -> None:
    """Add the perturbation to the weights (the keys) in place."""
    if not gradients:
        return
    # 16 bits would overflow at a loss scale of 65536
    dtype = functools.reduce(torch.promote_types, (g.dtype for g in gradients.values()))
    dtype = torch.promote_types(dtype, torch.float32)
    directions = {weight: own.to(dtype) for weight, own in gradients.items()}
    if adaptive:
        directions = {weight: (weight.abs() + eta) * own for weight, own in directions.items()}
    norms = [torch.linalg.vector_norm(own) for own in directions.values()]
    norm = torch.linalg.vector_norm(torch.stack([own.to(norms[0].device) for own in norms]))
    # Not rho / (norm + 1e-12): a small gradient has a direction too, and scales must not matter.
    scale = torch.where(norm > 0, rho / norm, 0.0)
    scale = torch.where(norm.isfinite(), scale, torch.nan)
    for weight, own in directions.items():
        step = own * scale.to(own.device)
        weight.add_((weight.abs() + eta) * step if adaptive else step)


def _no_sync(network: nn.Module) -> AbstractContextManager[object]:
    """DistributedDataParallel's no_sync; nothing for a network on one process."""
    no_sync = getattr(network, "no_sync", nullcontext)
    return no_sync()


def _replayed(network: nn.Module) -> AbstractContextManager[object]:
    """Afterwards, torch's random streams are where they were: what follows draws the same again."""
    devices = {p.device for p in network.parameters() if p.device.type != "cpu"}
    kinds = {device.type for device in devices}
    return torch.random.fork_rng(
        devices=[device.index for device in devices], device_type=kinds.pop() if kinds else None
    )


def _sum(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum()
