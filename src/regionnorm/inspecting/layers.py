"""Look inside a network: its normalisation layers, what they are given and what they make of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.models.base import InpaintingModel
from regionnorm.nn import LearnableRegionNorm2d, RegionNorm2d
from regionnorm.nn.norm import MaskedNorm
from regionnorm.nn.region_norm import RegionLayer, resize_mask
from regionnorm.ops import region_norm
from regionnorm.ops.moments import find_regions

__all__ = [
    "LayerRecord",
    "LayerSize",
    "LearnedRegion",
    "RegionStatistics",
    "evaluating",
    "find_layers",
    "inspect_layers",
    "layer_sizes",
    "learned_regions",
    "mask_at",
    "norm_layers",
    "region_statistics",
    "visit_layers",
]

Kind = Literal["rn-b", "rn-l", "in", "bn"]
Stage = Literal["before", "normalised", "after"]

_HALF = (torch.bfloat16, torch.float16)
_CLOSE = 3  # names to suggest for one that is not there


@dataclass(frozen=True)
class LearnedRegion:
    """What one RN-L layer made of its input.

    Attributes:
        layer: The layer's name in the network, such as ``"decoder.0.norm"``.
        response: The spatial response (eq. 14), float32 ``[B, 1, h, w]`` in (0, 1), on the CPU;
            ``h`` and ``w`` are those of the layer's features.
        region: Where the response exceeds the layer's threshold (eq. 15), bool ``[B, 1, h, w]``.
    """

    layer: str
    response: Tensor
    region: Tensor

    @property
    def share(self) -> float:
        """The region's share of the area, 0 to 1."""
        return float(self.region.float().mean())


@dataclass(frozen=True)
class RegionStatistics:
    """Mean and variance of one region of a feature map (eq. 9-10, without eps).

    Attributes:
        mean: float32 ``[B, C]``; NaN where the region has no pixels.
        variance: Biased, float32 ``[B, C]``; NaN likewise.
        pixels: How many the region has, float32 ``[B]``.
    """

    mean: Tensor
    variance: Tensor
    pixels: Tensor


@dataclass(frozen=True)
class LayerSize:
    """A normalisation layer and the features that reach it, ``[B, channels, height, width]``."""

    layer: str
    kind: Kind
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class LayerRecord:
    """What one normalisation layer was given and what it made of it. All tensors are on the CPU.

    Attributes:
        layer: The layer's name in the network.
        kind: ``"rn-b"``, ``"rn-l"``, ``"in"`` or ``"bn"``.
        activation: ``"relu"`` if a ReLU is known to follow: the layer's own, or that of the
            :class:`~regionnorm.nn.norm.MaskedNorm` around it. None says that none is known of.
        before: The layer's input, float32 ``[B, C, h, w]``.
        normalised: The same minus mean over standard deviation (eq. 11-12), without gamma and
            beta.
        after: The layer's output with gamma and beta, before any ReLU, also where the layer
            applies one in the same pass.
        mask: The hole at the layer's size, bool ``[B, 1, h, w]``.
        region: What the layer splits the features by: RN-B its given mask, RN-L the region that
            it finds, bool ``[B, 1, h, w]`` (RN-B with more than two regions: labels, int64);
            None for IN and BN, which do not split.
        response: RN-L's spatial response (eq. 14), ``[B, 1, h, w]`` in (0, 1); None for others.
        threshold: RN-L's threshold of it (eq. 15); None for others.
        gamma: RN-L: the map of eq. 16 ``[B, 1, h, w]``; the scale is 1 + gamma. Others: the scale
            of each region and channel ``[K, C]``, with K = 1 for IN and BN; None without one.
        beta: The shift, likewise.
    """

    layer: str
    kind: Kind
    activation: str | None
    before: Tensor
    normalised: Tensor
    after: Tensor
    mask: Tensor
    region: Tensor | None
    response: Tensor | None
    threshold: float | None
    gamma: Tensor | None
    beta: Tensor | None

    def statistics(self, stage: Stage = "before") -> dict[str, RegionStatistics]:
        """Mean and variance by region.

        Args:
            stage: ``"before"``, ``"normalised"`` or ``"after"``: the features to measure.

        Returns:
            ``"known"`` and ``"hole"``, of the network's mask; RN-L's own ``"below"`` and
            ``"above"`` its threshold; and ``"region 0"`` and so on of an RN-B with more than two.
        """
        features: Tensor = getattr(self, stage)
        regions = {"known": ~self.mask, "hole": self.mask}
        if self.region is not None and self.region.dtype != torch.bool:
            most = int(self.region.max())
            regions |= {f"region {label}": self.region == label for label in range(most + 1)}
        elif self.kind == "rn-l" and self.region is not None:
            regions |= {"below": ~self.region, "above": self.region}
        return {name: region_statistics(features, where) for name, where in regions.items()}


