"""The five arms: how many examples, whose, and what each keeps of its source."""

import pytest
import torch

from common.errors import ParameterError
from sim.arms import ARMS, augmented
from sim.data import DataConfig, generate, sample, upsample


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CONFIG = DataConfig(n_examples=20, dim=30, n_patches=3, alpha=0.8, sigma_noise=0.2)
DATA = sample(CONFIG, rng(), (2,))
SLOW = 4


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("arm", ARMS)
def test_counts_sources_labels_and_features(arm: str, k: int) -> None:
    made = augmented(arm, DATA, k, rng(1))
    more = {
        "original": 0,
        "upsample": (k - 1) * SLOW,
        "tada": (k - 1) * SLOW,
        "syn-rand": (k - 1) * SLOW,
        "syn-all": 20,
    }[arm]
    assert made.n == 20 + more
    assert made.n_original == 20
    assert torch.equal(made.x[:, :20], DATA.x)
    added = made.source[20:]
    assert torch.equal(made.y[:, 20:], DATA.y[:, added])
    assert torch.equal(made.is_fast[20:], DATA.is_fast[added])
    assert torch.equal(made.is_noise[20:], DATA.is_noise[added])
    assert torch.equal(made.x[:, 20:, 0], DATA.x[:, added, 0])
    counts = torch.bincount(added, minlength=20)
    if arm in ("upsample", "tada"):
        assert counts.tolist() == [0] * 16 + [k - 1] * SLOW
    elif arm == "syn-rand":
        assert sorted(counts.tolist()) == [0] * 16 + [k - 1] * SLOW
    elif arm == "syn-all":
        assert counts.tolist() == [1] * 20
    if more:
        fresh = (made.x[:, 20:, 1:] != DATA.x[:, added, 1:])[..., 2:]
        assert fresh.all() if arm != "upsample" else not fresh.any()


def test_arms_are_the_functions_of_data() -> None:
    assert augmented("original", DATA, 3, rng()) is DATA
    assert torch.equal(augmented("upsample", DATA, 3, rng()).x, upsample(DATA, 3).x)
    family = {"sigma_synthetic": 0.05, "fidelity": 0.7, "kept_noise": 0.4}
    made = augmented("tada", DATA, 3, rng(1), **family)
    assert torch.equal(made.x, generate(DATA, 3, rng(1), **family).x)
    for arm in ("syn-rand", "syn-all"):
        made = augmented(arm, DATA, 2, rng(1), **family)
        source = DATA.x[:, made.source[20:]]
        assert torch.allclose(made.x[:, 20:, 0], 0.7 * source[:, :, 0])
        a, b = made.x[:, 20:, 1:, 2:].flatten(), source[:, :, 1:, 2:].flatten()
        assert float(a.std()) == pytest.approx(0.05, rel=0.1)
        assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) == pytest.approx(0.4, abs=0.1)


def test_random_originals_are_uniform_and_follow_the_seed() -> None:
    chosen = [augmented("syn-rand", DATA, 2, rng(s)).source[20:] for s in range(400)]
    counts = torch.bincount(torch.cat(chosen), minlength=20)
    expected = 400 * SLOW / 20
    assert float((counts - expected).abs().max()) < 4 * (expected * 0.8) ** 0.5
    assert all(len(set(c.tolist())) == SLOW for c in chosen)
    again = augmented("syn-rand", DATA, 2, rng(3))
    assert torch.equal(again.source[20:], chosen[3])
    assert torch.equal(again.x, augmented("syn-rand", DATA, 2, rng(3)).x)


@pytest.mark.parametrize("arm", ARMS)
def test_no_slow_example(arm: str) -> None:
    data = sample(DataConfig(n_examples=10, dim=8, alpha=0.99), rng())
    assert augmented(arm, data, 3, rng()).n == (20 if arm == "syn-all" else 10)


def test_bad_parameters() -> None:
    with pytest.raises(ParameterError, match=r"^arm = none: must be one of original, upsample, "):
        augmented("none", DATA, 2, rng())
    for arm in ARMS:
        for k in (0, -1, 1.5):
            with pytest.raises(ParameterError, match=f"^k = {k}: "):
                augmented(arm, DATA, k, rng())  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"^fidelity = 2"):
        augmented("tada", DATA, 2, rng(), fidelity=2.0)
    twice = upsample(DATA, 2)
    for arm in ("upsample", "tada", "syn-rand", "syn-all"):
        with pytest.raises(ParameterError, match=r"^data = 24 examples"):
            augmented(arm, twice, 2, rng())
