"""Networks: published parameter counts, the sides they take, and parameters from keys alone."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import ParameterError
from common.seeding import seed_for
from empirical.training import networks

OF_TIMM = ("resnet18", "densenet121", "vit-s", "convnext-t", "swin-t")


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def shaped(name: str, channels: int, side: int, n_classes: int) -> nn.Module:
    """The network without memory or numbers."""
    with torch.device("meta"):
        return networks.make(name, channels, side, n_classes)


TIMM = tuple(int(part) for part in importlib.metadata.version("timm").split(".")[:3])
SWIN_28 = ((7, 7, 4, 2), 27_507_268) if TIMM >= (1, 0, 31) else ((7, 7, 3, 1), 27_505_156)
"""Windows at 28 pixels, and parameters: maps of 7x7 are halved to 4x4, which timm once made 3x3."""


# Parameters by hand. Each formula gives the published count with the published arguments, and the
# adapted one with ours.


def conv(inputs: int, outputs: int, size: int, bias: bool = False) -> int:
    return inputs * outputs * size**2 + bias * outputs


def linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def resnet18(channels: int, n_classes: int, stem: int = 3) -> int:
    total = conv(channels, 64, stem) + 2 * 64
    inputs = 64
    for width in (64, 128, 256, 512):
        total += conv(inputs, width, 3) + 3 * conv(width, width, 3) + 4 * 2 * width
        if inputs != width:  # the shortcut
            total += conv(inputs, width, 1) + 2 * width
        inputs = width
    return total + linear(512, n_classes)


def vgg19(channels: int, head: Callable[[], int]) -> int:
    widths = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    body = zip([channels, *widths], widths, strict=False)
    return sum(conv(a, b, 3, bias=True) + 2 * b for a, b in body) + head()


def densenet121(channels: int, n_classes: int, stem: int = 3, stem_norm: int = 0) -> int:
    total, width = conv(channels, 64, stem) + stem_norm, 64
    for block, layers in enumerate((6, 12, 24, 16)):
        for _ in range(layers):
            total += 2 * width + conv(width, 128, 1) + 2 * 128 + conv(128, 32, 3)
            width += 32
        if block < 3:
            total += 2 * width + conv(width, width // 2, 1)
            width //= 2
    return total + 2 * width + linear(width, n_classes)


def vit_s(channels: int, side: int, patch: int, n_classes: int) -> int:
    d = 384
    block = linear(d, 3 * d) + linear(d, d) + linear(d, 4 * d) + linear(4 * d, d) + 2 * 2 * d
    tokens = (side // patch) ** 2 + 1  # the patches and the class token
    return (
        conv(channels, d, patch, bias=True)
        + (tokens + 1) * d  # positions, and the class token itself
        + 12 * block
        + 2 * d
        + linear(d, n_classes)
    )


def convnext_t(channels: int, patch: int, n_classes: int) -> int:
    total, inputs = conv(channels, 96, patch, bias=True) + 2 * 96, 96
    for width, blocks in ((96, 3), (192, 3), (384, 9), (768, 3)):
        if inputs != width:
            total += 2 * inputs + conv(inputs, width, 2, bias=True)
        depthwise = 49 * width + width
        mlp = linear(width, 4 * width) + linear(4 * width, width)
        total += blocks * (depthwise + 2 * width + mlp + width)  # and LayerScale's gamma
        inputs = width
    return total + 2 * 768 + linear(768, n_classes)


def swin_t(channels: int, patch: int, windows: tuple[int, ...], n_classes: int) -> int:
    total = conv(channels, 96, patch, bias=True) + 2 * 96
    for stage, (blocks, heads, window) in enumerate(
        zip((2, 2, 6, 2), (3, 6, 12, 24), windows, strict=True)
    ):
        d = 96 * 2**stage
        if stage > 0:  # merging: four neighbours of the stage before
            total += 2 * 2 * d + 2 * d * d
        attention = linear(d, 3 * d) + linear(d, d) + heads * (2 * window - 1) ** 2
        total += blocks * (attention + linear(d, 4 * d) + linear(4 * d, d) + 2 * 2 * d)
    return total + 2 * 768 + linear(768, n_classes)


def vgg_imagenet_head() -> int:
    return linear(7 * 7 * 512, 4096) + linear(4096, 4096) + linear(4096, 1000)


def test_the_formulas_give_the_published_counts() -> None:
    # torchvision's model pages (num_params), 224 pixels and 1000 classes
    assert resnet18(3, 1000, stem=7) == 11_689_512
    assert vgg19(3, vgg_imagenet_head) == 143_678_248
    assert densenet121(3, 1000, stem=7, stem_norm=2 * 64) == 7_978_856
    assert convnext_t(3, 4, 1000) == 28_589_128
    assert swin_t(3, 4, (7, 7, 7, 7), 1000) == 28_288_354
    # DeiT-S (Touvron et al. 2021, 22M); timm's vit_small_patch16_224 has the same
    assert vit_s(3, 224, 16, 1000) == 22_050_664


@pytest.mark.parametrize(
    ("name", "side", "published", "by_hand"),
    [
        # kuangliu/pytorch-cifar, CIFAR-10
        ("resnet18", 32, 11_173_962, resnet18(3, 10)),
        ("vgg19", 32, 20_040_522, vgg19(3, lambda: linear(512, 10))),
        ("densenet121", 32, 6_956_298, densenet121(3, 10)),
        # adapted here: what our table says
        (
            "conv4",
            32,
            136_930,
            sum(9 * a * b + 2 * b for a, b in ((3, 24), (24, 48), (48, 96), (96, 96)))
            + linear(96, 10),
        ),
        ("small", 32, 87_018, conv(3, 16, 3, True) + conv(16, 32, 3, True) + linear(8192, 10)),
        ("vit-s", 32, 21_342_346, vit_s(3, 32, 4, 10)),
        ("vit-s", 28, 21_336_586, vit_s(3, 28, 4, 10)),
        ("vit-s", 64, 21_397_642, vit_s(3, 64, 8, 10)),
        ("convnext-t", 32, 27_823_498, convnext_t(3, 1, 10)),
        ("convnext-t", 64, 27_824_362, convnext_t(3, 2, 10)),
        ("swin-t", 32, 27_505_108, swin_t(3, 2, (4, 4, 4, 2), 10)),
        ("swin-t", 28, SWIN_28[1], swin_t(3, 2, SWIN_28[0], 10)),
        ("swin-t", 64, 27_508_564, swin_t(3, 4, (4, 4, 4, 2), 10)),
    ],
)
def test_parameter_counts(name: str, side: int, published: int, by_hand: int) -> None:
    assert published == by_hand
    assert count(shaped(name, 3, side, 10)) == published


def test_counts_follow_channels_and_classes() -> None:
    assert count(shaped("resnet18", 1, 28, 100)) == resnet18(1, 100)
    assert count(shaped("vgg19", 1, 28, 100)) == vgg19(1, lambda: linear(512, 100))
    assert count(shaped("densenet121", 1, 28, 100)) == densenet121(1, 100)
    assert count(shaped("vit-s", 1, 28, 100)) == vit_s(1, 28, 4, 100)
    assert count(shaped("convnext-t", 1, 28, 100)) == convnext_t(1, 1, 100)
    assert count(shaped("swin-t", 1, 28, 100)) == swin_t(1, 2, SWIN_28[0], 100)


@pytest.mark.parametrize(
    ("name", "maps"),  # the last maps, at sides of 8, 28, 32 and 64
    [
        ("resnet18", (1, 4, 4, 8)),
        ("vgg19", (1, 1, 1, 2)),
        ("densenet121", (1, 3, 4, 8)),
        ("vit-s", (8, 7, 8, 8)),
        ("convnext-t", (1, 3, 4, 4)),
        ("swin-t", (1, 2, 2, 2)),
    ],
)
def test_maps_are_neither_lost_nor_left_large(name: str, maps: tuple[int, ...]) -> None:
    for side, expected in zip((8, 28, 32, 64), maps, strict=True):
        network: Any = shaped(name, 3, side, 10)
        x = torch.empty(2, 3, side, side, device="meta")
        assert network(x).shape == (2, 10)
        if name == "vgg19":
            last = network[:-3](x)
            assert last.shape[2:] == (expected, expected)
        elif name == "vit-s":
            assert network.forward_features(x).shape[1] == expected**2 + 1
        else:
            last = network.forward_features(x)
            last = last.movedim(-1, 1) if name == "swin-t" else last
            assert last.shape[2:] == (expected, expected)


@pytest.mark.parametrize("name", networks.names())
def test_every_network_learns_with_all_of_it(name: str) -> None:
    """A forward and a backward pass reach every parameter; the head's input is `penultimate`."""
    network = networks.build(name, 1, 8, 3, ("learns",))
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network.eval()
    logits = network(x)
    hidden = networks.penultimate(network, x)
    body: Any = network
    head = body[-1] if isinstance(body, nn.Sequential) else body.get_classifier()
    assert hidden.shape == (4, head.in_features)
    torch.testing.assert_close(head(hidden), logits)
    network.train()(x).square().sum().backward()
    for own, parameter in network.named_parameters():
        assert parameter.grad is not None, own
        assert parameter.grad.isfinite().all(), own