# --- which layers there are ----------------------------------------------------------------------


def norm_layers(model: nn.Module) -> list[tuple[str, Kind]]:
    """Names and kinds of a network's normalisation layers, as ``named_modules()`` orders them.

    Args:
        model: Any network; ``model.get_submodule(name)`` is the layer.

    Returns:
        ``(name, kind)``, where the kind is ``"rn-b"`` (RegionNorm2d), ``"rn-l"``
        (LearnableRegionNorm2d), ``"in"`` (InstanceNorm2d) or ``"bn"`` (BatchNorm2d).
    """
    kinds = ((name, _kind(module)) for name, module in model.named_modules())
    return [(name, kind) for name, kind in kinds if kind is not None]


def find_layers(model: nn.Module, names: Iterable[str] | None = None) -> list[str]:
    """The normalisation layers that some names stand for.

    Args:
        model: Any network.
        names: Names of layers, or of modules that hold some: ``"residual.5"`` stands for both
            of that block. None: all.

    Returns:
        Names as :func:`norm_layers` gives them, in its order, each once.

    Raises:
        ValueError: A name stands for nothing; the message tells which are close.
    """
    known = [name for name, _ in norm_layers(model)]
    if names is None:
        return known
    chosen = set()
    for wanted in names:
        found = {name for name in known if name == wanted or name.startswith(f"{wanted}.")}
        if not found:
            raise ValueError(_unknown(wanted, known))
        chosen |= found
    return [name for name in known if name in chosen]


def _unknown(wanted: str, known: list[str]) -> str:
    if not known:
        return f"the network has no layer {wanted!r}: it has no normalisation layer at all"
    short = [name.removesuffix(".layer") for name in known]
    close = difflib.get_close_matches(wanted, short, n=_CLOSE, cutoff=0.5) or short[:_CLOSE]
    return (
        f"the network has no normalisation layer {wanted!r}; close to it are {', '.join(close)}; "
        "norm_layers(model) or --list-layers names all"
    )


def _kind(module: nn.Module) -> Kind | None:
    if isinstance(module, RegionNorm2d):
        return "rn-b"
    if isinstance(module, LearnableRegionNorm2d):
        return "rn-l"
    if isinstance(module, nn.InstanceNorm2d):
        return "in"
    return "bn" if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) else None


# --- running the network -------------------------------------------------------------------------


def inspect_layers(
    model: nn.Module, image: Tensor, mask: Tensor, layers: Iterable[str] | None = None
) -> list[LayerRecord]:
    """Run a network once and keep what its normalisation layers are given and make of it.

    A record holds a layer's features three times over; name the layers where memory matters, or
    see :func:`visit_layers`.

    Args:
        model: A network called as ``model(image, mask)``. It runs in evaluation mode, whatever
            its mode, and is left as it was. Nothing else may run it at the same time.
        image: ``[B, 3, H, W]`` in [0, 1], on the model's device.
        mask: ``[B, 1, H, W]``, above 0.5 = hole.
        layers: Names for :func:`find_layers`; None takes all.

    Returns:
        One record for each run of each layer, in the order in which they ran.

    Raises:
        ValueError: There is no layer of that name.

    Example:
        >>> for record in inspect_layers(rn.load_pretrained(), image, mask, ["decoder_norms"]):
        ...     known = record.statistics("normalised")["known"]
        ...     print(record.layer, record.kind, known.mean.abs().mean())
    """
    records: list[LayerRecord] = []
    visit_layers(model, image, mask, records.append, layers)
    return records


