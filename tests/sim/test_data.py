"""The data of Definition 3.1, U(k), G(k), and the noise family."""

import math

import pytest
import torch
from torch import Tensor

from sim.data import FAST, SLOW, DataConfig, batch_index, generate, sample, upsample
from theory.parameters import ParameterError


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_of(data) -> Tensor:
    return data.x[..., data.is_noise, :]


@pytest.mark.parametrize("n_patches", [2, 3, 5])
def test_either_variant_has_one_feature_patch_and_noise_off_the_features(n_patches: int) -> None:
    config = DataConfig(n_examples=50, dim=30, n_patches=n_patches)
    data = sample(config, rng())
    assert data.x.shape == (50, n_patches, 30)
    assert int(data.is_fast.sum()) == 40
    assert torch.equal(data.x[data.is_fast, 0, FAST], data.y[data.is_fast])
    slow = ~data.is_fast
    assert torch.allclose(data.x[slow, 0, SLOW], 0.3 * data.y[slow])
    assert int(data.is_noise.sum()) == 50 * (n_patches - 1)
    assert not noise_of(data)[:, :2].any()
    assert set(data.y.tolist()) == {-1.0, 1.0}


def test_both_variant_has_the_slow_feature_in_every_example() -> None:
    data = sample(DataConfig(n_examples=50, dim=30, n_patches=3, variant="both"), rng())
    assert torch.allclose(data.x[:, 0, SLOW], 0.3 * data.y)
    assert torch.equal(data.x[data.is_fast, 1, FAST], data.y[data.is_fast])
    assert data.is_noise.sum(1).tolist() == [1] * 40 + [2] * 10


def test_random_counts_vary_around_alpha() -> None:
    counts = torch.tensor(
        [
            float(sample(DataConfig(200, 5, fixed_counts=False), rng(s)).is_fast.sum())
            for s in range(100)
        ]
    )
    assert abs(float(counts.mean()) - 160) < 4 * math.sqrt(200 * 0.8 * 0.2 / 100)
    assert float(counts.std()) > 3


def test_orthogonal_noise_is_orthogonal_with_gaussian_marginals() -> None:
    config = DataConfig(n_examples=6, dim=12, noise="orthogonal", sigma_noise=0.5, alpha=0.5)
    data = sample(config, rng(), (4000,))
    made = generate(data, 2, rng(1))
    noise = noise_of(made)
    gram = noise @ noise.mT
    off = gram - torch.diag_embed(torch.diagonal(gram, dim1=-2, dim2=-1))
    assert float(off.abs().max()) < 1e-12
    flat = noise[..., 2:] / 0.5
    # second and fourth moments of each coordinate are a Gaussian's: 1 and 3
    for power, expected in ((2, 1.0), (4, 3.0)):
        draws = flat.pow(power).mean((-1, -2))
        error = float(draws.std()) / math.sqrt(len(draws))
        assert abs(float(draws.mean()) - expected) < 4 * error


def test_isotropic_noise_fills_every_coordinate() -> None:
    config = DataConfig(n_examples=400, dim=6, n_patches=3, sigma_noise=0.5, noise="isotropic")
    data = generate(sample(config, rng(), (20,)), 2, rng(1), sigma_synthetic=0.25)
    assert config.noise_from == 0
    originals = (torch.arange(data.n) < 400).unsqueeze(-1)
    for part, sigma in ((originals, 0.5), (~originals, 0.25)):
        noise = data.x[..., data.is_noise & part, :].flatten(0, -2)
        covariance = noise.mT @ noise / len(noise)
        error = 4 * sigma**2 * math.sqrt(2 / len(noise))
        assert float((covariance - sigma**2 * torch.eye(6)).abs().max()) < error
    # features stay clean: their patches have nothing but the feature
    assert torch.equal(data.x[..., data.is_fast, 0, FAST], data.y[..., data.is_fast])
    assert not data.x[..., 0, 2:].any()
    assert DataConfig().noise_from == DataConfig(noise="orthogonal").noise_from == 2


