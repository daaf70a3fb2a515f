"""Training many small networks (one for each seed) as one batched program.

The same steps as `engine.train` does for each of them, up to rounding: the same recipe, batches and
learning rates (a test compares the two), several times as fast where networks are small. Training
sets of different sizes give different numbers of batches; these are padded with weight 0 inside a
batch and with learning rate 0 after a network's last step, which leaves every network exactly with
the computation that it has alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from common.divergence import Watch
from common.errors import require
from common.threads import one_thread
from empirical.training.batches import Normalisation, bounds, order_of
from empirical.training.engine import Job, Trained
from empirical.training.recipes import Recipe

Parameters = dict[str, Tensor]

# --- many trainings, as `engine.train` does one --------------------------------------------------


def train_together(
    jobs: Sequence[Job], advance: Callable[[], None] = lambda: None
) -> list[Trained]:
    """Train the networks of all jobs, in place, as one program of one thread.

    The networks must be of one kind, without buffers (such as those of batch normalisation), the
    recipes those of SGD or SAM in float32 without augmentation, with the same momentum, weight
    decay and rho. advance: called after every step.

    Raises:
        DivergenceError: a network's loss or weights are no longer finite; which, and the step.
        ParameterError: the jobs cannot be done together.
    """
    _check_together(jobs)
    began = time.monotonic()
    offsets = [sum(len(job.data.pixels) for job in jobs[:i]) for i in range(len(jobs))]
    normalise = Normalisation.of(jobs[0].data.mean, jobs[0].data.std)
    recipes = [job.recipe for job in jobs]
    with one_thread():
        plan = make_plan(
            [job.data.rows + offset for job, offset in zip(jobs, offsets, strict=True)], recipes
        )
        log = Log.of(plan)
        trained = train_stacked(
            jobs[0].network,
            stack([dict(job.network.named_parameters()) for job in jobs]),
            normalise(torch.cat([job.data.pixels for job in jobs])),
            torch.cat([job.data.labels for job in jobs]),
            plan,
            Optimizer.of(recipes[0]),
            advance,
            jobs[0].name,
            jobs[0].advice,
            log,
        )
    seconds = time.monotonic() - began
    found = []
    for number, job in enumerate(jobs):
        own = {name: value[number] for name, value in trained.items()}
        with torch.no_grad():
            for name, parameter in job.network.named_parameters():
                parameter.copy_(own[name])
        history = log.history(number, job.recipe, len(job.data))
        steps = job.recipe.total_steps(len(job.data))
        found.append(Trained(job.network, steps, seconds / len(jobs), history))
    return found


def _check_together(jobs: Sequence[Job]) -> None:
    first = jobs[0]
    for job in jobs:
        own, data = job.recipe, job.data
        plain = (own.augmentation, own.mixing, own.precision) == ("none", "none", "no")
        plain = plain and not (own.label_smoothing or own.clip_norm or own.weights_ema)
        plain = plain and own.head_lr is None and data.sources is None
        fits = plain and own.base_optimizer == "sgd" and own.ascent != "asam"
        allowed = "sgd or sam in float32 without augmentation, to train networks together"
        require(fits, "optimizer", own.optimizer, allowed)
        allowed = "one without buffers, to train networks together"
        require(not any(True for _ in job.network.buffers()), "network", job.name, allowed)
        same = (Optimizer.of(own), list(data.mean), list(data.std))
        alike = same == (Optimizer.of(first.recipe), list(first.data.mean), list(first.data.std))
        require(alike, "jobs", job.name, "of the same optimizer and normalisation")


@dataclass(frozen=True)
class Log:
    """Mean loss and share of wrong answers of each batch: float32 (steps, networks)."""

    loss: Tensor
    wrong: Tensor

    @staticmethod
    def of(plan: Plan) -> Log:
        return Log(torch.zeros_like(plan.lr), torch.zeros_like(plan.lr))

    def history(self, network: int, recipe: Recipe, n: int) -> list[dict[str, Any]]:
        """What `engine.train` notes of each epoch of a network on n examples."""
        total, per_epoch = recipe.total_steps(n), recipe.epoch_steps(n)
        pieces = bounds(n, per_epoch)
        sizes = torch.tensor([stop - start for start, stop in pieces], dtype=torch.float64)
        found = []
        for first in range(0, total, per_epoch):
            last = min(first + per_epoch, total)
            weight, examples = sizes[: last - first], pieces[last - first - 1][1]
            means = [
                float((own[first:last, network] * weight).sum() / examples)
                for own in (self.loss, self.wrong)
            ]
            found.append(
                {
                    "epoch": first // per_epoch + 1,
                    "steps": last,
                    "examples": examples,
                    "lr": recipe.learning_rate(last - 1, total),
                    "loss": means[0],
                    "error": means[1],
                }
            )
        return found


# --- the program ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What each of S networks sees in each of T steps.

    rows: int64 (T, S, B) into the image bank; weights: float32 (T, S, B), which sum to 1 over a
    batch; lr: float32 (T, S).
    """

    rows: Tensor
    weights: Tensor
    lr: Tensor


