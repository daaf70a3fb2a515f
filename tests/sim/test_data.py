"""The data of Definition 3.1, U(k), G(k), and the noise family."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from common.errors import ParameterError
from sim.data import FAST, SLOW, DataConfig, batch_index, generate, sample, upsample
from sim.measure import fresh_errors
from sim.network import Activation, init
from sim.train import prepare, train


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


def test_wrong_labels_are_exact_shares_at_random_places() -> None:
    config = DataConfig(n_examples=20, dim=8, label_noise=0.25, label_noise_slow=0.5)
    data = sample(config, rng(), (4000,))
    true = data.x[..., 0, :2].sum(-1).sign()
    wrong = (data.y != true).double()
    assert (wrong[:, :16].sum(1) == 4).all()
    assert (wrong[:, 16:].sum(1) == 2).all()
    share = wrong.mean(0)
    expected = torch.tensor([0.25] * 16 + [0.5] * 4).double()
    assert float((share - expected).abs().max()) < 4 * math.sqrt(0.25 / 4000)
    # pairs of one kind are drawn without replacement: 2 of 4 are both wrong with probability 1/6
    assert float((wrong[:, 16] * wrong[:, 17]).mean()) == pytest.approx(1 / 6, abs=0.025)
    same = sample(DataConfig(n_examples=20, dim=8, label_noise=0.25), rng(), (10,))
    assert ((same.y != same.x[..., 0, :2].sum(-1).sign())[:, 16:].sum(1) == 1).all()


def test_wrong_labels_change_nothing_else() -> None:
    clean = sample(DataConfig(n_examples=20, dim=8), rng(), (3,))
    noisy = sample(DataConfig(n_examples=20, dim=8, label_noise=0.5), rng(), (3,))
    assert torch.equal(clean.x, noisy.x)
    assert int((clean.y != noisy.y).sum()) == 3 * 10


def test_independent_wrong_labels() -> None:
    config = DataConfig(
        n_examples=5000, dim=4, label_noise=0.1, label_noise_slow=0.4, fixed_counts=False
    )
    data = sample(config, rng())
    wrong = (data.y != data.x[..., 0, :2].sum(-1).sign()).double()
    for share, group in ((0.1, data.is_fast), (0.4, ~data.is_fast)):
        error = math.sqrt(share * (1 - share) / int(group.sum()))
        assert abs(float(wrong[group].mean()) - share) < 4 * error
    assert int(wrong.sum()) != round(0.1 * 4000 + 0.4 * 1000)


def test_synthetic_examples_keep_the_given_label_and_the_feature_patch() -> None:
    config = DataConfig(n_examples=20, dim=500, alpha=0.5, label_noise=0.3)
    data = sample(config, rng())
    for augmented in (upsample(data, 3), generate(data, 3, rng(1))):
        assert torch.equal(augmented.y, data.y[augmented.source])
        assert torch.equal(augmented.x[:, 0], data.x[augmented.source, 0])


@pytest.mark.parametrize("activation", [Activation(), Activation(4), Activation(3, True)])
@pytest.mark.parametrize("backend", ["dense", "span"])
def test_training_uses_the_given_labels(backend: str, activation: Activation) -> None:
    config = DataConfig(n_examples=12, dim=20, alpha=0.5, label_noise=0.4, positive=0.8)
    data = generate(sample(config, rng()), 2, rng(1))
    W = init(3, 20, 0.5, rng(2)).requires_grad_()
    f = activation.slope(data.x @ W.mT) * (data.x @ W.mT)
    softplus(-data.y * f.sum((-1, -2))).mean().backward()
    moved = train(prepare(W.detach(), data, activation, backend), lr=0.1, steps=1).W
    assert W.grad is not None
    assert torch.allclose((W - moved) / 0.1, W.grad, atol=1e-12)


def test_fresh_errors_are_on_true_labels_with_the_share_of_positive_ones() -> None:
    W = init(3, 8, 0.3, rng(1))
    config = DataConfig(dim=8, positive=0.8, label_noise=0.3)
    found = fresh_errors(W[:, :2], W[:, 2:] @ W[:, 2:].mT, config, 4000, rng(), Activation(2))
    # outputs of an even power are positive: right on positive labels alone
    assert float(found["all"]) == pytest.approx(0.2, abs=4 * 0.4 / 4000**0.5)


def test_share_of_positive_labels() -> None:
    for share in (0.0, 0.3, 0.9, 1.0):
        y = sample(DataConfig(n_examples=10, dim=4, positive=share), rng(), (1000,)).y
        error = math.sqrt(share * (1 - share) / 10_000)
        assert abs(float((y > 0).double().mean()) - share) <= 4 * error


@pytest.mark.parametrize(
    ("noise", "total"),
    [
        ("gaussian", 4771.785435558365),
        ("orthogonal", 3373.444456356712),
        ("isotropic", 3801.509482452193),
    ],
)
def test_default_draws_are_those_of_earlier_versions(noise: str, total: float) -> None:
    data = sample(DataConfig(n_examples=10, dim=14, noise=noise), rng(3), (2,))
    weights = torch.arange(data.x.numel()).view(data.x.shape) * data.y[..., None, None]
    assert float((data.x * weights).sum()) == pytest.approx(total, rel=1e-9)


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
        ("label_noise", {"label_noise": 1.5}),
        ("label_noise_slow", {"label_noise_slow": -0.1}),
        ("positive", {"positive": 2.0}),
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
