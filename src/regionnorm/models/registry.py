"""Names of the networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from regionnorm.models.base import InpaintingModel
from regionnorm.models.contextual_attention import ContextualAttentionNet
from regionnorm.models.edgeconnect import EdgeConnect
from regionnorm.models.gated_conv import GatedConvNet
from regionnorm.models.partial_conv import PartialConvNet
from regionnorm.models.rn import RNGenerator

__all__ = ["create_model", "describe_model", "list_models"]


@dataclass(frozen=True)
class Entry:
    """How a named network is made, and what it is."""

    make: Callable[..., InpaintingModel]
    description: str


def _rn(encoder: str, residual: str, decoder: str, description: str) -> Entry:
    return Entry(partial(RNGenerator, encoder, residual, decoder), description)


# The architectures of Table 2 and the normalisations of Table 3.
MODELS: dict[str, Entry] = {
    "rn": _rn("rn-b", "rn-l", "rn-l", "the paper's network: RN-B encoder, RN-L afterwards"),
    "rn-arch1": _rn("rn-b", "in", "in", "Table 2, Arch. 1: RN-B encoder, IN afterwards"),
    "rn-arch2": _rn("rn-b", "rn-b", "in", "Table 2, Arch. 2: RN-B up to the residual blocks"),
    "rn-arch3": _rn("rn-b", "rn-b", "rn-b", "Table 2, Arch. 3: RN-B everywhere"),
    "rn-arch4": _rn("rn-b", "rn-l", "in", "Table 2, Arch. 4: RN-B, RN-L, IN decoder"),
    "rn-arch5": _rn("rn-b", "rn-l", "rn-l", "Table 2, Arch. 5: the same as rn"),
    "rn-arch6": _rn("rn-l", "rn-l", "rn-l", "Table 2, Arch. 6: RN-L everywhere"),
    "baseline-in": _rn("in", "in", "in", "the backbone with instance normalisation"),
    "baseline-bn": _rn("bn", "bn", "bn", "the backbone with batch normalisation"),
    "baseline-none": _rn("none", "none", "none", "the backbone without normalisation"),
    "edgeconnect": Entry(
        EdgeConnect, "Nazeri et al. 2019: two stages, edges and then the picture; IN"
    ),
    "contextual-attention": Entry(
        ContextualAttentionNet, "Yu et al. 2018: two stages, patches of the known part; no norm"
    ),
    "rn-contextual-attention": Entry(
        partial(ContextualAttentionNet, "rn-b", "rn-l"), "the same, RN in the coarse network"
    ),
    "partial-conv": Entry(PartialConvNet, "Liu et al. 2018: U-Net of partial convolutions; BN"),
    "rn-partial-conv": Entry(
        partial(PartialConvNet, "rn-b", "rn-l"), "the same, RN-B encoder, RN-L decoder"
    ),
    "gated-conv": Entry(GatedConvNet, "Yu et al. 2019: two stages of gated convolutions; no norm"),
    "rn-gated-conv": Entry(
        partial(GatedConvNet, "rn-b", "rn-l"), "the same, RN in the coarse network"
    ),
}


def list_models() -> list[str]:
    """Names that :func:`create_model` knows."""
    return list(MODELS)


def describe_model(name: str) -> str:
    """One line about a network.

    Raises:
        ValueError: The name is not known.
    """
    return _entry(name).description


def create_model(name: str, **options: Any) -> InpaintingModel:
    """Make an untrained network.

    Args:
        name: One of :func:`list_models`.
        **options: Options of its class: all take ``width``, all but ``edgeconnect`` ``stats`` and
            ``threshold``; the RN family also ``blocks``, ``upsample``, ``noise`` and ``prefill``
            (see :class:`RNGenerator`).

    Returns:
        A module called as ``model(image, mask) -> image``.

    Raises:
        ValueError: The name or an option is not known.
    """
    entry = _entry(name)
    try:
        model = entry.make(**options)
    except TypeError as error:
        raise ValueError(f"model {name!r} does not take these options: {error}") from error
    model.name, model.options = name, dict(options)
    return model


def _entry(name: str) -> Entry:
    if name not in MODELS:
        raise ValueError(f"model {name!r} is not known; choose from {', '.join(MODELS)}")
    return MODELS[name]
