"""Networks by name, in the forms that suit images of 8 to 64 pixels.

| name | form | parameters, 3x32x32, 10 classes |
|---|---|---|
| small | two convolutions and a linear layer, no norm | 87,018 |
| conv4 | four convolutions with batch norm, average over places | 136,930 |
| resnet18 | stem 3x3 of stride 1 and no max-pool, as kuangliu/pytorch-cifar | 11,173,962 |
| vgg19 | batch norm and one linear layer, as kuangliu/pytorch-cifar | 20,040,522 |
| densenet121 | growth 32, a bare 3x3 stem, as kuangliu/pytorch-cifar's DenseNet121 | 6,956,298 |
| vit-s | ViT-S/4: about 8x8 patches at any side | 21,342,346 |
| convnext-t | ConvNeXt-T, stem of stride 1: maps of about 32x32, 16x16, 8x8 and 4x4 | 27,823,498 |
| swin-t | Swin-T, patches of 2 and windows of 4: maps of 16x16, 8x8, 4x4 and 2x2 | 27,505,108 |
| timm:NAME, torchvision:NAME | any network of these libraries as it is | |
| python:MODULE:FUNCTION | yours: function(channels, side, n_classes) gives a module | |

Layers are those of timm, but for `small` and `vgg19`. Nothing here drops anything out (`timm:NAME`
is up to timm): SAM compares two gradients of one function. The three networks of 2015 to 2017 are
initialised as timm does (He et al. 2015), but ResNet's residual branches start at full scale as in
kuangliu/pytorch-cifar, not at zero: what is learned in the first epochs is what is measured.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import MissingDependencyError, ParameterError, near, require
from common.seeding import seed_for


def small(channels: int, side: int, n_classes: int) -> nn.Module:
    """Two 3x3 convolutions (16 and 32 channels, strides 1 and 2) and a linear layer.

    On the validation images of 8x8 digits a third one with 64 channels was worse (11.3% against
    9.7% error) and twice as slow. No batch norm: its batch statistics would take in the padding
    of batches that are trained together, and differ between SAM's two gradients.
    """
    layers: list[nn.Module] = []
    for width, stride in ((16, 1), (32, 2)):
        layers += [nn.Conv2d(channels, width, 3, stride=stride, padding=1), nn.ReLU()]
        channels, side = width, -(-side // stride)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, n_classes))


def conv4(channels: int, side: int, n_classes: int) -> nn.Module:
    """Four 3x3 convolutions with batch norm (24, 48, 96, 96 channels) and an average over places.

    For a CPU: it finds small patterns wherever they are, as the planted ones, in a few epochs.
    """
    layers: list[nn.Module] = []
    for width, stride in ((24, 1), (48, 2), (96, 2), (96, 1)):
        convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        layers += [_he(convolution), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *pooled, nn.Linear(channels, n_classes))


def resnet18(channels: int, side: int, n_classes: int) -> nn.Module:
    """ResNet-18 (He et al. 2016) with a 3x3 stem of stride 1 and no max-pool: an eighth of side."""
    network = _timm(
        "resnet18", num_classes=n_classes, in_chans=channels, zero_init_last=False
    )  # on CIFAR the usual one; timm's ends every residual branch with a batch norm of weight 0
    network.conv1 = _he(nn.Conv2d(channels, 64, 3, padding=1, bias=False))
    network.maxpool = nn.Identity()
    return network


def vgg19(channels: int, side: int, n_classes: int) -> nn.Module:
    """VGG-19 (Simonyan and Zisserman 2015) with batch norm and one linear layer.

    timm has the form for 224 pixels only, with 124 million parameters in two more linear layers.
    Max-pools round up, which changes nothing at 32 or 64 pixels and keeps a map at smaller sides.
    """
    layers: list[nn.Module] = []
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            convolution = _he(nn.Conv2d(channels, width, 3, padding=1))
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    head = nn.Linear(channels, n_classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def densenet121(channels: int, side: int, n_classes: int) -> nn.Module:
    """DenseNet-121 (Huang et al. 2017), stem 3x3 of stride 1 without norm or pool: side / 8.

    Every dense layer begins with a batch norm, hence none in the stem.
    """
    network = _timm("densenet121", num_classes=n_classes, in_chans=channels)
    network.features.conv0 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.features.conv0.weight)
    network.features.norm0 = nn.Identity()
    network.features.pool0 = nn.Identity()
    return network


def vit_s(channels: int, side: int, n_classes: int) -> nn.Module:
    """ViT-S (Touvron et al. 2021: width 384, 12 blocks, 6 heads) on about 8x8 patches.

    Patches of 1, 4, 4 and 8 pixels at sides of 8, 28, 32 and 64.
    Raises ParameterError for a side which does not divide into 4 to 16 patches, such as 31.
    """
    return _timm(
        "vit_small_patch16_224",
        num_classes=n_classes,
        in_chans=channels,
        img_size=side,
        patch_size=_patch(side, 8),
    )


def convnext_t(channels: int, side: int, n_classes: int) -> nn.Module:
    """ConvNeXt-T (Liu et al. 2022); the stem keeps about 32x32 of the pixels, at 64 every other."""
    network = _timm("convnext_tiny", num_classes=n_classes, in_chans=channels)
    patch = _patch(side, 32)
    network.stem[0] = nn.Conv2d(channels, 96, patch, stride=patch)
    nn.init.trunc_normal_(network.stem[0].weight, std=0.02)
    nn.init.zeros_(network.stem[0].bias)
    return network


def swin_t(channels: int, side: int, n_classes: int) -> nn.Module:
    """Swin-T (Liu et al. 2021) on about 16x16 patches, without stochastic depth.

    Windows are a quarter of that (half of it below 16), so that they cut the maps of the first
    two stages without padding: 4 at sides of 8, 32 and 64, and 7 at 28, whose patches are 14x14.
    Raises ParameterError for a side without an even number of patches from 8 to 32.
    """
    patch = _patch(side, 16, even=True)
    grid = side // patch
    return _timm(
        "swin_tiny_patch4_window7_224",
        num_classes=n_classes,
        in_chans=channels,
        img_size=side,
        patch_size=patch,
        window_size=grid // 4 if grid >= 16 and grid % 4 == 0 else grid // 2,
        drop_path_rate=0.0,
    )


Maker = Callable[[int, int, int], nn.Module]
_NETWORKS: dict[str, Maker] = {
    "small": small,
    "conv4": conv4,
    "resnet18": resnet18,
    "vgg19": vgg19,
    "densenet121": densenet121,
    "vit-s": vit_s,
    "convnext-t": convnext_t,
    "swin-t": swin_t,
}
_PREFIX, _VISION, _OWN = "timm:", "torchvision:", "python:"


def names() -> tuple[str, ...]:
    """The names that `make` takes, beside timm:NAME."""
    return tuple(_NETWORKS)


def make(
    name: str, channels: int, side: int, n_classes: int, pretrained: bool = False
) -> nn.Module:
    """A network by name, for square images of `side` pixels: (n, channels, side, side) to logits.

    Its parameters come from torch's global random stream; `build` takes a key instead. pretrained:
    with the library's weights (timm:, torchvision:), all but the last layer.

    Raises:
        ParameterError: an unknown name, a side that the network cannot be shaped for, no timm; or
            weights that are neither on this machine nor can be downloaded.
    """
    require(
        not pretrained or name.startswith((_PREFIX, _VISION)),
        "pretrained",
        True,
        f"given with a timm:NAME or torchvision:NAME network: {name} has no weights",
    )
    if name.startswith(_PREFIX):
        return _any_of_timm(name.removeprefix(_PREFIX), channels, side, n_classes, pretrained)
    if name.startswith(_VISION):
        given = (name.removeprefix(_VISION), channels, side, n_classes, pretrained)
        return _any_of_torchvision(*given)
    if name.startswith(_OWN):
        return _of_yours(name, channels, side, n_classes)
    others = "timm:NAME, torchvision:NAME or python:MODULE:FUNCTION"
    allowed = f"{', '.join(_NETWORKS)}, {others}{near(name, _NETWORKS)}"
    require(name in _NETWORKS, "network", name, allowed)
    require(side >= 1, "side", side, "at least 1")
    return _NETWORKS[name](channels, side, n_classes)


def build(
    name: str,
    channels: int,
    side: int,
    n_classes: int,
    key: tuple[str | int, ...],
    pretrained: bool = False,
) -> nn.Module:
    """`make` with parameters from the random stream of `key`, on the CPU.

    Depends on nothing else, and leaves torch's global random streams as they were.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # not torch.manual_seed, which would seed the streams of GPUs too
        torch.default_generator.manual_seed(seed_for(*key))
        return make(name, channels, side, n_classes, pretrained)


