"""A narrower, shallower network made of a trained one's strongest channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regionnorm.models.base import InpaintingModel
from regionnorm.models.rn import RNGenerator

__all__ = ["narrow"]

_FREE = {"width", "blocks"}  # options that may differ


def narrow(network: InpaintingModel, wider: InpaintingModel) -> None:
    """Give a network the strongest channels, and some of the blocks, of a trained one.

    A channel counts as much as the squared weights by which the layers behind it listen to it. The
    residual blocks are spread evenly, the first among them. What is left has to be trained on:
    right after the cut it hardly beats its prefill, and a few hundred steps bring most of it back.

    Args:
        network: The one to fill; ``width`` and ``blocks`` at most the other's, all else the same.
        wider: Where to take parameters and running averages from.

    Raises:
        ValueError: One of them is no RN generator, the other is not wider and deeper, or another
            option differs.
    """
    if not (isinstance(network, RNGenerator) and isinstance(wider, RNGenerator)):
        raise ValueError(
            f"{network.name!r} cannot be cut from {wider.name!r}: both must be RN generators"
        )
    _check(network, wider)
    layers = _layers(network, wider)
    kept = _strongest(layers, _width(network), _width(wider))
    with torch.no_grad():
        for layer in layers:
            theirs = layer.source.state_dict()
            for name, value in layer.own.state_dict().items():
                value.copy_(_cut(theirs[name], value.shape, layer, kept))


@dataclass(frozen=True)
class _Layer:
    """A convolution, a norm or the noise: the one to fill, the one to take from, its channels."""

    own: nn.Module
    source: nn.Module
    reads: tuple[str, ...]  # groups; () for what treats each channel alone
    writes: str | None  # the group; None for the picture


_Kept = dict[str, Tensor]  # group -> which of the wider network's channels


def _check(network: RNGenerator, wider: RNGenerator) -> None:
    own, theirs = (
        (model.name, {key: value for key, value in model.options.items() if key not in _FREE})
        for model in (network, wider)
    )
    if own != theirs:
        raise ValueError(
            f"{own[0]!r} with {own[1]} cannot be cut from {theirs[0]!r} with {theirs[1]}: only "
            "width and blocks may differ"
        )
    for what, size, most in (
        ("width", _width(network), _width(wider)),
        ("blocks", len(network.residual), len(wider.residual)),
    ):
        if size > most:
            raise ValueError(f"{what} is {size}; expected at most the other network's {most}")


def _width(network: RNGenerator) -> int:
    first = network.encoder[0]
    assert isinstance(first, nn.Conv2d)
    return first.out_channels


def _layers(network: RNGenerator, wider: RNGenerator) -> list[_Layer]:
    """All that has parameters, with the groups of channels that it reads and writes."""
    layers = []

    def add(name: str, reads: tuple[str, ...], writes: str | None, source: str = "") -> None:
        own, theirs = network.get_submodule(name), wider.get_submodule(source or name)
        layers.append(_Layer(own, theirs, reads, writes))

    for index, (reads, group) in enumerate(
        (((), "first"), (("first",), "second"), (("second",), "stream"))
    ):
        add(f"encoder.{index}", reads, group)
        add(f"encoder_norms.{index}", (), group)
    blocks, theirs = len(network.residual), len(wider.residual)
    for index in range(blocks):
        block, inside, source = f"residual.{index}", f"inside {index}", index * theirs // blocks
        for part, read, group in (("first", "stream", inside), ("second", inside, "stream")):
            add(f"{block}.{part}", (read,), group, f"residual.{source}.{part}")
            add(f"{block}.{part}_norm", (), group, f"residual.{source}.{part}_norm")
    for index, read in enumerate(("stream", "up 0")):
        group = f"up {index}"
        add(_upsampling(network, index), (read,), group)
        add(f"decoder_noise.{index}", (), group)
        add(f"decoder_norms.{index}", (), group)
    if network.skip is not None:
        add("skip", ("up 1", "first"), "beside")
        add("skip_norm", (), "beside")
    add("output", ("up 1",) if network.skip is None else ("up 1", "beside"), None)
    return layers


def _upsampling(network: RNGenerator, index: int) -> str:
    alone = isinstance(network.decoder[index], nn.ConvTranspose2d)
    return f"decoder.{index}" if alone else f"decoder.{index}.0"


def _strongest(layers: list[_Layer], width: int, wide: int) -> _Kept:
    """The channels of each group that the layers behind it listen to most, in their order."""
    strength: dict[str, Tensor] = {}
    for layer in layers:
        if layer.reads:
            weight = layer.source.get_parameter("weight").float()
            others = [dim for dim in range(4) if dim != _input_dim(layer)]
            heard = weight.square().sum(others).chunk(len(layer.reads))
            for group, share in zip(layer.reads, heard, strict=True):
                strength[group] = strength.get(group, 0) + share
    return {
        group: heard.topk(len(heard) * width // wide).indices.sort().values
        for group, heard in strength.items()
    }


def _input_dim(layer: _Layer) -> int:
    return 0 if isinstance(layer.source, nn.ConvTranspose2d) else 1


def _cut(value: Tensor, shape: torch.Size, layer: _Layer, kept: _Kept) -> Tensor:
    """What a layer keeps of a tensor: along the dimensions that became smaller."""
    for dim, size in enumerate(shape):
        channels = value.shape[dim]
        if channels == size:
            continue
        if layer.reads and value.dim() == 4 and dim == _input_dim(layer):
            each = channels // len(layer.reads)
            chosen = torch.cat([kept[name] + i * each for i, name in enumerate(layer.reads)])
        else:
            assert layer.writes is not None
            chosen = kept[layer.writes]
            times = size // len(chosen)  # a pixel shuffle makes 4 channels one
            chosen = (chosen[:, None] * times + torch.arange(times)).flatten()
        value = value.index_select(dim, chosen)
    return value
