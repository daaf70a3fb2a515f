"""How fast the engine is, as ratios against named baselines measured in the same minutes.

Baselines: a plain autograd loop as a user of torch would write it, the dense closed form
(`sim.backends.dense`), and the rate at which this machine multiplies large matrices.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor
from torch.nn.functional import softplus

from common.progress import progress
from common.provenance import versions
from common.seeding import torch_stream
from sim.backends.dense import Dense
from sim.backends.span import Span
from sim.data import DataConfig, Dataset, sample
from sim.network import init
from sim.optim import Space, step

Json = dict[str, Any]
LR, RHO = 0.1, 0.05


@dataclass(frozen=True)
class Case:
    """A problem: N examples in R^d, J filters, seeds at once."""

    n_examples: int = 500
    dim: int = 10_000
    filters: int = 20
    seeds: int = 1
    dtype: str = "float64"


MAIN = Case()
DIMS = (1_000, 10_000, 50_000)
BATCHED = (
    Case(dim=1_000, seeds=16),
    Case(dim=1_000, seeds=1),
    Case(dim=1_000, seeds=4),
    Case(dim=1_000, seeds=16, filters=80),
    Case(dim=1_000, seeds=16, dtype="float32"),
    Case(100, 315, 40, seeds=16),
)
AGAINST = (
    MAIN,
    replace(MAIN, n_examples=100),
    replace(MAIN, n_examples=1000),
    replace(MAIN, dim=1_000),
    replace(MAIN, dim=50_000),
    replace(MAIN, filters=5),
    replace(MAIN, filters=80),
    replace(MAIN, dtype="float32"),
    replace(MAIN, dim=2_000, seeds=4),
    replace(MAIN, dim=2_000, seeds=16),
)
COMPILED = (BATCHED[1], BATCHED[0], BATCHED[-1])
SMALL = Case(60, 200, 5)


def problem(case: Case) -> tuple[Dataset, Tensor]:
    """The case's data and initial filters, with a batch dimension for more than one seed."""
    batch = () if case.seeds == 1 else (case.seeds,)
    config = DataConfig(n_examples=case.n_examples, dim=case.dim)
    dtype = getattr(torch, case.dtype)
    data = sample(config, torch_stream(0, 1), batch, dtype)
    return data, init(case.filters, case.dim, 0.05, torch_stream(0, 2), batch, dtype)


def autograd_step(W: Tensor, data: Dataset, lr: float, rho: float) -> Tensor:
    """GD or SAM as one would write it with autograd, seeds in a batch; the baseline."""
    patches = data.x.flatten(-3, -2)

    def gradient(W: Tensor) -> Tensor:
        W = W.detach().requires_grad_()
        f = (patches @ W.mT).pow(3).sum(-1).unflatten(-1, data.x.shape[-3:-1]).sum(-1)
        # seeds do not meet, so the gradient of the sum is each one's own
        return torch.autograd.grad(softplus(-data.y * f).mean(-1).sum(), W)[0]

    g = gradient(W)
    if rho:
        g = gradient(W + rho * g / g.norm(dim=(-2, -1), keepdim=True))
    return W - lr * g


def _steps(space: Space, rho: float, advance: Callable[..., Tensor] = step) -> Callable:
    """A function that does `count` steps from the start."""

    def run(count: int) -> None:
        state = space.initial
        for _ in range(count):
            state = advance(space, state, LR, rho)

    return run


def _autograd_steps(data: Dataset, start: Tensor, rho: float) -> Callable[[int], None]:
    def run(count: int) -> None:
        W = start
        for _ in range(count):
            W = autograd_step(W, data, LR, rho)

    return run


