"""Training of a network on images, on whatever devices there are.

    network = networks.build("resnet18", 3, 32, 10, key=("network", seed))
    trained = train(network, data, Recipe(epochs=200, optimizer="sam"), Path("runs/one/training"))
    print(trained.history[-1]["loss"])

The images live on the device, and whole batches are augmented there: no worker processes. On
several GPUs (`accelerate launch` or `torchrun`, one process for each) every batch is cut into
nearly equal shares and gradients are averaged by DistributedDataParallel; only rank 0 writes, and
all ranks must see its folder. Layers that look at a whole batch then see a rank's share alone: the
running statistics of batch norm are those of rank 0. Give the network through
`nn.SyncBatchNorm.convert_sync_batchnorm` (GPUs only) where that matters; without such layers, and
without dropout, the number of ranks changes rounding only.

All that is random is keyed by the seed and the epoch or step it is for, and the learning rate is a
function of the step. So no random stream or schedule has a state to save, and a training that is
killed at any moment and called again ends, on a CPU, with the bytes of an undisturbed one.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from common import distributed
from common.divergence import DivergenceError, Watch
from common.errors import ParameterError, require
from common.files import digest, finite
from common.progress import progress
from common.seeding import seed_for
from empirical.training import checkpoints
from empirical.training.batches import Epoch, MicroBatch, Share, TrainingSet, bounds, resident
from empirical.training.checkpoints import State
from empirical.training.devices import (
    Tracked,
    accelerated,
    seed_streams,
    start_trackers,
    tell_trackers,
    training_context,
)
from empirical.training.networks import classifier
from empirical.training.recipes import Recipe
from empirical.training.sam import gradient

Evaluate = Callable[[nn.Module], Mapping[str, Any]]
CHECKPOINT_EVERY = 60.0
"""Seconds between checkpoints."""


@dataclass(frozen=True)
class Job:
    """A training that is yet to be done: by `train`, or several at once by `batched`.

    network: with its initial parameters; name: what a message calls the training; advice: what to
    do if it diverges.
    """

    network: nn.Module
    data: TrainingSet
    recipe: Recipe
    name: str = "the training"
    advice: str = "lower its learning rate"


@dataclass(frozen=True)
class Trained:
    """network: the one that was given, trained, in train mode, on the device of the training;
    steps: of the optimizer; seconds: of training, those before a resume included;
    history: for each epoch its number (from 1), the steps by its end, its examples (fewer in a
    last one that `steps` cuts short), the last learning rate, mean loss and share of wrong answers
    over its batches as they were trained on, and what `evaluate` found (None where not finite).
    """

    network: nn.Module
    steps: int
    seconds: float
    history: list[dict[str, Any]]


def train(
    network: nn.Module,
    data: TrainingSet,
    recipe: Recipe,
    folder: Path | None = None,
    *,
    checkpoint_every: float = CHECKPOINT_EVERY,
    evaluate: Evaluate | None = None,
    trackers: Sequence[str] = (),
    tracked: Tracked | None = None,
    name: str = "training",
    advice: str | None = None,
    show: str = "training steps",
    cpu: bool = False,
    threads: int = 1,
) -> Trained:
    """Train `network` in place, or resume an earlier call with this `folder`.

    The network must come with its initial parameters, also to resume. `folder` keeps the newest
    checkpoint, in the end one of the finished training, which a further call finds again.

    checkpoint_every: seconds between checkpoints, 0 for one after every step;
    evaluate: called with the network after each epoch, on rank 0; its JSON value goes into the
    history as "evaluation";
    trackers: names of accelerate's, such as tensorboard, that are told loss, error and learning
    rate of each epoch; tracked: what they call the training, and are told that it is of (files go
    to folder/trackers/NAME/PROJECT);
    name: what a message calls it; advice: what to do if it diverges (None: a lower learning rate);
    show: what the progress bar is called, "" for none;
    cpu: do not use a GPU; threads: of computation on a CPU. With another number of threads sums
    are rounded otherwise.

    Under several processes end the script with `accelerate.PartialState().destroy_process_group()`.

    Raises:
        DivergenceError: the loss or the weights are no longer finite; which step it was. Nothing
            is left in `folder`, so that a call with another recipe starts from the beginning there.
        ParameterError: the recipe does not fit the device or the network, a tracker is missing, or
            the checkpoint in `folder` is damaged or of another recipe, data or network (it is left
            alone).
        OSError: `folder` cannot be written; the checkpoint in it stays whole.
    """
    folder = None if folder is None else Path(folder)
    fingerprint = digest(
        [asdict(recipe), data.fingerprint(), checkpoints.network_fingerprint(network)]
    )
    with ExitStack() as stack:
        tracked = tracked or Tracked()
        place = None if folder is None else folder / "trackers" / tracked.name
        accelerator = stack.enter_context(accelerated(recipe, cpu, trackers, place))
        stack.enter_context(training_context(accelerator.device, threads))
        loop = Loop(network, data, recipe, accelerator)
        stack.callback(loop.unwrap)
        if folder is not None:
            loop.resume(folder, fingerprint)
        if trackers:
            start_trackers(accelerator, recipe, tracked)
        writes = folder if accelerator.is_main_process else None
        watch = Watch(name, advice or f"lower its learning rate, {recipe.base_lr:g}")
        stack.enter_context(_nothing_kept(writes))
        advance: Callable[[], None] = lambda: None  # noqa: E731
        if show and accelerator.is_main_process:
            advance = stack.enter_context(progress(show, loop.total, loop.state.step))
        began, earlier = time.monotonic(), loop.state.seconds
        saved = began
        while loop.state.step < loop.total:
            loop.step()
            watch.see(loop.state.step, loop.loss)
            if loop.ends_epoch():
                watch.look()
                loop.finish_epoch(evaluate)
            advance()
            now = time.monotonic()
            loop.state.seconds = earlier + now - began
            last = loop.state.step == loop.total
            if last or (writes and now - saved >= checkpoint_every):
                watch.weights(loop.state.step, network.parameters())
            if writes and (last or now - saved >= checkpoint_every):
                loop.save(writes, fingerprint)
                saved = time.monotonic()
        loop.share_buffers()
        loop.use_average()
        state = loop.state
    return Trained(network, state.step, state.seconds, state.history)


class Loop:
    """A training under way: what is needed for a step, and how far it is."""

    def __init__(
        self, network: nn.Module, data: TrainingSet, recipe: Recipe, accelerator: Accelerator
    ) -> None:
        device = accelerator.device
        self.own, self.data, self.recipe, self.accelerator = network, data, recipe, accelerator
        self._came_with = {name: network.__dict__.get(name) for name in _ATTACHED}
        self.pixels = resident(data.pixels, device)
        self.total = recipe.total_steps(len(data))
        world = accelerator.num_processes
        self.share = Share(accelerator.process_index, world, recipe.accumulation)
        check_company(network, recipe, len(data), data.pixels.shape[1:], world)
        layout = torch.channels_last if recipe.channels_last else torch.preserve_format
        network.train().to(device, memory_format=layout)  # pyright: ignore[reportCallIssue]
        if recipe.compile:
            # an epoch has batches of two sizes only: a program for each is faster than one for all
            network.compile(dynamic=False)
        self._plain_optimizer = _optimizer(network, recipe)
        self.network, self.optimizer = accelerator.prepare(network, self._plain_optimizer)
        sums = torch.zeros(2, dtype=torch.float32 if device.type == "mps" else torch.float64)
        self.state = State(0, 0.0, sums.to(device), [], {})
        self.loss = sums[0]  # of the last batch, the same on all ranks
        self._epoch: tuple[int, Epoch] | None = None
        self.average: dict[str, Tensor] | None = None
        if recipe.weights_ema:
            self.average = {name: value.clone() for name, value in _averaged(network)}

    def save(self, folder: Path, fingerprint: str) -> None:
        """Write a checkpoint."""
        if self.accelerator.scaler is not None:
            self.state.scaler = self.accelerator.scaler.state_dict()
        more = self.average or {}
        checkpoints.save(folder, fingerprint, self.own, self._plain_optimizer, self.state, more)

    def resume(self, folder: Path, fingerprint: str) -> None:
        """Go on from the checkpoint in `folder`, if there is one."""
        more = self.average or {}
        found = checkpoints.restore(folder, fingerprint, self.own, self._plain_optimizer, more)
        # where processes meet: no process writes before all have read
        steps = gather_object([found.step if found else 0])
        require(len(set(steps)) == 1, "folder", folder, "one that all processes see")
        if found is None:
            return
        found.sums = found.sums.to(self.state.sums)
        if self.accelerator.scaler is not None and found.scaler:
            self.accelerator.scaler.load_state_dict(found.scaler)
        self.state = found
        if self.accelerator.is_main_process:
            checkpoints.clean(folder)

    @property
    def epoch(self) -> Epoch:
        """The epoch of the next step."""
        number = self._place()[0]
        if self._epoch is None or self._epoch[0] != number:
            epoch = Epoch(self.data, self.pixels, self.recipe, number, self.accelerator.device)
            self._epoch = number, epoch
        return self._epoch[1]

    def _place(self) -> tuple[int, int]:
        """Epoch and batch in it of the next step, both from 0."""
        return divmod(self.state.step, self.recipe.epoch_steps(len(self.data)))

    def step(self) -> None:
        """One step of the optimizer."""
        step, batch = self.state.step, self._place()[1]
        epoch = self.epoch
        start, stop = epoch.bounds[batch]
        losses = [
            _Loss(self.network, own, self.recipe.label_smoothing)
            for own in epoch.micro_batches(batch, self.share)
        ]
        # each rank drops out other neurons
        seed = seed_for("engine step", self.recipe.seed, step, self.share.rank)
        seed_streams(self.accelerator.device, seed)
        loss = gradient(self.network, losses, self.recipe.sam, self.accelerator.backward)
        if self.recipe.clip_norm:
            self.accelerator.clip_grad_norm_(self.own.parameters(), self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            rate = self.recipe.learning_rate(step, self.total)
            group["lr"] = rate * group.get("scale", 1.0)
        self.optimizer.step()
        if self.average is not None:
            # a running mean at first, so that the start does not count for long
            keep = min(self.recipe.weights_ema, (step + 1) / (step + 10))
            for name, value in _averaged(self.own):
                self.average[name].lerp_(value, 1 - keep)
        wrong = torch.stack([own.wrong for own in losses if own.wrong is not None]).sum()
        found = torch.stack([loss * ((stop - start) / self.share.world), wrong])
        if self.share.world > 1:
            # now, so that rank 0 may write a checkpoint whenever it likes
            torch.distributed.all_reduce(found)
        self.state.sums += found
        self.state.step = step + 1
        self.loss = found[0] / (stop - start)

    def ends_epoch(self) -> bool:
        """Whether the step just done was the last of an epoch or of all."""
        return self._place()[1] == 0 or self.state.step == self.total

    def finish_epoch(self, evaluate: Evaluate | None) -> None:
        """Note the epoch that ended, the same on all ranks."""
        n = len(self.data)
        number, batch = divmod(self.state.step - 1, self.recipe.epoch_steps(n))
        examples = bounds(n, self.recipe.epoch_steps(n))[batch][1]
        loss, wrong = (self.state.sums / examples).tolist()
        record: dict[str, Any] = {
            "epoch": number + 1,
            "steps": self.state.step,
            "examples": examples,
            "lr": self.recipe.learning_rate(self.state.step - 1, self.total),
            "loss": loss,
            "error": wrong,
        }
        if evaluate is not None:
            shared: list[Any] = [None]
            if self.accelerator.is_main_process:
                with self.bare(), self.averaged():
                    shared = [dict(evaluate(self.own))]
                self.own.train()
            broadcast_object_list(shared)
            record["evaluation"] = shared[0]
        tell_trackers(self.accelerator, record)
        self.state.history.append(finite(record))
        self.state.sums = torch.zeros_like(self.state.sums)

    def share_buffers(self) -> None:
        """Give all ranks the buffers of rank 0, which evaluates and writes."""
        if self.share.world > 1:
            for buffer in self.own.buffers():
                torch.distributed.broadcast(buffer, 0)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the network has the average of its weights, where one is kept."""
        if self.average is None:
            yield
            return
        before = {name: value.clone() for name, value in _averaged(self.own)}
        self.use_average()
        try:
            yield
        finally:
            for name, value in _averaged(self.own):
                value.copy_(before[name])

    def use_average(self) -> None:
        """Put the average of the weights in their place, where one is kept."""
        if self.average is not None:
            for name, value in _averaged(self.own):
                value.copy_(self.average[name])

    @contextmanager
    def bare(self) -> Iterator[None]:
        """Inside, the network is as it came: in float32, not compiled."""
        attached = {name: self.own.__dict__.get(name) for name in _ATTACHED}
        self.unwrap()
        try:
            yield
        finally:
            _attach(self.own, attached)

    def unwrap(self) -> None:
        """Leave nothing of accelerate's on the network: it may be trained again."""
        _attach(self.own, self._came_with)