def classifier(network: nn.Module) -> nn.Linear:
    """The last linear layer of a network. Raises ParameterError where there is none."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    allowed = "one whose last layer is linear"
    require(len(layers) > 0, "network", type(network).__name__, allowed)
    return layers[-1]


def penultimate(network: nn.Module, x: Tensor) -> Tensor:
    """What the last linear layer of a network made here is given, (n, d), for x of (n, C, H, W).

    Gradients, autocast and train or eval mode are the caller's. A DistributedDataParallel wrapper
    is passed by.
    """
    network = getattr(network, "module", network)
    if isinstance(network, nn.Sequential):
        return network[:-1](x)
    if hasattr(network, "forward_head"):
        head: Any = network
        return head.forward_head(head.forward_features(x), pre_logits=True).flatten(1)
    given: list[Tensor] = []
    hook = classifier(network).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        network(x)
    finally:
        hook.remove()
    return given[-1].flatten(1)


def _patch(side: int, patches: int, even: bool = False) -> int:
    """The patch that divides `side` into a number nearest to `patches`; a tie takes more patches.

    Never more than twice as many, and not below half as many unless a patch is one pixel.
    """
    step = 2 if even else 1
    fitting = [
        patch
        for patch in range(1, side + 1)
        if side % (step * patch) == 0
        and side <= 2 * patches * patch
        and (2 * side >= patches * patch or patch == 1)
    ]
    if not fitting:
        kind = "an even divisor" if even else "a divisor"
        allowed = f"a number with {kind} from {patches // 2} to {2 * patches}, such as 28 or 32"
        raise ParameterError("side", side, allowed)
    return min(fitting, key=lambda patch: (abs(side // patch - patches), patch))


def _of_yours(name: str, channels: int, side: int, n_classes: int) -> nn.Module:
    """What python:MODULE:FUNCTION gives, tried on one image."""
    module_name, _, attribute = name.removeprefix(_OWN).partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        network = getattr(importlib.import_module(module_name), attribute)(
            channels, side, n_classes
        )
        device = next(network.parameters()).device
        with torch.no_grad():
            logits = network.eval()(torch.zeros(2, channels, side, side, device=device))
    except Exception as error:  # whatever somebody else's code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ParameterError("network", name, f"one that works here ({reason})") from error
    shape = tuple(getattr(logits, "shape", ()))
    allowed = f"one whose outputs are (images, {n_classes}), not {shape} of 2 images"
    require(shape == (2, n_classes), "network", name, allowed)
    return network.train()


def _any_of_torchvision(
    name: str, channels: int, side: int, n_classes: int, pretrained: bool
) -> nn.Module:
    """A network of torchvision as it is, with a last layer for these classes."""
    from torchvision import models

    known = models.list_models(module=models)
    allowed = f"torchvision: and one of torchvision.models.list_models(){near(name, known)}"
    require(name in known, "network", _VISION + name, allowed)
    coloured = f"timm:NAME for images of {channels} channels: those of torchvision take 3"
    require(channels == 3, "network", _VISION + name, coloured)
    try:
        network = models.get_model(name, weights="DEFAULT" if pretrained else None)
    except OSError as error:
        raise _no_weights(_VISION + name, error) from error
    last = classifier(network)
    fresh = nn.Linear(last.in_features, n_classes)
    for path, layer in network.named_modules():
        if layer is last:
            parent, _, own = path.rpartition(".")
            setattr(network.get_submodule(parent), own, fresh)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, channels, side, side, device=fresh.weight.device))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ParameterError("side", side, f"one that {_VISION}{name} takes ({reason})") from None
    return network.train()


def _no_weights(name: str, error: Exception) -> ParameterError:
    reason = " ".join(str(error).split())[:160]
    allowed = f"one whose weights are on this machine, or can be downloaded ({reason})"
    return ParameterError("network", name, allowed)


def _any_of_timm(
    name: str, channels: int, side: int, n_classes: int, pretrained: bool = False
) -> nn.Module:
    """A network of timm as it is; only those which need it are told the side."""
    timm = _library()
    architecture, dot, tag = name.partition(".")
    if not timm.is_model(architecture):
        hint = near(architecture, timm.list_models())
        raise ParameterError(
            "network", _PREFIX + name, f"timm: and one of timm.list_models(){hint}"
        )
    if dot:  # the name of trained weights, which are not loaded, but have a configuration
        tags = timm.list_pretrained(f"{architecture}.*")
        known = [found.partition(".")[2] for found in tags]
        some = f", {len(known)} tags like {known[0]}" if known else ", which has no tags"
        allowed = f"{_PREFIX}{architecture}{near(tag, known) or some}"
        require(tag in known, "network", _PREFIX + name, allowed)
    fixed = timm.models.get_pretrained_cfg_value(name, "fixed_input_size")
    options = {"img_size": side} if fixed else {}
    try:
        if pretrained:
            options["pretrained"] = True
        network = _timm(name, num_classes=n_classes, in_chans=channels, **options)
        # many networks for 224 pixels find out in their first pass only that too little is left
        with torch.no_grad():
            network.eval()(torch.zeros(1, channels, side, side))
    except OSError as error:
        raise _no_weights(_PREFIX + name, error) from error
    except (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ParameterError("side", side, f"one that {_PREFIX}{name} takes ({reason})") from None
    return network.train()


def _timm(name: str, **options: Any) -> Any:
    """A network of timm, without weights from elsewhere unless they are asked for."""
    return _library().create_model(name, **({"pretrained": False} | options))


def _library() -> Any:
    # imported when needed: it takes seconds, and `small` does without
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise MissingDependencyError("this network", "timm", "pip install timm") from None


def _he(convolution: nn.Conv2d) -> nn.Conv2d:
    """He et al. 2015, as timm and torchvision do for ResNet and VGG."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution
