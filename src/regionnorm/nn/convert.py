"""Region normalisation in networks of other packages: swap the norms, call ``net(x, mask)``."""

from __future__ import annotations

import copy
import functools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from regionnorm.nn.region_norm import (
    LearnableRegionNorm2d,
    RegionLayer,
    RegionNorm2d,
    resize_mask,
)
from regionnorm.ops.moments import Moments

__all__ = ["ConvertedNetwork", "convert_region_norm"]

Choice = int | str | Sequence[str] | Callable[[str], bool] | None


def convert_region_norm(
    net: nn.Module,
    *,
    encoder: Choice = None,
    learnable: bool | str | Sequence[str] | Callable[[str], bool] = True,
    stats: str | None = None,
    threshold: float = 0.8,
    inplace: bool = False,
) -> ConvertedNetwork:
    """Swap a network's InstanceNorm2d, BatchNorm2d and SyncBatchNorm layers for RN-B and RN-L.

    Layers count in the order in which the network registers them (that of ``named_modules()``),
    each once, also if the network uses it in several places. Scale and shift are kept: RN-B starts
    with them in both regions; RN-L applies them to its result, and its own gamma and beta start
    at zero. What stands in the hole of the network's input stays the caller's affair.

    The converted layers take these statistics, unless ``stats`` says otherwise:

    - InstanceNorm2d: ``"instance"``. Running statistics, if it has any, are dropped.
    - BatchNorm2d: ``"batch"``. Running statistics, if it has any, become those of both regions, so
      that in evaluation RN-B starts as exactly the layer that it replaces; training then moves
      the two apart, a batch at a time by the layer's momentum. Without them it takes the batch's,
      in evaluation too, as BatchNorm2d does. SyncBatchNorm is one of these; several processes
      share the batch's statistics in any case.

    timm's BatchNormAct2d keeps its dropout and its activation, which follow the converted layer.

    Args:
        net: Any network. It is left as it is, unless ``inplace``.
        encoder: Which layers become RN-B. A number: so many from the first. A name: all up to the
            end of the module of that name. Names: those that lie in (or are) these modules. A
            function: those whose name it accepts. None: the first half, rounded up.
        learnable: Which of the other layers become RN-L. True: all; False: none, they stay; names
            or a function as for ``encoder``, where one name means the layers in that module.
        stats: Statistics of all converted layers, see :func:`regionnorm.region_norm`; running
            statistics are then dropped.
        threshold: Threshold of the RN-L layers (eq. 15).
        inplace: Change ``net`` itself.

    Returns:
        A network called as ``net(x, mask)`` whose ``converted`` names the layers.

    Raises:
        ValueError: There is nothing to convert, a name is not in the network, or a layer has no
            number of channels yet.
    """
    if isinstance(net, torch.jit.ScriptModule) or any(
        isinstance(module, ConvertedNetwork) for module in net.modules()
    ):
        raise ValueError(
            f"{type(net).__name__} is compiled by torch.jit or converted already; "
            "give the network as it was before"
        )
    names = _norms(net)
    chosen = _choose(net, list(names), encoder, learnable)
    if not inplace:
        net = _copied(net)
    modules = dict(net.named_modules())
    new = {
        id(modules[name]): _converted(modules[name], kind, stats, threshold, _near(net, name))
        for name, kind in chosen.items()
    }
    report = {
        name: f"{type(modules[name]).__name__}({modules[name].num_features}) -> {kind}"
        for name, kind in chosen.items()
    }
    if id(net) in new:
        net = new[id(net)]
    for parent in list(net.modules()):
        for name, child in parent._modules.items():
            if child is not None and id(child) in new:
                parent._modules[name] = new[id(child)]
    return ConvertedNetwork(net, report)


