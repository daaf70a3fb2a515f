"""What survives of a whole run: other activations, wrong labels, more patches, isotropic noise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from common.plotting import BLUE, GREEN, GREY, ORANGE, RED, canvas, plain_log
from common.seeding import torch_stream
from sim.backends.span import Span
from sim.data import SLOW, DataConfig
from sim.figures.base import FILTERS, WORLD, Figure, Json, K, Part, band, draw, numbers, together
from sim.network import CUBE, Activation
from sim.train import Point, train
from theory.amplification import memorisation_ratio

_SEEDS, _PAIRS, _ARMS = 10, 1000, ("upsample", "tada")
_RATIOS = [0.5, 1.0, 1.7, 2.5, 3.5, 5.0, 7.0, 12.0]


@dataclass(frozen=True)
class _Case:
    """A network and data, and how it is trained; the noise is set by (E4)."""

    name: str
    color: str
    activation: Activation = CUBE
    sigma_init: float = 0.05
    lr: float = 0.4
    steps: int = 800
    change: Json = field(default_factory=dict)

    @property
    def config(self) -> DataConfig:
        return replace(WORLD, **self.change)


# Larger powers start slowly (the growth is u^(q−1)): they begin with larger filters.
_POWERS = (
    _Case("$z^3$", BLUE),
    _Case("$z^5$", GREEN, Activation(5), 0.15, 1.0, 1200),
    _Case("ReLU$^2$", ORANGE, Activation(2, True), steps=400),
    _Case("ReLU$^3$", RED, Activation(3, True), steps=1200),
    _Case("ReLU$^4$", GREY, Activation(4, True), 0.15, 1.0, 1000),
)
_DATA = (
    _Case("10% wrong", ORANGE, change={"label_noise": 0.1}),
    _Case("20% wrong", RED, change={"label_noise": 0.2}),
    _Case("80% positive", GREY, change={"positive": 0.8}),
    _Case("isotropic", GREEN, change={"noise": "isotropic"}),
    _Case("3 patches", BLUE, change={"n_patches": 3}),
)


def _run(seed: int, arm: str, group: str, index: int) -> Json:
    """AUC of slow fresh examples after training, at each ratio of learning times of (E4)."""
    case = (_POWERS if group == "powers" else _DATA)[index]
    config, activation = case.config, case.activation
    start = draw(seed, config, FILTERS, case.sigma_init, _SEEDS)
    reference = memorisation_ratio(
        config.sigma_noise,
        config.dim,
        config.alpha,
        config.n_examples,
        config.beta_slow,
        activation.power,
        activation.rectified,
        config.wrong_slow,
    )
    # the ratio goes with sigma^q
    factor = (torch.tensor(_RATIOS) / reference).pow(1 / activation.power).unsqueeze(-1)
    space = Span.of(start.arm(arm), start.W, activation).rescaled(factor, factor)
    end = train(space, case.lr, case.steps).end
    auc = separation(end, config, activation, factor * config.sigma_noise, torch_stream(seed, 4))
    return {f"{group} {arm} {index}": band(auc) | {"all": numbers(auc)}}


def separation(
    end: Point, config: DataConfig, activation: Activation, sigma: Tensor, g: torch.Generator
) -> Tensor:
    """AUC of the outputs on slow fresh examples, label +1 against −1, (...); 1/2 is chance.

    Unlike the error it needs no threshold: outputs of ReLU^q are never negative. sigma: of the
    noise, broadcasting to (...).
    """
    values, vectors = torch.linalg.eigh(end.covariance)
    root = vectors * (values.clamp_min(0).sqrt() * sigma.unsqueeze(-1)).unsqueeze(-2)
    along = config.beta_slow * end.features[..., None, :, SLOW]
    outputs = []
    for label in (1, -1):
        h = [label * along]
        for _ in range(config.n_patches - 1):
            z = torch.randn(_PAIRS, root.shape[-1], generator=g, dtype=root.dtype)
            h.append(z @ root.mT)
        outputs.append(sum((activation.slope(x) * x).sum(-1) for x in h))
    positive, negative = outputs
    wins = (positive > negative).double() + (positive == negative).double() / 2
    return wins.mean(-1)


def _draw(data: Json) -> Canvas:
    figure, axes = canvas(10.2, 3.1, ncols=3, sharey=True)
    panels = (("powers", "upsample"), ("powers", "tada"), ("data", "tada"))
    for ax, (group, arm) in zip(axes, panels, strict=True):
        for index, case in enumerate(_POWERS if group == "powers" else _DATA):
            found = data[f"{group} {arm} {index}"]
            error = [2 * e for e in found["standard_error"]]
            how = {"color": case.color, "marker": ".", "lw": 1.2, "elinewidth": 0.6}
            ax.errorbar(_RATIOS, found["mean"], error, label=case.name, **how)
            if group == "data":
                copies = data[f"{group} upsample {index}"]["mean"]
                ax.plot(_RATIOS, copies, color=case.color, lw=0.9, ls=":")
        ax.axvline(K if arm == "tada" else 1, color="black", lw=0.7, ls="--")
        ax.axhline(0.5, color=GREY, lw=0.6)
        plain_log(ax.xaxis, [0.5, 1, 2, 5, 10])
        ax.set_xlabel("time of slow feature / of its noise in U (E4)")
        ax.legend(loc="upper right")
    axes[0].set_title(f"U({K}): powers and ReLU")
    axes[1].set_title(f"G({K}): powers and ReLU")
    axes[2].set_title(f"G({K}), dotted U({K}): cube, other data")
    axes[0].set_ylabel("AUC of slow fresh examples")
    axes[0].set_ylim(0.45, 1.05)
    return figure


FIGURES = (
    Figure(
        "activations",
        "Generation learns the slow feature, and upsampling memorises, between the dashed lines of "
        "(E4), for other activations, wrong labels, unequal classes, other noise, more patches.",
        {
            "data": WORLD,
            "filters": FILTERS,
            "k": K,
            "seeds": _SEEDS,
            "ratios": _RATIOS,
            "pairs": _PAIRS,
            "cases": [
                {
                    "name": case.name,
                    "power": case.activation.power,
                    "rectified": case.activation.rectified,
                    "sigma_init": case.sigma_init,
                    "lr": case.lr,
                    "steps": case.steps,
                    **case.change,
                }
                for case in (*_POWERS, *_DATA)
            ],
        },
        [
            Part(_run, (arm, group, index))
            for group in ("powers", "data")
            for index in range(5)
            for arm in _ARMS
        ],
        together,
        _draw,
    ),
)