@torch.no_grad()
def visit_layers(
    model: nn.Module,
    image: Tensor,
    mask: Tensor,
    visit: Callable[[LayerRecord], None],
    layers: Iterable[str] | None = None,
) -> Any:
    """Run a network once and hand over each layer's record as soon as the layer has run.

    As :func:`inspect_layers`, but nothing is kept that ``visit`` does not keep.

    Returns:
        What the network returned.

    Raises:
        ValueError: There is no layer of that name.
    """
    names = find_layers(model, layers)
    activations = _activations(model)
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(_as_stored(model, image.device))
        for name in names:
            layer = model.get_submodule(name)
            fused = isinstance(layer, RegionLayer) and layer.activation == "relu"
            if fused:  # the ReLU waits until the layer's result has been recorded
                stack.callback(setattr, layer, "activation", layer.activation)
                layer.activation = None  # type: ignore[assignment]
            hook = _hook(model, mask, name, activations[name], visit, relu=fused)
            stack.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
        return model(image, mask)


def _hook(
    model: nn.Module,
    mask: Tensor,
    name: str,
    activation: str | None,
    visit: Callable[[LayerRecord], None],
    *,
    relu: bool,
) -> Any:
    def hook(layer: nn.Module, args: Any, kwargs: dict[str, Any], output: Tensor) -> Any:
        x = args[0]
        hole = mask_at(model, mask, (x.shape[-2], x.shape[-1])).expand(len(x), -1, -1, -1)
        given = args[1] if len(args) > 1 else kwargs.get("mask", hole)
        visit(_record(name, layer, activation, x, output, hole, given))
        return torch.relu(output) if relu else None

    return hook


@torch.no_grad()
def layer_sizes(model: nn.Module, image: Tensor, mask: Tensor) -> list[LayerSize]:
    """Run a network once and tell which normalisation layers run, and on what.

    Args:
        model: As for :func:`inspect_layers`.
        image: ``[B, 3, H, W]``.
        mask: ``[B, 1, H, W]``.

    Returns:
        One entry for each run of each layer, in the order in which they ran.
    """
    sizes: list[LayerSize] = []
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(_as_stored(model, image.device))
        for name, kind in norm_layers(model):

            def note(
                _: nn.Module, args: tuple[Any, ...], name: str = name, kind: Kind = kind
            ) -> None:
                sizes.append(LayerSize(name, kind, *args[0].shape[1:]))

            stack.callback(model.get_submodule(name).register_forward_pre_hook(note).remove)
        model(image, mask)
    return sizes


@torch.inference_mode()
def learned_regions(model: nn.Module, image: Tensor, mask: Tensor) -> list[LearnedRegion]:
    """Run a network once and collect the regions that its RN-L layers find on the way.

    Args:
        model: A network called as ``model(image, mask)``; without RN-L layers the list is empty.
            It runs in evaluation mode, whatever its mode, and is left as it was. Nothing else may
            run it at the same time.
        image: ``[B, 3, H, W]`` in [0, 1], on the model's device; the hole's pixels are not read.
        mask: ``[B, 1, H, W]``, above 0.5 = hole.

    Returns:
        One entry for each RN-L layer, in the order in which they ran.

    Example:
        >>> for found in learned_regions(rn.load_pretrained(), image, mask):
        ...     print(found.layer, f"{found.share:.0%}")
    """
    found: list[LearnedRegion] = []
    mask = (mask > 0.5).to(image.dtype)
    with evaluating(model), ExitStack() as stack:
        stack.enter_context(_as_stored(model, image.device))
        for name, layer in model.named_modules():
            if isinstance(layer, LearnableRegionNorm2d):
                hook = layer.register_forward_pre_hook(_recorder(name, found))
                stack.callback(hook.remove)
        model(image.masked_fill(mask > 0, 0), mask)
    return found


def _recorder(name: str, found: list[LearnedRegion]) -> Any:
    # Before the layer, not after: fused layers do not hand out the response that they compute.
    def record(layer: LearnableRegionNorm2d, inputs: tuple[Tensor, ...]) -> None:
        response = layer.spatial_response(inputs[0])
        region = layer.region_mask(response)
        found.append(LearnedRegion(name, response.float().cpu(), region.cpu()))

    return record


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; training would move running statistics."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _as_stored(model: nn.Module, device: torch.device) -> torch.autocast:
    """Autocast for weights that are stored in half precision, which are meant to run under it."""
    half = next((p.dtype for p in model.parameters() if p.dtype in _HALF), None)
    return torch.autocast(device.type, dtype=half, enabled=half is not None)