class ConvertedNetwork(nn.Module):
    """A network whose RN-B layers are told the mask; made by :func:`convert_region_norm`.

    Attributes:
        net: The network with its layers swapped.
        converted: What was swapped, by name: ``"InstanceNorm2d(64) -> RN-B"``.
    """

    def __init__(self, net: nn.Module, converted: dict[str, str]) -> None:
        super().__init__()
        self.net = net
        self.converted = converted

    def forward(self, x: Tensor, mask: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run ``net(x, *args, **kwargs)`` with the mask at hand.

        Args:
            x: What the network takes, ``[N, C, H, W]``.
            mask: ``[N, 1, h, w]`` or ``[1, 1, h, w]``, any size: 1 = hole.
            *args: More inputs of the network.
            **kwargs: More inputs of the network.

        Raises:
            ValueError: The mask does not fit.
        """
        if mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[0] not in (1, x.shape[0]):
            raise ValueError(
                f"mask has shape {list(mask.shape)}; for a batch of {x.shape[0]} it should be "
                f"[{x.shape[0]}, 1, H, W]"
            )
        masks = _Masks(mask)
        before = getattr(_current, "masks", None)
        _current.masks = masks
        try:
            output = self.net(x, *args, **kwargs)
        finally:
            _current.masks = before
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            _remind(output, masks)
        return output

    def summary(self) -> str:
        """The converted layers, one line each."""
        width = max(map(len, self.converted))
        return "\n".join(f"{name:<{width}}  {what}" for name, what in self.converted.items())


# --- The mask's way to the layers -----------------------------------------------------------------


class _Masks:
    """The mask of one forward pass, resized once for each resolution."""

    def __init__(self, mask: Tensor) -> None:
        self.full = mask
        self.resized: dict[tuple[int, int], Tensor] = {}

    def at(self, size: tuple[int, int]) -> Tensor:
        if size not in self.resized:
            self.resized[size] = resize_mask(self.full, size)
        return self.resized[size]


# Of each thread its own: forward passes may run at once. A context variable would do the same,
# but torch.compile cannot trace it.
_current = threading.local()


def _masks_at_hand() -> _Masks:
    masks: _Masks | None = getattr(_current, "masks", None)
    if masks is not None:
        return masks
    # Activation checkpoints run layers again while the backward pass goes through the network.
    backward: list[_Masks] = getattr(_current, "backward", [])
    if backward:
        return backward[-1]
    raise ValueError(
        "a converted layer runs without a mask; call the converted network as net(x, mask), and "
        "with activation checkpointing let the loss depend on what that call returns"
    )


def _forget(stack: list[_Masks], masks: _Masks) -> None:
    stack[:] = [other for other in stack if other is not masks]


def _remind(output: Any, masks: _Masks) -> None:
    """Bring the mask back to mind when a backward pass enters the network.

    A tensor's hook runs just before the node that made the tensor: before any other of this
    forward pass, and after those of later ones, which have reminders of their own.
    """
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
            leaf.register_hook(functools.partial(_recall, masks))  # type: ignore[no-untyped-call]


def _recall(masks: _Masks, grad: Tensor) -> None:
    """Keep a mask in mind until the backward pass ends."""
    if not hasattr(_current, "backward"):
        _current.backward = []
    stack = _current.backward
    stack.append(masks)
    torch.autograd.Variable._execution_engine.queue_callback(lambda: _forget(stack, masks))


# --- The layers -----------------------------------------------------------------------------------


class _CountedOnce(RegionLayer):
    """Running averages that do not follow an activation checkpoint's second run."""

    def _remember(self, moments: Moments) -> None:
        if getattr(_current, "masks", None) is not None:
            super()._remember(moments)


class _MaskFromCall(_CountedOnce, RegionNorm2d):
    """RN-B called as ``layer(x)``, with the mask of the call that it is part of."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Normalise ``x`` ``[N, C, H, W]``."""
        result = super().forward(x, _masks_at_hand().at((x.shape[2], x.shape[3])))
        return _followed(self, result)


class _ScaledLearnable(_CountedOnce, LearnableRegionNorm2d):
    """RN-L that keeps the scale and shift of the layer that it replaces, ``[C]`` each."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` ``[N, C, H, W]``."""
        result = super().forward(x)
        if self.weight is not None and self.bias is not None:
            scaled = result * self.weight[:, None, None] + self.bias[:, None, None]
            result = scaled.to(result.dtype)
        return _followed(self, result)


_FOLLOWERS = ("drop", "act")  # what timm's layers with an activation do after they normalise


def _followed(layer: nn.Module, result: Tensor) -> Tensor:
    for name in _FOLLOWERS:
        follower = layer._modules.get(name)
        if follower is not None:
            result = follower(result)
    return result


def _near(net: nn.Module, name: str) -> Tensor | None:
    """A tensor of the layer ``name``, or else of the last one before it, or the first behind."""
    nearest: Tensor | None = None
    for other, module in net.named_modules():
        tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        nearest = next((t for t in tensors if t.is_floating_point()), nearest)
        if other == name:
            name = ""  # the next tensor will do
        if not name and nearest is not None:
            break
    return nearest


def _converted(
    old: Any, kind: str, stats: str | None, threshold: float, like: Tensor | None
) -> nn.Module:
    """The layer that replaces ``old``, of its mode, and of the device and dtype of ``like``."""
    batch = not isinstance(old, nn.InstanceNorm2d)
    tracked = batch and stats is None and old.running_mean is not None
    options: dict[str, Any] = {
        "stats": stats or ("batch" if batch else "instance"),
        "eps": old.eps,
        "track_running_stats": tracked,
        "momentum": old.momentum,
    }
    new: _MaskFromCall | _ScaledLearnable
    if kind == "RN-B":
        new = _MaskFromCall(old.num_features, affine=old.affine, **options)
    else:
        new = _ScaledLearnable(old.num_features, threshold=threshold, **options)
        nn.init.zeros_(new.affine.weight)
        new.weight = nn.Parameter(torch.ones(old.num_features)) if old.affine else None
        new.bias = nn.Parameter(torch.zeros(old.num_features)) if old.affine else None
    if like is not None:
        new = new.to(like.device, like.dtype)
    with torch.no_grad():
        for name in ("weight", "bias"):
            source, target = getattr(old, name), getattr(new, name)
            if source is not None:
                target.copy_(source.expand_as(target)).requires_grad_(source.requires_grad)
        if tracked:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                target = getattr(new, name)
                target.copy_(getattr(old, name).expand_as(target))
            cast(Tensor, new.num_batches_tracked).clamp_(min=_batches_behind(old))
    new.train(old.training)
    for name in _FOLLOWERS:
        if isinstance(getattr(old, name, None), nn.Module):
            setattr(new, name, getattr(old, name))
    return new


def _batches_behind(old: Any) -> int:
    """Batches that running statistics stand for, at least: then a new one weighs the momentum.

    The first batches of an RN layer weigh more than that. But statistics may come from a file that
    does not count batches, and be worth as much as any others. Those of a new layer are worth
    nothing.
    """
    if not old.running_mean.any() and bool((old.running_var == 1).all()):
        return 0
    return math.ceil(1 / old.momentum) if old.momentum else 1


# --- Choosing layers ------------------------------------------------------------------------------

_NORMS = (nn.InstanceNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm)
# A subclass with a forward of its own does more; of timm's it is known what.
_FORWARDS = tuple(norm.forward for norm in _NORMS)
_TIMM = ("BatchNormAct2d", "SyncBatchNormAct")


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) and (
        type(module).forward in _FORWARDS or type(module).__name__ in _TIMM
    )


