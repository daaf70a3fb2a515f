"""SAM and ASAM against their formulas, another implementation, and every way a step is run."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import ParameterError
from empirical.training.sam import Sam, gradient, perturbed

Loss = Callable[[], Tensor]
criterion = nn.functional.cross_entropy


def make(*, norm: bool = False, dropout: float = 0.0, seed: int = 0) -> nn.Module:
    """A small network on (n, 6) with four classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(6, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Tanh()]
        return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(8, 4))


def batch(n: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=stream), torch.randint(4, (n,), generator=stream)


def whole(network: nn.Module, x: Tensor, y: Tensor) -> list[Loss]:
    return [lambda: criterion(network(x), y)]


def pieces(network: nn.Module, x: Tensor, y: Tensor, count: int) -> list[Loss]:
    """Micro-batches whose losses sum to that of the batch."""

    def loss(own: Tensor, labels: Tensor) -> Loss:
        return lambda: criterion(network(own), labels) / count

    return [loss(*part) for part in zip(x.chunk(count), y.chunk(count), strict=True)]


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def grads(network: nn.Module) -> list[Tensor]:
    found = [parameter.grad for parameter in network.parameters()]
    assert all(own is not None for own in found)
    return [own.clone() for own in found if own is not None]


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Equal to the last bit."""
    return len(first) == len(second) and all(
        torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )


def close(first: Sequence[Tensor], second: Sequence[Tensor], **tolerance: float) -> None:
    torch.testing.assert_close(list(first), list(second), **tolerance)


def by_hand(network: nn.Module, x: Tensor, y: Tensor, rho: float, eta: float | None = None) -> Any:
    """The SAM (eta None) or ASAM gradient, with autograd.grad on a copy and nothing in place."""
    own = copy.deepcopy(network)
    w = list(own.parameters())
    g = torch.autograd.grad(criterion(own(x), y), w)
    t = [torch.ones_like(a) if eta is None else a.detach().abs() + eta for a in w]
    norm = torch.cat([(a * b).flatten() for a, b in zip(t, g, strict=True)]).norm()
    with torch.no_grad():
        for a, b, c in zip(w, t, g, strict=True):
            a += rho * b * b * c / norm
    return list(torch.autograd.grad(criterion(own(x), y), w))


@pytest.mark.parametrize("adaptive", [False, True])
def test_one_step_on_a_linear_model_is_the_formula(adaptive: bool) -> None:
    """Softmax regression with gradients written out: grad W = (p - onehot)^T x / n."""
    torch.manual_seed(1)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    network = nn.Linear(3, 4).double()
    rho, eta, lr, decay = 0.2, 0.05, 0.1, 0.01

    def slope(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        rest = torch.softmax(x @ weight.T + bias, dim=1)
        rest[torch.arange(6), y] -= 1
        return rest.T @ x / 6, rest.mean(dim=0)

    weight, bias = weights(network)
    g_weight, g_bias = slope(weight, bias)
    t_weight = weight.abs() + eta if adaptive else torch.ones_like(weight)
    t_bias = bias.abs() + eta if adaptive else torch.ones_like(bias)
    norm = ((t_weight * g_weight).square().sum() + (t_bias * g_bias).square().sum()).sqrt()
    h_weight, h_bias = slope(
        weight + rho * t_weight**2 * g_weight / norm, bias + rho * t_bias**2 * g_bias / norm
    )

    optimizer = torch.optim.SGD(network.parameters(), lr=lr, weight_decay=decay)
    value = gradient(network, whole(network, x, y), Sam(rho, adaptive, eta))
    torch.testing.assert_close(value, criterion(network(x), y).detach())
    assert same(weights(network), [weight, bias])  # to the last bit
    optimizer.step()
    torch.testing.assert_close(network.weight.detach(), weight - lr * (h_weight + decay * weight))
    torch.testing.assert_close(network.bias.detach(), bias - lr * (h_bias + decay * bias))


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_several_steps_equal_another_implementation(kind: str, adaptive: bool) -> None:
    theirs_of = pytest.importorskip("pytorch_optimizer").SAM
    base, options = {
        "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    }[kind]
    ours, theirs = make().double(), make().double()
    optimizer = base(ours.parameters(), **options)
    other = theirs_of(theirs.parameters(), base, rho=0.3, adaptive=adaptive, **options)
    for step in range(6):
        x, y = batch(seed=step)
        x = x.double()
        gradient(ours, whole(ours, x, y), Sam(0.3, adaptive, eta=0.0))
        optimizer.step()
        other.zero_grad()
        criterion(theirs(x), y).backward()

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            other.zero_grad()
            loss = criterion(theirs(x), y)
            loss.backward()
            return loss

        other.step(closure)
        # theirs takes the norm in float32
        close(weights(ours), weights(theirs), rtol=1e-6, atol=1e-7)
    assert not same(weights(ours), weights(make().double()))


@pytest.mark.parametrize("accumulation", ["full", "m-sam"])
def test_rho_0_is_plain_training_to_the_last_bit(accumulation: str) -> None:
    ours, plain = make(norm=True, dropout=0.2), make(norm=True, dropout=0.2)
    optimizers = [
        torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        for network in (ours, plain)
    ]
    calls = 0

    def counted(loss: Tensor) -> None:
        nonlocal calls
        calls += 1
        loss.backward()

    for step in range(4):
        x, y = batch(seed=step)
        torch.manual_seed(step)
        gradient(ours, pieces(ours, x, y, 2), Sam(0.0, accumulation=accumulation), counted)
        optimizers[0].step()
        torch.manual_seed(step)
        optimizers[1].zero_grad()
        for loss in pieces(plain, x, y, 2):
            loss().backward()
        optimizers[1].step()
    assert calls == 8  # at the price of one gradient
    assert same(list(state(ours).values()), list(state(plain).values()))


def test_adamw_and_a_schedule_see_only_the_second_gradient() -> None:
    ours, plain = make(), make()
    pairs: list[tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]] = []
    for network in (ours, plain):
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.1)
        pairs.append((optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)))
    for step in range(5):
        x, y = batch(seed=step)
        expected = by_hand(plain, x, y, rho=0.2)
        gradient(ours, whole(ours, x, y), Sam(0.2))
        for parameter, own in zip(plain.parameters(), expected, strict=True):
            parameter.grad = own
        for optimizer, schedule in pairs:
            optimizer.step()
            schedule.step()
        close(weights(ours), weights(plain), rtol=1e-4, atol=1e-6)
    assert pairs[0][0].param_groups[0]["lr"] == pytest.approx(1e-4)


@pytest.mark.parametrize("accumulation", ["full", "m-sam"])
def test_running_statistics_are_those_of_the_plain_forward(accumulation: str) -> None:
    network = make(norm=True)
    reference = copy.deepcopy(network)
    x, y = batch()
    for loss in pieces(reference, x, y, 4):
        loss()
    sam = Sam(1.0, accumulation=accumulation)
    gradient(network, pieces(network, x, y, 4), sam)
    assert int(network[1].num_batches_tracked) == 4  # pyright: ignore
    assert state(network).keys() == state(reference).keys()
    assert same(list(state(network).values()), list(state(reference).values()))


def test_whatever_happens_to_buffers_and_weights_inside_is_undone() -> None:
    class Counter(nn.Module):
        """A buffer changed in place, and one that every pass replaces."""

        count: Tensor
        last: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.register_buffer("last", torch.zeros(3), persistent=False)
            self.register_buffer("absent", None)
            self.weight = nn.Parameter(torch.full((3,), 1 / 3))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            self.last = x.detach().mean(0)
            return (x * self.weight).sum()

    network = Counter()
    network(torch.ones(2, 3)).backward()
    count, last, before = network.count.clone(), network.last, weights(network)

    def interrupted() -> None:
        with perturbed(network, 0.3):
            assert float(network.weight.detach().norm()) == pytest.approx(1 / 3**0.5 + 0.3)
            network(torch.zeros(2, 3))
            assert not torch.equal(network.last, last)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(network.count, count)
    assert network.last is last
    assert torch.equal(last, torch.ones(3))
    assert same(weights(network), before)


def test_full_accumulation_is_the_big_batch() -> None:
    x, y = batch()
    one, four = make(), make()
    first = gradient(one, whole(one, x, y), Sam(0.5))
    second = gradient(four, pieces(four, x, y, 4), Sam(0.5, accumulation="full"))
    torch.testing.assert_close(first, second)
    close(grads(one), grads(four), rtol=1e-4, atol=1e-6)
    close(grads(one), by_hand(make(), x, y, 0.5), rtol=1e-4, atol=1e-6)


def test_m_sam_is_the_mean_over_micro_batches() -> None:
    x, y = batch()
    network = make()
    value = gradient(network, pieces(network, x, y, 4), Sam(0.5, accumulation="m-sam"))
    torch.testing.assert_close(value, criterion(network(x), y).detach())
    own = [by_hand(make(), *part, 0.5) for part in zip(x.chunk(4), y.chunk(4), strict=True)]
    mean = [torch.stack(parts).mean(0) for parts in zip(*own, strict=True)]
    close(grads(network), mean, rtol=1e-4, atol=1e-6)
    whole_batch = by_hand(make(), x, y, 0.5)
    assert max(float((a - b).abs().max()) for a, b in zip(mean, whole_batch, strict=True)) > 1e-2


def test_gradients_left_over_are_dropped() -> None:
    x, y = batch()
    network = make()
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    gradient(network, whole(network, x, y), Sam(0.5))
    close(grads(network), by_hand(make(), x, y, 0.5), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulation", ["full", "m-sam"])
def test_both_passes_meet_the_same_dropout_masks(accumulation: str) -> None:
    x, y = batch()
    ours, plain = make(dropout=0.5), make(dropout=0.5)
    torch.manual_seed(3)
    sam = Sam(1e-6, accumulation=accumulation)
    gradient(ours, pieces(ours, x, y, 2), sam)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    gradient(plain, pieces(plain, x, y, 2), Sam(0.0))
    assert torch.equal(after, torch.get_rng_state())
    close(grads(ours), grads(plain), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("adaptive", [False, True])
def test_without_a_gradient_nothing_moves(adaptive: bool) -> None:
    network = make()
    before = weights(network)
    with perturbed(network, 0.5, adaptive):  # none at all
        assert same(weights(network), before)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with perturbed(network, 0.5, adaptive):
        assert same(weights(network), before)


def test_a_tiny_gradient_gives_the_whole_step() -> None:
    network = nn.Linear(3, 1, bias=False)
    network.weight.grad = torch.tensor([[1e-18, 0.0, 0.0]])
    before = network.weight.detach().clone()
    with perturbed(network, 0.5):
        torch.testing.assert_close(
            network.weight.detach() - before, torch.tensor([[0.5, 0.0, 0.0]])
        )


def test_frozen_and_sparse_parameters_stay() -> None:
    table = nn.Embedding(5, 6, sparse=True)
    network = nn.ModuleDict({"table": table, "frozen": nn.Linear(6, 6), "free": nn.Linear(6, 4)})
    network["frozen"].requires_grad_(False)
    rows, y = torch.tensor([0, 1, 1, 3]), torch.tensor([0, 1, 2, 3])
    seen: list[list[Tensor]] = []

    def loss() -> Tensor:
        seen.append(weights(network))
        return criterion(network["free"](network["frozen"](table(rows))), y)

    gradient(network, [loss], Sam(0.5))
    first, second = seen
    assert same(first[:3], second[:3])  # the table; weight and bias of the frozen layer
    moved = torch.cat([(b - a).flatten() for a, b in zip(first[3:], second[3:], strict=True)])
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-5)
    assert table.weight.grad is not None
    assert table.weight.grad.is_sparse
    assert same(weights(network), first)


def test_the_loss_scale_does_not_matter() -> None:
    """A power of two shifts exponents only: all is equal to the last bit."""
    x, y = batch()
    scaled, plain = make(), make()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimizer = torch.optim.SGD(scaled.parameters(), lr=0.1)
    gradient(scaled, whole(scaled, x, y), Sam(0.5), lambda loss: scaler.scale(loss).backward())
    scaler.step(optimizer)
    scaler.update()
    gradient(plain, whole(plain, x, y), Sam(0.5))
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    assert same(weights(scaled), weights(plain))
    assert scaler.get_scale() == 2.0**16


@pytest.mark.parametrize("accumulation", ["full", "m-sam"])
def test_fp16_with_a_scaler_is_near_float32(accumulation: str) -> None:
    x, y = batch()
    half, full = make(), make()
    sam = Sam(0.5, accumulation=accumulation)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.5) for network in (half, full)]
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.float16):
            losses = pieces(half, x, y, 2)
            gradient(half, losses, sam, lambda loss: scaler.scale(loss).backward())
        scaler.step(optimizers[0])
        scaler.update()
        gradient(full, pieces(full, x, y, 2), sam)
        optimizers[1].step()
    assert scaler.get_scale() == 2.0**10  # no step was skipped
    close(weights(half), weights(full), rtol=0.02, atol=0.02)
    assert not same(weights(half), weights(full))


@pytest.mark.parametrize("accumulation", ["full", "m-sam"])
@pytest.mark.parametrize("poison", [torch.inf, torch.nan])
def test_an_overflow_in_the_ascent_skips_the_step(accumulation: str, poison: float) -> None:
    """One entry of one gradient of the first pass; the second pass by itself would be finite."""
    x, y = batch()
    network = make(norm=True)
    reference = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    passes = 0

    def backward(loss: Tensor) -> None:
        nonlocal passes
        scaler.scale(loss).backward()
        passes += 1
        bias = network[-1].bias.grad  # pyright: ignore
        if passes == 1:
            bias[0] = poison

    sam = Sam(0.5, accumulation=accumulation)
    gradient(network, pieces(network, x, y, 2), sam, backward)
    assert passes == 4
    assert all(own.isnan().all() for own in grads(network)[:2])  # not only where the entry was
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0
    assert not optimizer.state  # not even momentum
    for loss in pieces(reference, x, y, 2):
        loss()
    assert same(list(state(network).values()), list(state(reference).values()))
    gradient(network, pieces(network, x, y, 2), sam, backward)  # and the next one is taken
    scaler.step(optimizer)
    scaler.update()
    assert optimizer.state
    assert all(value.isfinite().all() for value in weights(network))


@pytest.mark.parametrize("poison", [torch.inf, -torch.inf, torch.nan, 1e30])
def test_an_overflow_spreads_to_every_weight_and_leaves_none(poison: float) -> None:
    """So that no mask of the network can hide it. (The square of 1e30 overflows.)"""
    network = make()
    before = weights(network)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    network[-1].bias.grad[0] = poison  # pyright: ignore
    with perturbed(network, 0.5):
        assert all(value.isnan().all() for value in weights(network))
    assert same(weights(network), before)


def test_an_overflow_in_the_second_pass_skips_the_step() -> None:
    x, y = batch()
    network = make()
    before = weights(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    factors = iter((1.0, torch.inf))
    losses: list[Loss] = [lambda: criterion(network(x), y) * next(factors)]
    gradient(network, losses, Sam(0.5), lambda loss: scaler.scale(loss).backward())
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0
    assert same(weights(network), before)


def test_bf16_autocast_inside_or_around() -> None:
    """Around: autocast keeps bf16 copies of the weights, which must not outlive the weights."""
    x, y = batch()
    inside, around, full = make(), make(), make()

    def cast() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return criterion(inside(x), y)

    gradient(inside, [cast], Sam(0.5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradient(around, whole(around, x, y), Sam(0.5))
        after = around(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(after, around(x))
    gradient(full, whole(full, x, y), Sam(0.5))
    assert same(grads(inside), grads(around))
    assert not same(grads(inside), grads(full))
    close(grads(inside), grads(full), rtol=0.05, atol=0.02)


def test_weights_of_16_bits() -> None:
    network = make().to(torch.bfloat16)
    x, y = batch()
    before = weights(network)
    gradient(network, whole(network, x.bfloat16(), y), Sam(0.5, adaptive=True))
    assert same(weights(network), before)
    assert all(own.dtype == torch.bfloat16 and own.isfinite().all() for own in grads(network))
    half = nn.Linear(1, 2, bias=False).half()
    half.weight.grad = torch.full((2, 1), 6e4, dtype=torch.float16)  # its square overflows
    start = half.weight.detach().clone()
    with perturbed(half, 2**0.5):
        torch.testing.assert_close(half.weight.detach() - start, torch.ones_like(start))


def test_with_accelerate() -> None:
    accelerate = pytest.importorskip("accelerate")
    x, y = batch()
    ours, plain = make(), make()
    accelerator = accelerate.Accelerator(cpu=True)
    try:
        optimizers = [torch.optim.SGD(n.parameters(), lr=0.1, momentum=0.9) for n in (ours, plain)]
        schedules = [torch.optim.lr_scheduler.StepLR(own, 1, gamma=0.5) for own in optimizers]
        network, optimizer, schedule = accelerator.prepare(ours, optimizers[0], schedules[0])
        for _ in range(3):
            gradient(network, pieces(network, x, y, 2), Sam(0.5), accelerator.backward)
            optimizer.step()
            schedule.step()
            gradient(plain, pieces(plain, x, y, 2), Sam(0.5))
            optimizers[1].step()
            schedules[1].step()
        assert same(weights(ours), weights(plain))
        assert optimizers[0].param_groups[0]["lr"] == optimizers[1].param_groups[0]["lr"] == 0.0125
    finally:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"rho": -0.1}, "rho = -0.1: must be at least 0"),
        ({"rho": float("nan")}, "rho = nan: must be at least 0"),
        ({"rho": float("inf")}, "rho = inf: must be at least 0"),
        ({"eta": -1.0}, "eta = -1.0: must be at least 0"),
        ({"accumulation": "m"}, "accumulation = m: must be full or m-sam"),
        ({"ranks": "all"}, "ranks = all: must be local or synchronised"),
    ],
)
def test_bad_values(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ParameterError) as error:
        Sam(**values)
    assert str(error.value) == line


def test_no_losses() -> None:
    with pytest.raises(ParameterError, match="losses = 0: must be at least one"):
        gradient(make(), [], Sam())


# DistributedDataParallel: two processes run this very file, each with half of the batch.

RUNS = {
    "plain": Sam(0.0),
    "local": Sam(0.5),
    "synchronised": Sam(0.5, ranks="synchronised"),
    "local m-sam": Sam(0.5, accumulation="m-sam"),
    "synchronised m-sam": Sam(0.5, accumulation="m-sam", ranks="synchronised"),
}


def rank_main(rank: int, folder: Path) -> None:
    """What each process does: one gradient of every kind, then an overflow on rank 1 alone."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    x, y = (own.chunk(2)[rank] for own in batch())
    found: dict[str, Any] = {}
    for views in (False, True):
        for name, sam in RUNS.items():
            network = nn.parallel.DistributedDataParallel(make(), gradient_as_bucket_view=views)
            steps: list[list[Tensor]] = []
            for _ in range(2):  # the second meets what the first left behind
                gradient(network, pieces(network, x, y, 2), sam)
                steps.append(grads(network))
            found[f"{name} {views}"] = steps

    trained = nn.parallel.DistributedDataParallel(make(norm=True))
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scales: list[float] = []
    for step in range(4):
        passes = 0

        def backward(loss: Tensor, step: int = step) -> None:
            nonlocal passes
            scaler.scale(loss).backward()
            passes += 1
            if (rank, step, passes) == (1, 1, 1):
                next(trained.parameters()).grad[0, 0] = torch.inf  # pyright: ignore

        gradient(trained, whole(trained, x, y), Sam(0.5), backward)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    found["scales"] = scales
    found["trained"] = weights(trained)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)]) for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("name", RUNS)