def seconds_each(runs: dict[str, Callable[[int], None]], rounds: int, least: float) -> Json:
    """Median seconds a step of each, and of each over the first, from interleaved rounds.

    Every round times each of them once, for as many steps as take about `least` seconds, so that
    what else the machine does falls on all alike.
    """
    counts = {}
    for name, run in runs.items():
        run(1)
        start = time.perf_counter()
        run(2)
        counts[name] = max(1, round(least / max((time.perf_counter() - start) / 2, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(counts[name])
            times[name].append((time.perf_counter() - start) / counts[name])
    first = times[next(iter(times))]
    return {
        name: {
            "seconds": statistics.median(values),
            "over_first": statistics.median(v / f for v, f in zip(values, first, strict=True)),
        }
        for name, values in times.items()
    }


def product_rate(dtype: torch.dtype, size: int = 2048) -> Callable[[int], None]:
    """Products of large square matrices: what the machine can do at best."""
    left, right = (torch.randn(size, size, dtype=dtype) for _ in range(2))

    def run(count: int) -> None:
        for _ in range(count):
            torch.matmul(left, right)

    return run


def _against(case: Case, rho: float, rounds: int, least: float) -> Json:
    """One case: span, dense and autograd side by side."""
    data, W = problem(case)
    began = time.perf_counter()
    span = Span.of(data, W)
    set_up = time.perf_counter() - began
    found = seconds_each(
        {
            "span": _steps(span, rho),
            "dense": _steps(Dense(data, W), rho),
            "autograd": _autograd_steps(data, W, rho),
        },
        rounds,
        least,
    )
    return {
        **asdict(case),
        "optimizer": "SAM" if rho else "GD",
        "seconds_a_step": {name: value["seconds"] for name, value in found.items()},
        "autograd_over_span": found["autograd"]["over_first"],
        "dense_over_span": found["dense"]["over_first"],
        "set_up_in_span_steps": set_up / found["span"]["seconds"],
    }


def _over_dims(case: Case, dims: tuple[int, ...], rounds: int, least: float) -> list[Json]:
    spaces = {}
    for dim in dims:
        data, W = problem(replace(case, dim=dim))
        # the rows are needed only to rebuild the filters: keep memory small
        rows = W[..., :0]
        spaces[dim] = replace(Span.of(data, W), rows=rows, W=rows)
    found = seconds_each({str(d): _steps(s, RHO) for d, s in spaces.items()}, rounds, least)
    return [
        {"dim": dim, "seconds_a_step": v["seconds"], f"over_dim_{dims[0]}": v["over_first"]}
        for dim, v in zip(dims, found.values(), strict=True)
    ]


def _batched(case: Case, rounds: int, least: float, size: int) -> Json:
    """Time of a batched step against the time of its products at the machine's own rate.

    Where a step takes longer, "products_alone" and "reading_gram" say why: with J filters a
    product does 2 J operations for each number of the Gram matrix, so that few filters and many
    seeds wait for memory; the rest is elementwise.
    """
    space = Span.of(*problem(case))
    state = space.initial
    found = seconds_each(
        {
            "large product": product_rate(state.dtype, size),
            "GD": _steps(space, 0.0),
            "SAM": _steps(space, RHO),
            "products": _products_alone(space),
            "reading": _reading(space),
        },
        rounds,
        least,
    )
    seconds = {name: value["seconds"] for name, value in found.items()}
    rate = 2 * size**3 / seconds["large product"]
    at_rate = 2 * space.gram.shape[-1] ** 2 * case.filters * case.seeds / rate
    return {
        **asdict(case),
        "gflops_of_large_product": rate / 1e9,
        "seconds_a_step": {name: seconds[name] for name in ("GD", "SAM")},
        "GD_over_products_at_rate": seconds["GD"] / at_rate,
        "SAM_over_products_at_rate": seconds["SAM"] / (2 * at_rate),
        "products_alone_over_rate": seconds["products"] / at_rate,
        "reading_gram_over_rate": seconds["reading"] / at_rate,
    }


def _reading(space: Span) -> Callable[[int], None]:
    """Read every number of the Gram matrices once: what memory alone takes of a step."""

    def run(count: int) -> None:
        for _ in range(count):
            space.gram.sum()

    return run


def _products_alone(space: Span) -> Callable[[int], None]:
    state = space.initial + 1.0

    def run(count: int) -> None:
        for _ in range(count):
            space.gram_product(state)

    return run


def _compiled(case: Case, rounds: int, least: float) -> Json:
    """Eager over compiled step time of SAM; compiling itself takes seconds once."""
    space = Span.of(*problem(case))
    began = time.perf_counter()
    fused = torch.compile(step)
    fused(space, space.initial, LR, RHO)
    took = time.perf_counter() - began
    found = seconds_each(
        {"compiled": _steps(space, RHO, fused), "eager": _steps(space, RHO)},
        rounds,
        least,
    )
    ratio = found["eager"]["over_first"]
    return {**asdict(case), "eager_over_compiled": ratio, "seconds_to_compile": took}


def bench(small: bool = False) -> Json:
    """Measure everything; small: tiny sizes that only show that it works."""
    main, rounds, least = (SMALL, 3, 0.01) if small else (MAIN, 7, 0.15)
    dims = (100, 200) if small else DIMS
    batches = (replace(SMALL, seeds=2),) if small else BATCHED
    cases = (SMALL,) if small else AGAINST
    size = 128 if small else 2048
    compiling = () if small else COMPILED
    total = 2 * len(cases) + 1 + len(batches) + len(compiling)
    with progress("measured", total) as advance:
        against = []
        for case in cases:
            for rho in (0.0, RHO):
                against.append(_against(case, rho, rounds, least))
                advance()
        flat = _over_dims(main, dims, 3 * rounds, least)
        advance()
        batched = []
        for case in batches:
            batched.append(_batched(case, rounds, least, size))
            advance()
        compiled = []
        for case in compiling:
            compiled.append(_compiled(case, rounds, least))
            advance()
    sam = next(c for c in against if c["optimizer"] == "SAM")
    flatness = [next(v for k, v in row.items() if k.startswith("over_dim")) for row in flat]
    first = batched[0]
    return {
        "goals": [
            _goal("SAM, autograd loop / span", sam["autograd_over_span"], ">=", 40),
            _goal(f"step time at d = {dims[-1]} / d = {dims[0]}", flatness[-1], "<=", 1.1),
            *(
                _goal(
                    f"{first['seeds']} seeds, {name} step / its products at the machine's rate",
                    first[f"{name}_over_products_at_rate"],
                    "<=",
                    2,
                )
                for name in ("GD", "SAM")
            ),
        ],
        "against_baselines": against,
        "over_dim": flat,
        "batched": batched,
        "torch_compile": compiled,
        "machine": machine(),
        "versions": versions(),
    }


def _goal(name: str, measured: float, relation: str, goal: float) -> Json:
    met = measured >= goal if relation == ">=" else measured <= goal
    return {"name": name, "measured": measured, "relation": relation, "goal": goal, "met": met}


def table(record: Json) -> Table:
    """The goals, every case against its baselines, and the sizes over which time is flat."""
    out = Table(title="Speed ratios", box=SIMPLE_HEAD)
    for column in ("what", "ratio", "goal", ""):
        out.add_column(column, justify="left" if column == "what" else "right")
    for goal in record["goals"]:
        met = "[green]met[/]" if goal["met"] else "[red]missed[/]"
        out.add_row(
            goal["name"], f"{goal['measured']:.3g}", f"{goal['relation']} {goal['goal']}", met
        )
    out.add_section()
    for case in record["against_baselines"]:
        size = f"N={case['n_examples']} d={case['dim']} J={case['filters']} {case['dtype']}"
        size += f", {case['seeds']} seeds" if case["seeds"] > 1 else ""
        for baseline in ("autograd", "dense"):
            ratio = case[f"{baseline}_over_span"]
            out.add_row(f"{case['optimizer']} {size}: {baseline} / span", f"{ratio:.3g}", "", "")
    for case in record["batched"]:
        size = f"{case['seeds']} seeds N={case['n_examples']} J={case['filters']} {case['dtype']}"
        for what, key in (
            ("GD", "GD_over_products_at_rate"),
            ("products alone", "products_alone_over_rate"),
            ("reading K", "reading_gram_over_rate"),
        ):
            out.add_row(f"{size}: {what} / products at rate", f"{case[key]:.3g}", "", "")
    for case in record["torch_compile"]:
        size = f"{case['seeds']} seeds N={case['n_examples']} J={case['filters']}"
        ratio = case["eager_over_compiled"]
        out.add_row(f"SAM {size}: eager / torch.compile", f"{ratio:.3g}", "", "")
    return out


def machine() -> Json:
    """The processor, its cores, and the threads torch uses."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [row.split(":", 1)[1].strip() for row in file if row.startswith("model name")]
        name = models[0] if models else name
    return {"processor": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