def test_training_mode_draws_nothing() -> None:
    """No dropout and no stochastic depth: SAM's two gradients are of one function."""
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for name in networks.names():
        network = networks.build(name, 3, 8, 10, ("draws",)).train()
        before = torch.get_rng_state()
        assert torch.equal(network(x), network(x)), name
        assert torch.equal(before, torch.get_rng_state()), name


def test_residual_branches_start_at_full_scale() -> None:
    network: Any = networks.build("resnet18", 3, 8, 10, ("scale",))
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        assert all((block.bn2.weight == 1).all() for block in stage)
    std = network.conv1.weight.std().item()  # He et al. 2015, fan out: sqrt(2 / (9 * 64))
    assert std == pytest.approx((2 / 576) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", ["small", "resnet18", "vit-s", "timm:resnet10t"])
def test_parameters_depend_on_the_key_alone(name: str) -> None:
    before = torch.get_rng_state()
    first = networks.build(name, 3, 8, 4, ("network", 1)).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    again = networks.build(name, 3, 8, 4, ("network", 1)).state_dict()
    other = networks.build(name, 3, 8, 4, ("network", 2)).state_dict()
    torch.set_rng_state(before)
    assert first.keys() == again.keys()
    assert all(torch.equal(value, again[own]) for own, value in first.items())
    matrices = [own for own, value in first.items() if value.ndim > 1 and value.std() > 0]
    assert matrices
    assert not any(torch.equal(first[own], other[own]) for own in matrices)


def test_a_network_is_what_its_seed_makes_it() -> None:
    key = ("network", "digits", 0, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(*key))
        expected = networks.make("small", 1, 8, 10).state_dict()
    own = networks.build("small", 1, 8, 10, key).state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in own.items())