def _activations(model: nn.Module) -> dict[str, str | None]:
    """The ReLU that follows each layer, as far as it can be known."""
    found: dict[str, str | None] = {}
    for name, module in model.named_modules():
        if isinstance(module, MaskedNorm):
            found[f"{name}.layer" if name else "layer"] = module.activation
    for name, _ in norm_layers(model):
        layer = model.get_submodule(name)
        if isinstance(layer, RegionLayer):
            found[name] = layer.activation
        found.setdefault(name, None)
    return found


# --- what is recorded ----------------------------------------------------------------------------


def mask_at(model: nn.Module, mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The hole at the size of some features of a network.

    Args:
        model: The network, which may pad the picture before it computes.
        mask: ``[B, 1, H, W]``, above 0.5 = hole.
        size: Height and width of the features.

    Returns:
        bool ``[B, 1, *size]``, by nearest neighbour, as the networks resize masks for RN-B.
    """
    hole = (mask > 0.5).float()
    if isinstance(model, InpaintingModel):
        height, width = mask.shape[-2:]
        padding = (0, -width % model.stride, 0, -height % model.stride)
        hole = F.pad(hole, padding, mode="replicate") if any(padding) else hole
    return resize_mask(hole, size) > 0.5


def region_statistics(features: Tensor, where: Tensor) -> RegionStatistics:
    """Mean and variance of a region, of each channel of each picture.

    Args:
        features: float32 or float64 ``[B, C, H, W]``.
        where: The region, bool ``[B, 1, H, W]``.
    """
    # Zeros elsewhere: picking the region's pixels out takes ten times as long.
    inside = where.to(features.device)
    pixels = inside.sum((2, 3)).to(features.dtype)
    mean = torch.where(inside, features, 0).sum((2, 3)) / pixels
    centred = features - mean[..., None, None]
    variance = torch.where(inside, centred.square_(), 0).sum((2, 3)) / pixels
    return RegionStatistics(mean, variance, pixels[:, 0])


def _record(
    name: str,
    layer: Any,
    activation: str | None,
    x: Tensor,
    output: Tensor,
    hole: Tensor,
    given: Tensor,
) -> LayerRecord:
    kind = _kind(layer)
    if kind is None:
        raise ValueError(f"{name} is no normalisation layer")
    region = response = gamma = beta = None
    if isinstance(layer, LearnableRegionNorm2d):
        response = layer.spatial_response(x)
        region = layer.region_mask(response)
        gamma, beta = layer.pixel_maps(response)
    else:
        # A full-spatial norm has [C]: one region.
        gamma, beta = (
            None if values is None else values.reshape(-1, values.shape[-1])
            for values in (layer.weight, layer.bias)
        )
    if isinstance(layer, RegionNorm2d):
        labels = resize_mask(given, (x.shape[-2], x.shape[-1])).expand(len(x), -1, -1, -1)
        region = labels > 0.5 if layer.num_regions == 2 else labels.long()
    return LayerRecord(
        layer=name,
        kind=kind,
        activation=activation,
        before=_kept(x),
        normalised=_kept(_normalised(layer, x, region)),
        after=_kept(output),
        mask=hole.cpu(),
        region=None if region is None else region.cpu(),
        response=_kept(response),
        threshold=layer.threshold if isinstance(layer, LearnableRegionNorm2d) else None,
        gamma=_kept(gamma),
        beta=_kept(beta),
    )


def _normalised(layer: nn.Module, x: Tensor, region: Tensor | None) -> Tensor:
    """The layer's normalisation in evaluation mode without its affine part, in full precision."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if isinstance(layer, RegionLayer) and region is not None:
        if layer._uses_kernels():
            return region_norm(x, region, stats=layer.stats, eps=layer.eps)
        return layer._normalise(x, find_regions(x, region, layer.num_regions))
    if isinstance(layer, nn.InstanceNorm2d):
        mean, variance = layer.running_mean, layer.running_var
        return F.instance_norm(x, mean, variance, use_input_stats=mean is None, eps=layer.eps)
    if isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm):
        mean, variance = layer.running_mean, layer.running_var
        return F.batch_norm(x, mean, variance, training=mean is None, eps=layer.eps)
    raise ValueError(f"{type(layer).__name__} is no normalisation layer")


def _kept(value: Tensor | None) -> Any:
    # A copy: what follows the layer may work in place.
    return None if value is None else value.detach().to("cpu", torch.float32, copy=True)