def _norms(net: nn.Module) -> dict[str, nn.Module]:
    """The layers to convert by name, in order."""
    found = {name: module for name, module in net.named_modules() if _is_norm(module)}
    for name, module in net.named_modules():
        if isinstance(module, nn.LazyInstanceNorm2d | nn.LazyBatchNorm2d):
            raise ValueError(f"{name} does not know its channels yet; run the network once before")
    if not found:
        raise ValueError(f"{type(net).__name__} has no InstanceNorm2d or BatchNorm2d to convert")
    return found


def _choose(net: nn.Module, names: list[str], encoder: Choice, learnable: Any) -> dict[str, str]:
    """The kind of layer that each becomes; layers that stay are left out."""
    modules = [name for name, _ in net.named_modules(remove_duplicate=False)]
    if encoder is None:
        encoder = (len(names) + 1) // 2
    if isinstance(encoder, str):
        _inside(modules, [encoder])  # complains if there is none
        last = max(i for i, name in enumerate(modules) if _lies_in(name, encoder))
        basic = {name for name in names if modules.index(name) <= last}
    elif isinstance(encoder, int):
        if not 0 <= encoder <= len(names):
            raise ValueError(f"encoder is {encoder}, but the network has {len(names)} norm layers")
        basic = set(names[:encoder])
    else:
        basic = set(filter(_accepts(modules, encoder), names))
    if isinstance(learnable, bool):
        later = set(names) if learnable else set()
    else:
        later = set(filter(_accepts(modules, learnable), names))
    if not basic | later:
        raise ValueError("encoder and learnable choose no layer; choose one of " + ", ".join(names))
    return {
        name: "RN-B" if name in basic else "RN-L"
        for name in names
        if name in basic or name in later
    }


def _accepts(modules: list[str], choice: Any) -> Callable[[str], bool]:
    if callable(choice):
        accepts: Callable[[str], bool] = choice
        return accepts
    return _inside(modules, [choice] if isinstance(choice, str) else list(choice))


def _inside(modules: list[str], places: Iterable[str]) -> Callable[[str], bool]:
    places = list(places)
    for place in places:
        if place not in modules:
            top = ", ".join(name for name in modules if name and "." not in name)
            raise ValueError(f"the network has no module {place!r}; at its top are {top or 'none'}")
    return lambda name: any(_lies_in(name, place) for place in places)


def _lies_in(name: str, place: str) -> bool:
    return not place or name == place or name.startswith(place + ".")


def _copied(net: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(net)
    except (RuntimeError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"{type(net).__name__} cannot be copied ({first}); pass inplace=True"
        ) from error