def test_any_network_of_timm() -> None:
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for name in ("timm:resnet10t", "timm:vit_tiny_patch16_224"):  # the second is told the side
        network = networks.make(name, 1, 28, 5)
        assert network.training
        assert network.eval()(x).shape == (2, 5)
        assert networks.penultimate(network, x).ndim == 2


def test_a_wrapper_is_passed_by() -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    network = networks.build("small", 1, 8, 10, ("wrapped",))
    x = torch.ones(2, 1, 8, 8)
    assert torch.equal(networks.penultimate(Wrapper(network), x), networks.penultimate(network, x))


@pytest.mark.parametrize(
    ("name", "side", "line"),
    [
        ("resnet", 32, "network = resnet: must be small, conv4, resnet18, "),
        ("timm:resnet18.", 32, "network = timm:resnet18.: must be timm:resnet18, "),
        ("timm:resnet18.nosuch", 32, "network = timm:resnet18.nosuch: must be timm:resnet18, "),
        (
            *("timm:resnet10t.c3_in1", 32),
            "network = timm:resnet10t.c3_in1: must be timm:resnet10t (near: c3_in1k)",
        ),
        (
            *("timm:resnet17", 32),
            "network = timm:resnet17: must be timm: and one of timm.list_models() (near: resnet",
        ),
        (
            *("resnet81", 32),
            "network = resnet81: must be small, conv4, resnet18, vgg19, densenet121, vit-s, "
            "convnext-t, swin-t, timm:NAME, torchvision:NAME or python:MODULE:FUNCTION "
            "(near: resnet18",
        ),
        ("timm:", 32, "network = timm:: must be timm: and one of "),
        ("vit-s", 31, "side = 31: must be a number with a divisor from 4 to 16, such as 28 or 32"),
        ("swin-t", 21, "side = 21: must be a number with an even divisor from 8 to 32, "),
        ("convnext-t", 67, "side = 67: must be a number with a divisor from 16 to 64, "),
        ("small", 0, "side = 0: must be at least 1"),
        ("timm:inception_v3", 28, "side = 28: must be one that timm:inception_v3 takes ("),
        ("timm:vit_tiny_patch16_224", 8, "side = 8: must be one that timm:vit_tiny_patch16_224 "),
    ],
)
def test_refusals(name: str, side: int, line: str) -> None:
    with pytest.raises(ParameterError) as error:
        networks.make(name, 3, side, 10)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_what_the_last_layer_of_any_network_is_given() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(2 * x)

    mine = Mine()
    assert networks.penultimate(mine, torch.ones(1, 2)).tolist() == [[2, 2]]
    assert networks.classifier(mine) is mine.last
    with pytest.raises(ParameterError, match="network = ReLU: must be one whose last layer is"):
        networks.penultimate(nn.ReLU(), torch.ones(1, 2))