def test_isotropic_noise_is_gaussian_noise_with_two_more_coordinates() -> None:
    kept = generate(
        sample(DataConfig(10, 500, noise="isotropic"), rng()), 2, rng(1), kept_noise=0.5
    )
    fresh, old = kept.x[10:, 1], kept.x[kept.source[10:], 1]
    pair = torch.stack([fresh[:, 2:].flatten(), old[:, 2:].flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(0.5, abs=0.1)
    assert (fresh[:, :2] != 0.5 * old[:, :2]).all()


def test_to_moves_and_converts() -> None:
    data = upsample(sample(DataConfig(n_examples=10, dim=8), rng()), 2)
    single = data.to(dtype=torch.float32)
    assert single.x.dtype == single.y.dtype == torch.float32
    assert torch.equal(single.x, data.x.float())
    assert single.source.dtype == torch.int64
    assert single.is_fast.dtype == single.is_noise.dtype == torch.bool
    assert data.x.dtype == torch.float64
    there = data.to("meta")
    assert {
        getattr(there, name).device.type for name in ("x", "y", "is_fast", "is_noise", "source")
    } == {"meta"}
    assert there.x.dtype == torch.float64
    assert (there.n_original, there.config) == (10, data.config)
    assert torch.equal(data.to("cpu").x, data.x)


@pytest.mark.parametrize("draws", [(3,), ()])
def test_take_other_examples_in_each_batch_dimension(draws: tuple[int, ...]) -> None:
    data = sample(DataConfig(n_examples=10, dim=8), rng(), draws)
    index = torch.randint(0, 10, (3, 4), generator=rng(1))
    taken = data.take(index)
    for b in range(3):
        x, y = (data.x[b], data.y[b]) if draws else (data.x, data.y)
        assert torch.equal(taken.x[b], x[index[b]])
        assert torch.equal(taken.y[b], y[index[b]])
        assert torch.equal(taken.is_fast[b], data.is_fast[index[b]])
        assert torch.equal(taken.is_noise[b], data.is_noise[index[b]])


def test_batches_with_and_without_replacement() -> None:
    without = batch_index(6, 6, rng(), batch=(50,))
    assert torch.equal(without.sort(-1).values, torch.arange(6).expand(50, 6))
    assert without.unique(dim=0).shape[0] > 40
    counts = torch.bincount(batch_index(6, 60_000, rng(), replacement=True))
    assert float((counts - 10_000).abs().max()) < 4 * (60_000 * 5 / 36) ** 0.5
    part = torch.bincount(batch_index(6, 2, rng(), batch=(30_000,)).flatten())
    assert float((part - 10_000).abs().max()) < 4 * (60_000 * 5 / 36) ** 0.5


@pytest.mark.parametrize(("size", "replacement"), [(0, False), (7, False), (0, True), (-1, True)])
def test_bad_batch_size(size: int, replacement: bool) -> None:
    with pytest.raises(ParameterError, match=f"^batch_size = {size}: must be between 1 and 6"):
        batch_index(6, size, rng(), replacement)


def test_upsample_copies_and_links_to_the_source() -> None:
    data = sample(DataConfig(n_examples=10, dim=8), rng())
    up = upsample(data, 4)
    assert up.n == 8 + 4 * 2
    assert up.n_original == 10
    assert torch.equal(up.x, data.x[up.source])
    assert torch.bincount(up.source).tolist() == [1] * 8 + [4] * 2


def test_generate_keeps_label_and_feature_and_draws_fresh_noise() -> None:
    data = sample(DataConfig(n_examples=10, dim=500, sigma_noise=0.2), rng())
    made = generate(data, 3, rng(1), sigma_synthetic=0.4)
    assert made.n == 8 + 3 * 2
    assert torch.equal(made.x[:10], data.x)
    source = made.source[10:]
    assert torch.equal(made.y[10:], data.y[source])
    assert torch.equal(made.x[10:, 0], data.x[source, 0])
    fresh, old = made.x[10:, 1, 2:], data.x[source, 1, 2:]
    assert float(fresh.std()) == pytest.approx(0.4, rel=0.1)
    correlation = torch.corrcoef(torch.stack([fresh.flatten(), old.flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.1


def test_family_endpoints_and_kept_noise() -> None:
    data = sample(DataConfig(n_examples=10, dim=500), rng())
    copied = generate(data, 3, rng(1), kept_noise=1.0)
    assert torch.allclose(copied.x, upsample(data, 3).x)
    half = generate(data, 2, rng(1), kept_noise=0.5, fidelity=0.25)
    source = half.source[10:]
    assert torch.allclose(half.x[10:, 0], 0.25 * data.x[source, 0])
    pair = torch.stack([half.x[10:, 1, 2:].flatten(), data.x[source, 1, 2:].flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(0.5, abs=0.1)


def test_generate_for_chosen_examples() -> None:
    data = sample(DataConfig(n_examples=10, dim=8), rng())
    made = generate(data, 2, rng(1), which=torch.arange(10))
    assert made.source.tolist() == [*range(10), *range(10)]


def test_same_seed_same_data() -> None:
    config = DataConfig(n_examples=10, dim=8)
    assert torch.equal(sample(config, rng(3)).x, sample(config, rng(3)).x)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("alpha", {"alpha": 0.0}),
        ("alpha", {"alpha": 1.0}),
        ("beta_slow", {"beta_slow": 1.0}),
        ("beta_slow", {"beta_slow": 0.0}),
        ("n_patches", {"n_patches": 1}),
        ("n_patches", {"n_patches": 2, "variant": "both"}),
        ("sigma_noise", {"sigma_noise": -1.0}),
        ("n_examples", {"n_examples": 1}),
        ("dim", {"dim": 2}),
        ("variant", {"variant": "neither"}),
        ("noise", {"noise": "pink"}),
    ],
)
def test_bad_config_names_the_parameter(name: str, change: dict) -> None:
    with pytest.raises(ParameterError, match=f"^{name} = ") as caught:
        DataConfig(**change)
    assert "\n" not in str(caught.value)


def test_bad_augmentation_names_the_parameter() -> None:
    data = sample(DataConfig(n_examples=10, dim=8), rng())
    with pytest.raises(ParameterError, match=r"^k = 0"):
        upsample(data, 0)
    with pytest.raises(ParameterError, match=r"^fidelity = 2"):
        generate(data, 2, rng(), fidelity=2.0)
    with pytest.raises(ParameterError, match=r"^data = "):
        upsample(upsample(data, 2), 2)
    with pytest.raises(ParameterError, match=r"^noise = orthogonal"):
        sample(DataConfig(n_examples=10, dim=8, noise="orthogonal"), rng())
