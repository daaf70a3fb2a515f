"""Whole training runs: batched over seeds and configurations, recorded, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import softplus

from common.divergence import LOOK_EVERY, DivergenceError
from common.errors import ParameterError, require
from common.files import check_writable, whole_file
from common.progress import progress
from sim.backends.dense import Dense
from sim.backends.span import FEATURES, Span, first_copies
from sim.data import Dataset, batch_index
from sim.network import CUBE, Activation, Logits
from sim.optim import Rate, Space, patch_weights, step

BACKENDS = ("auto", "dense", "span")


@dataclass(frozen=True)
class Point:
    """The filters before step t of training, in either representation."""

    space: Space
    state: Tensor
    t: int = 0

    @property
    def W(self) -> Tensor:  # noqa: N802
        """The filters, (..., J, d)."""
        return self.space.filters(self.state)

    @property
    def features(self) -> Tensor:
        """⟨w_j, v⟩ for v = v_fast, v_slow, (..., J, 2)."""
        return self.space.features(self.state)

    @property
    def covariance(self) -> Tensor:
        """Covariance of (⟨w_j, ξ⟩)_j for a fresh noise patch of unit variance, (..., J, J)."""
        return self.space.covariance(self.state)

    def loss(self) -> Tensor:
        """Logistic loss on the data set, copies counted, (...)."""
        margin = -self.space.y * self.space.outputs(self.space.project(self.state))
        return (softplus(margin) * self.space.weight).sum(-1)

    def errors(self) -> dict[str, Tensor]:
        """Share of wrong signs in the data set {"all", "fast", "slow"}, copies counted, (...).

        As in `measure.errors`: an output of 0 or NaN is wrong, a group without examples NaN.
        """
        space = self.space
        wrong = ~(space.y * space.outputs(space.project(self.state)) > 0)
        weighted, fast = wrong * space.weight, space.is_fast
        return {
            "all": weighted.sum(-1),
            "fast": (weighted * fast).sum(-1) / (space.weight * fast).sum(-1),
            "slow": (weighted * ~fast).sum(-1) / (space.weight * ~fast).sum(-1),
        }

    def gradient_norm(self, logits: Logits = None) -> Tensor:
        """‖∇L‖_F, (...)."""
        c = self.space.coefficients(self.space.project(self.state), logits)
        return (c * self.space.gram_product(c)).sum((-1, -2)).clamp_min(0).sqrt()

    def noise_alignment(self, rho: Rate = 0.0, logits: Logits = None) -> Tensor:
        """NoiseAlign_j of the GD step, or of SAM's at this rho, (..., J); copies counted.

        The mean over I_{j,+} = {y⟨w_j, ξ⟩ > 0} of y⟨−g_j, ξ⟩ (theory/README.md); NaN where
        I_{j,+} is empty.
        """
        h = self.space.project(self.state)
        on = (self.space.noise_part(h) > 0) * self.space.noise_weight
        c = patch_weights(self.space, h, rho, logits)
        along = -self.space.noise_part(self.space.gram_product(c))
        return (along * on).sum(-1) / on.sum(-1)

    def batch_variance(self, batch_size: int, logits: Logits = None) -> Tensor:
        """Mini-batch gradient variance given the data, without replacement, exact, (...).

        (mean_i ‖g_i‖² − ‖∇L‖²) / B × (N' − B)/(N' − 1).
        """
        n = self.space.n_total
        require(1 <= batch_size <= n, "batch_size", batch_size, f"between 1 and {n}")
        each = (self.space.squared_norms(self.state, logits) * self.space.weight).sum(-1)
        centred = each - self.gradient_norm(logits).square()
        return centred / batch_size * (n - batch_size) / (n - 1)


Record = Callable[[Point], dict[str, Tensor]]


@dataclass(frozen=True)
class Run:
    """A finished run: where it ended, and what was recorded at which steps.

    history[name]: (len(steps), ...), what `record` returned before step steps[i] (the last
    entry may be `steps` itself: after the last step). diverged: for each run the first step (from
    1) after which its filters were no longer finite, 0 for none: int64 (...), on the CPU.
    """

    end: Point
    steps: list[int]
    history: dict[str, Tensor]
    diverged: Tensor

    @property
    def W(self) -> Tensor:  # noqa: N802
        """The filters at the end, (..., J, d)."""
        return self.end.W


def prepare(
    W: Tensor,
    data: Dataset,
    activation: Activation = CUBE,
    backend: str = "auto",
    batch_size: int | None = None,
) -> Space:
    """Set up training of W (..., J, d) on data: `Dense`, `Span`, or with "auto" the cheaper one.

    W and data may have different batch dimensions if they broadcast; both must be on one device
    in one dtype. Raises ParameterError for an unknown backend, or W of another width than data.
    """
    require(backend in BACKENDS, "backend", backend, f"one of {', '.join(BACKENDS)}")
    width = data.x.shape[-1]
    require(W.shape[-1] == width, "W", f"{W.shape[-1]} wide", f"as wide as the data, {width}")
    if backend == "auto":
        backend = cheaper(data, batch_size)
    return Span.of(data, W, activation) if backend == "span" else Dense(data, W, activation)


def cheaper(data: Dataset, batch_size: int | None = None) -> str:
    """The backend with fewer multiplications in a step, once set up.

    Per filter, a step of GD passes over the patches twice (2 n P d), or over the Gram matrix once
    (m², in a mini-batch of r rows r m); SAM doubles both. A Gram matrix above 4 GiB is refused.
    """
    n, P, d = data.x.shape[-3:]
    one = first_copies(data).unique()
    rows = FEATURES + int(data.is_noise[one].sum())
    runs = data.x[..., 0, 0, 0].numel()
    each = int(data.is_noise.sum(-1).max())
    return choose_backend(n, P, d, rows, runs, batch_size, each)


def choose_backend(
    n: int, P: int, d: int, rows: int, runs: int, batch_size: int | None, noise_each: int
) -> str:
    """The same from sizes: n examples of P patches in d dimensions, so many rows and runs, and
    noise patches of an example."""
    if 8 * rows**2 * runs > 4 * 2**30:
        return "dense"
    if batch_size is None:
        return "span" if rows**2 < 2 * n * P * d else "dense"
    used = FEATURES + batch_size * noise_each
    return "span" if used * rows < 2 * batch_size * P * d else "dense"


def train(
    space: Space,
    lr: Rate,
    steps: int,
    rho: Rate = 0.0,
    logits: float | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    replacement: bool = False,
    record: Record | None = None,
    record_at: Iterable[int] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 1000,
    show: str | None = None,
    compile: bool = False,
    stop_diverged: bool = False,
) -> Run:
    """Run `steps` steps of W ← W − lr ∇L(W + ε) on what `prepare` has set up.

    Batch dimensions of the space, lr and rho are independent runs in one tensor program. rho > 0:
    SAM. batch_size: a fresh uniform mini-batch each step (needs `generator`, on the CPU), an own
    one for each run; None: the full batch. logits: frozen at a number, or None for real ones.
    record: called before the steps record_at (default: all; `steps` itself is after the last).
    checkpoint: a file that is saved every checkpoint_every steps and continued from when it
    exists; the result is the same to the byte. show: name of the progress bar, None for none.
    compile: fuse full-batch steps by torch.compile: 5 to 20 s once, for kernels that differ by
    rounding. Meant for a GPU; on CPUs it did not pay (`results/bench.json`).
    stop_diverged: raise DivergenceError when every run has diverged, with the step at which the
    last of them did; the checkpoint is removed.
    Raises ParameterError for lr ≤ 0, rho < 0, steps < 0, a batch larger than the data, or a
    checkpoint of another run, and OSError where the checkpoint cannot be written.
    """
    require(_lowest(lr) > 0, "lr", _lowest(lr), "positive")
    require(_lowest(rho) >= 0, "rho", _lowest(rho), "0 or more")
    require(steps >= 0, "steps", steps, "0 or more")
    require(checkpoint_every >= 1, "checkpoint_every", checkpoint_every, "at least 1")
    if batch_size is not None:
        require(generator is not None, "generator", None, "given when batch_size is")
    state = space.initial
    lr, rho = (r.to(state) if isinstance(r, Tensor) else r for r in (lr, rho))
    rates = [r.shape for r in (lr, rho) if isinstance(r, Tensor)]
    batch = tuple(torch.broadcast_shapes(state.shape[:-2], *rates))
    state = state.expand(*batch, *state.shape[-2:]).contiguous()  # as a checkpoint gives it
    wanted = {t for t in (range(steps + 1) if record_at is None else record_at) if 0 <= t <= steps}
    history: dict[str, list[Tensor]] = {}
    first = 0
    first_bad = torch.zeros(batch, dtype=torch.int64)
    saved = None
    if checkpoint is not None:
        check_writable(checkpoint)
        settings = [steps, logits, batch_size, replacement, sorted(wanted), compile, bool(record)]
        saved = _Checkpoint(checkpoint, _fingerprint(space, lr, rho, generator, settings))
        if checkpoint.exists():
            first, state, history, first_bad = saved.load(generator, state.device)

    def observe(t: int) -> None:
        if record is not None and t in wanted:
            values = record(Point(space, state, t))
            if history and set(values) != set(history):
                raise ParameterError(
                    "record", sorted(values), f"of {sorted(history)} at every step"
                )
            for name, value in values.items():
                history.setdefault(name, []).append(value)

    full_step = torch.compile(step) if compile else step
    sums: list[Tensor] = []  # of the filters after each step since the last look

    def look(t: int) -> None:
        nonlocal first_bad
        if not sums:
            return
        bad = ~torch.stack(sums).isfinite().cpu()  # once a run is not finite, it stays so
        at = t - len(sums) + 1 + bad.int().argmax(0)
        first_bad = torch.where((first_bad == 0) & bad.any(0), at, first_bad)
        sums.clear()
        if stop_diverged and bool((first_bad > 0).all()):
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)
            which = f"all {first_bad.numel()} runs" if first_bad.numel() > 1 else "the run"
            seen = "filters not finite"
            raise DivergenceError(which, int(first_bad.max()), seen, f"lower --lr {_highest(lr):g}")

    with progress(show, steps, first) if show else nullcontext(_nothing) as advance:
        for t in range(first, steps):
            if saved is not None and t > first and t % checkpoint_every == 0:
                look(t)
                saved.save(t, state, history, first_bad, generator)
            observe(t)
            if batch_size is None or generator is None:
                state = full_step(space, state, lr, rho, logits)
            else:
                index = batch_index(space.n_total, batch_size, generator, replacement, batch)
                state = step(space.take(index.to(state.device)), state, lr, rho, logits)
            sums.append(state.sum((-1, -2)))
            if len(sums) == LOOK_EVERY:
                look(t + 1)
            advance()
    look(steps)
    observe(steps)
    stacked = {name: torch.stack(values) for name, values in history.items()}
    return Run(Point(space, state, steps), sorted(wanted) if record else [], stacked, first_bad)


def _nothing() -> None:
    pass


def _lowest(rate: Rate) -> float:
    return float(rate.min()) if isinstance(rate, Tensor) else rate


def _highest(rate: Rate) -> float:
    return float(rate.max()) if isinstance(rate, Tensor) else rate


@dataclass(frozen=True)
class _Checkpoint:
    """A safetensors file: the state, what was recorded, the generator; bound to one run."""

    path: Path
    fingerprint: str

    def save(
        self,
        t: int,
        state: Tensor,
        history: dict[str, list[Tensor]],
        diverged: Tensor,
        generator: torch.Generator | None,
    ) -> None:
        tensors = {f"history.{name}": torch.stack(values) for name, values in history.items()}
        tensors |= {"state": state.contiguous(), "diverged": diverged}
        if generator is not None:
            tensors["generator"] = generator.get_state()
        metadata = {"step": str(t), "fingerprint": self.fingerprint}
        with whole_file(self.path) as part:
            # not save_file: it turns a full disk into an error of its own
            part.write_bytes(save(tensors, metadata))

    def load(
        self, generator: torch.Generator | None, device: torch.device
    ) -> tuple[int, Tensor, dict[str, list[Tensor]], Tensor]:
        try:
            with safe_open(self.path, "pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ParameterError(
                "checkpoint", self.path, f"a whole safetensors file ({error})"
            ) from None
        if metadata.get("fingerprint") != self.fingerprint:
            raise ParameterError("checkpoint", self.path, "of this run; it belongs to another one")
        if generator is not None:
            generator.set_state(tensors["generator"].cpu())
        history = {
            name.removeprefix("history."): list(values)
            for name, values in tensors.items()
            if name.startswith("history.")
        }
        # a file's tensors lie unaligned in memory, where matrix products round differently
        state = tensors["state"].clone()
        return int(metadata["step"]), state, history, tensors["diverged"].cpu().clone()


def _fingerprint(
    space: Space, lr: Rate, rho: Rate, generator: torch.Generator | None, settings: list[Any]
) -> str:
    """What a run's result depends on, hashed: the data, the start, the rates, the draws."""
    tensors = list(space.identity)
    tensors += [torch.as_tensor(rate, dtype=torch.float64) for rate in (lr, rho)]
    if generator is not None:
        tensors.append(generator.get_state())
    digest = hashlib.sha256(repr([type(space).__name__, space.activation, settings]).encode())
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