def test_a_function_of_yours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n\n"
        "def mine(channels, side, n_classes):\n"
        "    size = channels * side**2\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(size, n_classes))\n\n"
        "def wrong(channels, side, n_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, 7))\n"
    )
    monkeypatch.chdir(tmp_path)
    found = networks.build("python:my_networks:mine", 3, 4, 2, ("key",))
    assert found(torch.ones(5, 3, 4, 4)).shape == (5, 2)
    again = networks.build("python:my_networks:mine", 3, 4, 2, ("key",))
    assert torch.equal(found[1].weight, again[1].weight)  # type: ignore[index]
    for name, said in (
        ("my_networks:wrong", r"whose outputs are \(images, 2\), not \(2, 7\)"),
        ("my_networks:nothing", "AttributeError"),
        ("no_such_networks:mine", "ModuleNotFoundError"),
    ):
        with pytest.raises(ParameterError, match=said):
            networks.make(f"python:{name}", 3, 4, 2)


def test_networks_of_torchvision() -> None:
    found = networks.build("torchvision:resnet18", 3, 32, 5, ("key",))
    assert found.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert networks.penultimate(found, torch.zeros(2, 3, 32, 32)).shape == (2, 512)
    with pytest.raises(ParameterError, match="near: resnet18"):
        networks.make("torchvision:resnet19", 3, 32, 5)
    with pytest.raises(ParameterError, match="images of 1 channels"):
        networks.make("torchvision:resnet18", 1, 32, 5)


def test_weights_are_loaded_or_missed_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="conv4 has no weights"):
        networks.make("conv4", 3, 32, 5, pretrained=True)

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.get_model", offline)
    for name in ("torchvision:resnet18", "timm:resnet18"):
        if name.startswith("timm"):
            monkeypatch.setattr("timm.create_model", offline)
        with pytest.raises(ParameterError, match=r"on this machine, or can be downloaded \(no net"):
            networks.make(name, 3, 32, 5, pretrained=True)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(module: str, *more: Any) -> Any:
        if module == "timm":
            raise ModuleNotFoundError(module)
        return real(module, *more)

    monkeypatch.setattr(importlib, "import_module", without)
    for name in (*OF_TIMM, "timm:resnet18"):
        with pytest.raises(ParameterError) as error:
            networks.make(name, 3, 32, 10)
        assert "pip install timm" in str(error.value)
    for name in set(networks.names()) - set(OF_TIMM):
        networks.make(name, 3, 8, 10)