def test_two_ranks(ranks: list[dict[str, Any]], name: str, views: bool) -> None:
    x, y = batch()
    network = make()
    halves = list(zip(x.chunk(2), y.chunk(2), strict=True))
    quarters = list(zip(x.chunk(4), y.chunk(4), strict=True))

    def mean(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        return [torch.stack(own).mean(0) for own in zip(*parts, strict=True)]

    expected: list[Tensor]
    if name == "plain":
        expected = list(torch.autograd.grad(criterion(network(x), y), list(network.parameters())))
    elif name == "synchronised":
        expected = by_hand(network, x, y, 0.5)  # one process with the whole batch
    elif name == "local":
        expected = mean([by_hand(network, *half, 0.5) for half in halves])
    elif name == "local m-sam":
        expected = mean([by_hand(network, *quarter, 0.5) for quarter in quarters])
    else:  # micro-batch i of both ranks together
        both = [
            tuple(torch.cat(own) for own in zip(quarters[i], quarters[i + 2], strict=True))
            for i in range(2)
        ]
        expected = mean([by_hand(network, own_x, own_y, 0.5) for own_x, own_y in both])
    for rank in ranks:
        for step in rank[f"{name} {views}"]:
            close(step, expected, rtol=1e-4, atol=1e-6)
    for first, second in zip(*(rank[f"{name} {views}"] for rank in ranks), strict=True):
        assert same(first, second)


def test_ranks_stay_together_when_one_overflows(ranks: list[dict[str, Any]]) -> None:
    assert [rank["scales"] for rank in ranks] == [[1024.0, 512.0, 512.0, 512.0]] * 2
    assert same(ranks[0]["trained"], ranks[1]["trained"])
    assert all(value.isfinite().all() for value in ranks[0]["trained"])


if __name__ == "__main__":
    rank_main(int(sys.argv[1]), Path(sys.argv[2]))