def make_plan(members: Sequence[Tensor], recipes: Sequence[Recipe]) -> Plan:
    """The batches and learning rates that `engine.train` would use for each seed.

    members: for each seed its rows of the bank, int64 (n_s,); recipes: for each seed.
    """
    batches: list[list[Tensor]] = []
    rates: list[list[float]] = []
    for own, recipe in zip(members, recipes, strict=True):
        n, total, per_epoch = len(own), recipe.total_steps(len(own)), recipe.epoch_steps(len(own))
        mine: list[Tensor] = []
        for epoch in range(math.ceil(total / per_epoch)):
            shuffled = own[order_of(recipe, epoch, n)]
            mine += [shuffled[start:stop] for start, stop in bounds(n, per_epoch)]
        batches.append(mine[:total])
        rates.append([recipe.learning_rate(step, total) for step in range(total)])
    width = max(len(batch) for mine in batches for batch in mine)
    shape = (max(map(len, batches)), len(members))
    plan = Plan(
        rows=torch.zeros(*shape, width, dtype=torch.int64),
        weights=torch.zeros(*shape, width),
        lr=torch.zeros(*shape),
    )
    for seed, (mine, lr) in enumerate(zip(batches, rates, strict=True)):
        plan.lr[: len(mine), seed] = torch.tensor(lr)
        for step, batch in enumerate(mine):
            plan.rows[step, seed, : len(batch)] = batch
            plan.weights[step, seed, : len(batch)] = 1 / len(batch)
    return plan


def train_stacked(
    network: nn.Module,
    start: Parameters,
    pixels: Tensor,
    labels: Tensor,
    plan: Plan,
    optimizer: Optimizer,
    advance: Callable[[], None] = lambda: None,
    name: str = "the training",
    advice: str = "lower its learning rate",
    log: Log | None = None,
) -> Parameters:
    """Train S networks along a plan; returns their final parameters.

    network: of their kind, whose own parameters do not matter; start: stacked parameters, each
    (S, ...), left as they are; pixels: float (bank, C, H, W); labels: int64 (bank,); advance:
    called after every step; name, advice: what a message calls the training, and says to do if it
    diverges; log: filled in.

    Raises:
        DivergenceError: a network's loss or weights are no longer finite; which, and the step.
    """

    def loss(
        parameters: Parameters, x: Tensor, y: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        outputs = functional_call(network, parameters, (x,))
        each = nn.functional.cross_entropy(outputs, y, reduction="none")
        return (each * weights).sum(), ((outputs.argmax(1) != y) * weights).sum()

    losses = vmap(loss)

    def gradient(parameters: Parameters, *batch: Tensor) -> tuple[Tensor, Tensor, Parameters]:
        # The networks share nothing, so the gradient of the sum is every network's own.
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        each, wrong = losses(leaves, *batch)
        found = torch.autograd.grad(each.sum(), list(leaves.values()))
        return each.detach(), wrong, dict(zip(leaves, found, strict=True))

    watch = Watch(name, advice)
    parameters = {name: value.detach().clone() for name, value in start.items()}
    velocity = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for step, (rows, weights, lr) in enumerate(zip(plan.rows, plan.weights, plan.lr, strict=True)):
        batch = (pixels[rows], labels[rows], weights)
        each, wrong, grad = gradient(parameters, *batch)
        watch.see(step + 1, each)
        if log is not None:
            log.loss[step], log.wrong[step] = each, wrong
        if optimizer.rho > 0:
            _, _, grad = gradient(sam_point(parameters, grad, optimizer.rho), *batch)
        sgd_step(parameters, velocity, grad, lr, optimizer)
        advance()
    watch.weights(len(plan.lr), parameters.values(), stacked=True)
    return parameters


def stack(parameters: Sequence[Parameters]) -> Parameters:
    """Stack the parameters of several networks on a leading axis."""
    return {name: torch.stack([own[name] for own in parameters]) for name in parameters[0]}


# --- SGD and SAM on stacked parameters: the leading axis of every tensor counts the networks ------


@dataclass(frozen=True)
class Optimizer:
    """SGD with momentum and weight decay; `rho` above 0 puts SAM on top."""

    momentum: float = 0.9
    weight_decay: float = 5e-4
    rho: float = 0.0

    @staticmethod
    def of(recipe: Recipe) -> Optimizer:
        """That of a recipe with SGD."""
        return Optimizer(recipe.momentum, recipe.weight_decay, recipe.sam.rho)


def sam_point(parameters: Parameters, gradient: Parameters, rho: float) -> Parameters:
    """W + rho grad L(W) / ||grad L(W)||, the norm over all parameters of one network.

    Foret et al. 2021, eq. 2 (p = 2). Weight decay is no part of L here, as is usual.
    """
    squares = torch.stack([g.flatten(1).square().sum(1) for g in gradient.values()]).sum(0)
    scale = rho / squares.sqrt().clamp_min(1e-12)
    return {
        name: value + scale.view(-1, *[1] * (value.ndim - 1)) * gradient[name]
        for name, value in parameters.items()
    }


def sgd_step(
    parameters: Parameters,
    velocity: Parameters,
    gradient: Parameters,
    lr: Tensor,
    optimizer: Optimizer,
) -> None:
    """v <- momentum v + grad + weight_decay W; W <- W - lr v, in place; lr has shape (networks,).

    As torch.optim.SGD. A network whose lr is 0 stays exactly where it is.
    """
    for name, value in parameters.items():
        step = gradient[name].add(value, alpha=optimizer.weight_decay)
        velocity[name].mul_(optimizer.momentum).add_(step)
        value.sub_(lr.view(-1, *[1] * (value.ndim - 1)) * velocity[name])
