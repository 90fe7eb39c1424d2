"""Region normalisation: the public functions, which check, and choose the backend.

Every region of a feature map is normalised by its own mean and variance
(Yu et al., AAAI 2020, eq. 8-12).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from regionnorm.ops import plain
from regionnorm.ops.backend import HAS_NUMBA, HAS_TRITON, current_backend, numba_works
from regionnorm.ops.cpu import autograd as cpu
from regionnorm.ops.gpu import autograd as gpu
from regionnorm.ops.gpu import launch as gpu_launch

__all__ = [
    "channel_mean_max",
    "check_activation",
    "learnable_region_norm",
    "parse_stats",
    "region_labels",
    "region_norm",
    "region_norm_per_pixel",
    "uses_cpu_kernels",
]

STATS = ("instance", "batch", "layer", "group:G")
ACTIVATIONS = (None, "relu")
CPU_DTYPES = (torch.float32, torch.bfloat16)
HALF = 0.5  # a floating mask above it is a hole


def region_norm(
    x: Tensor,
    mask: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    num_regions: int | None = None,
    stats: str = "instance",
    eps: float = 1e-5,
    activation: str | None = None,
) -> Tensor:
    """Normalise each region of ``x`` by its own mean and variance (eq. 8-12).

    Args:
        x: Features ``[N, C, H, W]``, any floating dtype, any memory format.
        mask: ``[N, 1, H, W]`` (or ``[1, 1, H, W]``, shared by the batch). A bool or floating
            mask makes two regions, 0 = known and 1 = hole (above 0.5); an integer tensor is a
            label map with values ``0..K-1``. None means one region.
        weight: Scale of each region and channel ``[K, C]``, or None.
        bias: Shift of each region and channel ``[K, C]``, or None.
        num_regions: K; None takes that of ``weight`` or ``bias``, or else the mask's: 1 without
            one, 2 for a bool or floating mask, one more than the largest label.
        stats: What shares a mean and a variance, within a region: ``"instance"`` (one sample's
            channel, eq. 9-10), ``"batch"`` (a channel over the batch), ``"layer"`` (a sample's
            channels together) or ``"group:G"`` (G groups of a sample's channels).
        eps: Added to the variance, inside the root (eq. 10).
        activation: ``"relu"`` to apply a ReLU to the result, or None.

    Returns:
        Tensor of the shape and dtype of ``x``. Statistics are computed in float32 (float64 for
        float64 input) and the variance is biased. A region without pixels contributes nothing.

    Raises:
        ValueError: Shapes, labels, ``stats`` or ``activation`` do not fit.
    """
    if has_torch_function_unary(x):
        options: dict[str, Any] = {
            "num_regions": num_regions,
            "stats": stats,
            "eps": eps,
            "activation": activation,
        }
        return handle_torch_function(region_norm, (x,), x, mask, weight, bias, **options)
    groups = _check(x, stats, activation)
    num_regions = _num_regions(mask, weight, bias, x.shape[1], num_regions)
    labels = region_labels(x, mask, num_regions)
    kernels = _kernels(num_regions, groups[0], x, labels, weight, bias)
    result: Tensor = kernels.region_norm(
        x,
        labels,
        weight,
        bias,
        num_regions=num_regions,
        groups=groups,
        eps=eps,
        relu=activation == "relu",
    )
    return result


def region_norm_per_pixel(
    x: Tensor,
    mask: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    stats: str = "instance",
    eps: float = 1e-5,
    activation: str | None = None,
) -> Tensor:
    """Normalise each region of ``x``, then scale and shift every pixel: the core of RN-L.

    Args:
        x: Features ``[N, C, H, W]``.
        mask: Two regions ``[N, 1, H, W]``, as for :func:`region_norm`.
        scale: Scale of each pixel ``[N, 1, H, W]``, the same for all channels (eq. 16).
        shift: Shift of each pixel ``[N, 1, H, W]``, the same for all channels (eq. 16).
        stats: As for :func:`region_norm`.
        eps: As for :func:`region_norm`.
        activation: As for :func:`region_norm`.

    Returns:
        Tensor of the shape and dtype of ``x``.

    Raises:
        ValueError: Shapes, labels, ``stats`` or ``activation`` do not fit.
    """
    groups = _check(x, stats, activation)
    for name, value in (("scale", scale), ("shift", shift)):
        if value.shape != (x.shape[0], 1, *x.shape[2:]):
            raise ValueError(
                f"{name} has shape {list(value.shape)}; for x {list(x.shape)} it should be "
                f"{[x.shape[0], 1, *x.shape[2:]]}"
            )
    labels = region_labels(x, mask, 2)
    kernels = _kernels(2, groups[0], x, labels, scale, shift)
    result: Tensor = kernels.region_norm_per_pixel(
        x, labels, scale, shift, groups=groups, eps=eps, relu=activation == "relu"
    )
    return result


def learnable_region_norm(
    x: Tensor,
    response_weight: Tensor,
    affine_weight: Tensor,
    affine_bias: Tensor,
    *,
    threshold: float = 0.8,
    stats: str = "instance",
    eps: float = 1e-5,
    activation: str | None = None,
) -> Tensor:
    """Find two regions in ``x``, normalise each, then scale and shift every pixel: RN-L.

    The channels' mean and maximum are convolved to the spatial response (eq. 14); the pixels where
    it exceeds ``threshold`` are a region (eq. 15), through which no gradient flows; convolved
    again, it gives a scale and a shift for every pixel (eq. 16).

    Args:
        x: Features ``[N, C, H, W]``.
        response_weight: ``[1, 2, k, k]`` with an odd k, for mean and maximum in that order.
        affine_weight: ``[2, 1, k, k]``, for gamma and beta in that order; the scale is 1 + gamma.
        affine_bias: ``[2]``.
        threshold: The ``t`` of eq. 15.
        stats: As for :func:`region_norm`.
        eps: As for :func:`region_norm`.
        activation: As for :func:`region_norm`.

    Returns:
        Tensor of the shape and dtype of ``x``.

    Raises:
        ValueError: Shapes, ``stats`` or ``activation`` do not fit.
    """
    if has_torch_function_unary(x):
        options: dict[str, Any] = {"stats": stats, "eps": eps, "activation": activation}
        weights = (response_weight, affine_weight, affine_bias)
        return handle_torch_function(
            learnable_region_norm, (x,), x, *weights, threshold=threshold, **options
        )
    groups = _check(x, stats, activation)
    size = response_weight.shape[-1]
    for name, value, shape in (
        ("response_weight", response_weight, [1, 2, size, size]),
        ("affine_weight", affine_weight, [2, 1, size, size]),
        ("affine_bias", affine_bias, [2]),
    ):
        if list(value.shape) != shape or size % 2 == 0:
            raise ValueError(
                f"{name} has shape {list(value.shape)}; expected [1, 2, k, k], [2, 1, k, k] and "
                "[2] for response_weight, affine_weight and affine_bias, with an odd k"
            )
    kernels = _kernels(2, groups[0], x, response_weight, affine_weight, affine_bias)
    result: Tensor = kernels.learnable_region_norm(
        x,
        response_weight,
        affine_weight,
        affine_bias,
        threshold=threshold,
        groups=groups,
        eps=eps,
        relu=activation == "relu",
    )
    return result


def channel_mean_max(x: Tensor) -> Tensor:
    """Mean and maximum over the channels, in that order: the input of eq. 14.

    Args:
        x: Features ``[N, C, H, W]``.

    Returns:
        ``[N, 2, H, W]`` in the dtype of ``x``. Equal maxima share the gradient equally.

    Raises:
        ValueError: ``x`` is not a floating tensor of four dimensions.
    """
    _check(x, "instance", None)
    result: Tensor = _kernels(2, "instance", x).channel_mean_max(x)
    return result


def _kernels(num_regions: int, kind: str, x: Tensor, *others: Tensor | None) -> Any:
    """The module whose kernels fit the device, the types and the regions, else the plain path."""
    if current_backend() == "plain" or not x.numel():
        return plain
    on_cpu = x.device.type == "cpu"
    if on_cpu:
        fits = HAS_NUMBA and x.dtype in CPU_DTYPES and num_regions <= cpu.MAX_REGIONS
    else:
        fits = HAS_TRITON and gpu_launch.supports(x, num_regions, kind)
    if not fits:
        return plain
    module = cpu if on_cpu else gpu
    if torch.compiler.is_compiling():
        visible = _is_exporting()
    else:
        given = [x, *(other for other in others if other is not None)]
        visible = (
            any(type(tensor) not in PLAIN_TYPES or tensor.device != x.device for tensor in given)
            or _is_tracing()
            or torch.onnx.is_in_onnx_export()
            or torch._C._functorch.peek_interpreter_stack() is not None
            or torch.autograd.forward_ad._current_level >= 0
        )
    if visible or not (numba_works() if on_cpu else gpu_launch.works(x.device, x.dtype)):
        return plain
    return module


def uses_cpu_kernels(num_regions: int, x: Tensor, *others: Tensor | None) -> bool:
    """Whether the CPU's kernels would be called for such arguments."""
    return _kernels(num_regions, "batch", x, *others) is cpu


# A subclass (a fake tensor, a distributed one) has a way of its own to run operations.
PLAIN_TYPES = (Tensor, torch.nn.Parameter)
_is_tracing: Any = getattr(torch.jit, "is_tracing")  # noqa: B009
_is_exporting: Any = getattr(torch.compiler, "is_exporting", lambda: False)


def _check(x: Tensor, stats: str, activation: str | None) -> tuple[str, int]:
    """Validate the arguments shared by the public functions; return ``(stats kind, groups)``."""
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(
            f"x has shape {list(x.shape)} and dtype {x.dtype}; expected floating [N, C, H, W]"
        )
    check_activation(activation)
    return parse_stats(stats, x.shape[1])


def check_activation(activation: str | None) -> None:
    """Raise ValueError for what cannot follow in the same pass."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; expected None or 'relu'")


def parse_stats(stats: str, channels: int) -> tuple[str, int]:
    """Split ``stats`` into its kind and its number of groups (1 unless ``"group:G"``).

    Raises:
        ValueError: The name is not known, or G does not divide ``channels``.
    """
    if stats in ("instance", "batch", "layer"):
        return stats, 1
    kind, _, count = stats.partition(":")
    if kind == "group" and count.isdigit() and int(count) > 0:
        if channels % int(count):
            raise ValueError(f"stats is {stats!r}, but {count} does not divide {channels} channels")
        return kind, int(count)
    raise ValueError(f"stats is {stats!r}; expected one of {', '.join(STATS)}")


def _num_regions(
    mask: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    channels: int,
    given: int | None,
) -> int:
    """Number of regions K: the given one, or that of the affine parameters, or the mask's."""
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and (value.dim() != 2 or value.shape[1] != channels):
            raise ValueError(f"{name} has shape {list(value.shape)}; expected [K, {channels}]")
    if weight is not None and bias is not None and weight.shape != bias.shape:
        raise ValueError(
            f"weight {list(weight.shape)} and bias {list(bias.shape)} should have one shape"
        )
    affine = weight if weight is not None else bias
    if affine is not None:
        if given is not None and given != affine.shape[0]:
            raise ValueError(
                f"num_regions is {given}, but affine parameters of {affine.shape[0]} regions"
            )
        given = affine.shape[0]
    if given is not None:
        if (mask is None and given != 1) or (_is_binary(mask) and given != 2):
            what = "no mask" if mask is None else "a two-region mask"
            raise ValueError(f"got {what}, but {given} regions")
        return given
    if mask is None:
        return 1
    if _is_binary(mask):
        return 2
    return int(_unwrapped(mask).max()) + 1 if mask.numel() else 1


def _unwrapped(labels: Tensor) -> Tensor:
    """Labels whose values can be asked for: inside ``vmap`` those of all its calls."""
    while torch._C._functorch.is_functorch_wrapped_tensor(labels):
        labels = torch._C._functorch.get_unwrapped(labels)
    return labels


def _is_binary(mask: Tensor | None) -> bool:
    return mask is not None and (mask.dtype == torch.bool or mask.is_floating_point())


def region_labels(x: Tensor, mask: Tensor | None, num_regions: int) -> Tensor:
    """Region of every pixel ``[N or 1, H * W]``, bool or an integer dtype."""
    if mask is None:
        return torch.zeros((1, x.shape[2] * x.shape[3]), dtype=torch.bool, device=x.device)
    if mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[2:] != x.shape[2:]:
        raise ValueError(
            f"mask has shape {list(mask.shape)}; for x {list(x.shape)} it should be "
            f"{[x.shape[0], 1, *x.shape[2:]]}"
        )
    if mask.shape[0] not in (1, x.shape[0]):
        raise ValueError(f"mask is a batch of {mask.shape[0]}, x a batch of {x.shape[0]}")
    if mask.dtype == torch.bool:
        return mask.flatten(1)
    if mask.is_floating_point():
        return (mask > HALF).flatten(1)
    if mask.numel() and not mask.is_meta:
        _check_labels(mask, num_regions)
    return mask.flatten(1)


def _check_labels(labels: Tensor, num_regions: int) -> None:
    """Refuse labels that no region has: kernels would read and write beyond their tables."""
    if torch.compiler.is_compiling():
        if not _is_exporting():
            fits = torch.all((labels >= 0) & (labels < num_regions))
            torch._assert_async(fits, f"a label is out of range; expected 0 to {num_regions - 1}")
        return
    low, high = (int(value) for value in torch.aminmax(_unwrapped(labels)))
    if low < 0 or high >= num_regions:
        raise ValueError(f"labels range from {low} to {high}; expected 0 to {num_regions - 1}")