def check_company(
    network: nn.Module, recipe: Recipe, n: int, shape: Sequence[int], world: int = 1
) -> None:
    """Refuse batch normalisation of single values, of which nothing would be left.

    No batch has a single example unless batch_size is 1 (`recipes.epoch_steps`), but a process's
    share of one may have, or a micro-batch. Layers over larger maps have other values to compare
    with. n: training examples; shape: (C, H, W) of an image; world: processes.

    Raises:
        ParameterError: the network cannot be trained on single examples, and would be.
    """
    smallest = n // recipe.epoch_steps(n)
    pieces = min(recipe.accumulation, -(-smallest // world))
    if smallest // world // pieces >= 2:
        return
    alone = copy.deepcopy(network).to("meta").train()
    try:
        with torch.no_grad():
            alone(torch.empty(1, *shape, device="meta"))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        least = 2 * world * recipe.accumulation
        allowed = f"at least {least}, in each of whose parts an image is not alone: this network "
        allowed += "normalises over the images of a batch (or lower accumulation)"
        raise ParameterError("batch_size", recipe.batch_size, allowed) from None


@contextmanager
def _nothing_kept(folder: Path | None) -> Iterator[None]:
    """Remove the checkpoints of a training that diverges: their future is known."""
    try:
        yield
    except DivergenceError as error:
        for path in [] if folder is None else folder.glob("checkpoint-*"):
            shutil.rmtree(path)
        raise distributed.of_all(error) from None


_ATTACHED = ("forward", "_original_forward", "_is_accelerate_prepared", "_compiled_call_impl")
"""Attributes that accelerate and torch.compile set on a network."""


def _attach(network: nn.Module, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        network.__dict__.pop(name, None)
        if value is not None:
            network.__dict__[name] = value


@dataclass
class _Loss:
    """The loss of a micro-batch; SAM calls it twice, and the first answers are counted."""

    network: nn.Module
    batch: MicroBatch
    smoothing: float = 0.0
    wrong: Tensor | None = None

    def __call__(self) -> Tensor:
        x, target, weight = self.batch
        logits = self.network(x)
        if self.wrong is None:
            label = target if target.ndim == 1 else target.argmax(1)
            self.wrong = (logits.detach().argmax(1) != label).sum() * (weight > 0)
        smoothing = self.smoothing
        return cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing) * weight


def _averaged(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, and buffers of floats, by name: what an average of the weights is over."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return [(name, value.detach()) for name, value in tensors if value.is_floating_point()]


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters: Any = network.parameters()
    if recipe.head_lr is not None:
        head = {id(own) for own in classifier(network).parameters()}
        parts = ([], [])
        for own in network.parameters():
            parts[id(own) in head].append(own)
        scale = recipe.head_lr / recipe.base_lr
        parameters = [{"params": parts[0]}, {"params": parts[1], "scale": scale}]
    if recipe.base_optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=recipe.base_lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=recipe.base_lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
