"""The two layers of the paper: RN-B (given regions) and RN-L (found regions)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regionnorm.ops import channel_mean_max, learnable_region_norm, region_norm
from regionnorm.ops.given import learnable_region_norm_by, region_norm_by
from regionnorm.ops.moments import (
    Moments,
    find_regions,
    moments_of_kernel,
    normalise_regions,
    region_moments,
    several_processes,
)
from regionnorm.ops.plain import Regions, pixel_maps, spatial_response, spread
from regionnorm.ops.region_norm import check_activation, parse_stats
from regionnorm.ops.statistics import statistics_wanted

__all__ = [
    "LearnableRegionNorm2d",
    "RegionLayer",
    "RegionNorm2d",
    "check_threshold",
    "resize_mask",
]


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a mask or label map ``[N, 1, H, W]`` to ``size`` by nearest neighbour."""
    if mask.shape[-2:] == size:
        return mask
    dtype = mask.dtype
    resized = F.interpolate(mask if mask.is_floating_point() else mask.float(), size=size)
    return resized.to(dtype)


class RegionLayer(nn.Module):
    """What RN-B and RN-L share: whose statistics a region is normalised by."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        num_regions: int,
        *,
        stats: str,
        eps: float,
        eps_on: Literal["region", "map"],
        track_running_stats: bool,
        momentum: float | None,
        activation: str | None,
    ) -> None:
        super().__init__()
        if num_features < 1 or num_regions < 1:
            raise ValueError(
                f"num_features is {num_features} and num_regions {num_regions}; both start at 1"
            )
        parse_stats(stats, num_features)
        if track_running_stats and stats != "batch":
            raise ValueError(
                f"track_running_stats goes with stats='batch', not {stats!r}, "
                "which never depends on other pictures"
            )
        check_activation(activation)
        if eps_on not in ("region", "map"):
            raise ValueError(f"eps_on is {eps_on!r}; expected 'region' or 'map'")
        if eps_on == "map" and (track_running_stats or stats not in ("instance", "batch")):
            raise ValueError(
                "eps_on='map' goes with stats='instance' or 'batch' without track_running_stats"
            )
        self.num_features = num_features
        self.num_regions = num_regions
        self.stats = stats
        self.eps = eps
        self.eps_on = eps_on
        self.track_running_stats = track_running_stats
        self.momentum = momentum
        self.activation = activation
        shape = (num_regions, num_features)
        tracked = track_running_stats
        self.register_buffer("running_mean", torch.zeros(shape) if tracked else None)
        self.register_buffer("running_var", torch.ones(shape) if tracked else None)
        counts = torch.zeros(num_regions, dtype=torch.long) if tracked else None
        self.register_buffer("num_batches_tracked", counts)

    def _uses_kernels(self) -> bool:
        """Whether the statistics are those of the input alone, as the kernels take them."""
        remembered = self._remembered() is not None
        return not (remembered or self._synchronises() or self.eps_on == "map")

    def _remembered(self) -> tuple[Tensor, Tensor] | None:
        """Mean and variance ``[K, C]`` to normalise by in evaluation; None: the input's own."""
        if self.running_mean is None or self.running_var is None or self.training:
            return None
        return self.running_mean, self.running_var

    def _synchronises(self) -> bool:
        # Never in evaluation, which one process may do alone.
        return self.training and self.stats == "batch" and several_processes()

    def _normalise(self, x: Tensor, regions: Regions) -> Tensor:
        """Normalise by statistics that the kernels do not take."""
        if (remembered := self._remembered()) is not None:
            mean, variance = (average.t()[None] for average in remembered)
            return normalise_regions(x, regions, mean, variance, self.eps)
        moments = region_moments(
            x, regions, batch=self.stats == "batch", synchronise=self._synchronises()
        )
        self._remember(moments)
        eps: float | Tensor = self.eps
        if self.eps_on == "map":
            pixels = moments.pixels
            eps = self.eps * pixels.sum(-1, keepdim=True) / pixels.clamp(min=1)
        return normalise_regions(x, regions, moments.mean, moments.variance, eps)

    def _followed(
        self, normalise: Callable[[], Tensor], x: Tensor, find_mask: Callable[[], Tensor]
    ) -> Tensor:
        """Run the kernels, and let the running averages follow the statistics that they took."""
        if not (self.track_running_stats and self.training):
            return normalise()
        found: list[Tensor] = []
        if torch.compiler.is_compiling():  # the compiler sees no other way out of a kernel
            result = normalise()
        else:
            with statistics_wanted() as found:
                result = normalise()
        if found:
            self._remember(moments_of_kernel(found[-1], self.eps))
        else:
            with torch.no_grad():
                regions = find_regions(x, find_mask(), self.num_regions)
                self._remember(region_moments(x, regions))
        return result

    @torch.no_grad()
    def _remember(self, moments: Moments) -> None:
        """Update the running averages of the regions that this batch has.

        A region whose values are not all finite is passed over, so that what stands under a hole
        cannot spoil the averages for good. A momentum of 0 freezes them.
        """
        mean, variance, seen = self.running_mean, self.running_var, self.num_batches_tracked
        if mean is None or variance is None or seen is None or not self.training:
            return
        if self.momentum == 0:
            return
        # A layer in half precision has averages in half precision; they are computed in float32.
        dtype = torch.promote_types(mean.dtype, torch.float32)
        parts = (moments.pixels, moments.mean, moments.variance)
        count, *found = (part[0].t().to(dtype) for part in parts)
        finite = (found[0] + found[1]).isfinite().all(1, keepdim=True)
        count = torch.where(finite, count, 0)
        found = [torch.where(finite, value, 0) for value in found]
        # A region that has not occurred so far gets the statistics of all pixels together.
        share = count / count.sum().clamp(min=1)
        pooled = (share * found[0]).sum(0)
        pooled_variance = (share * (found[1] + (found[0] - pooled).square())).sum(0)
        present = count > 0
        seen += present.flatten()
        often = seen.clamp(min=1)[:, None].to(dtype)
        # The first batches count alike: a region that is rare would else keep its start for long.
        factor = 1 / often if self.momentum is None else (1 / often).clamp(min=self.momentum)
        unbiased = found[1] * (count / (count - 1).clamp(min=1))
        known = (seen > 0)[:, None]
        for average, new, guess in (
            (mean, found[0], pooled),
            (variance, unbiased, pooled_variance),
        ):
            followed = torch.where(present, torch.lerp(average.to(dtype), new, factor), average)
            average.copy_(torch.where(known, followed, guess))

    def _settings(self) -> str:
        """The settings that differ from the paper's."""
        text = ""
        if self.eps_on != "region":
            text += f", eps_on={self.eps_on!r}"
        if self.track_running_stats:
            text += f", track_running_stats=True, momentum={self.momentum}"
        return text


class RegionNorm2d(RegionLayer):
    """Basic region normalisation, RN-B (eq. 8-13): regions come from the given mask.

    Each region is normalised by its own statistics and has its own scale and shift per channel.
    See :func:`regionnorm.region_norm`.

    With ``stats="batch"`` and several processes (``torch.distributed``), the batch is that of all
    processes together while training; all of them have to run the layer then. In evaluation no
    process waits for another.

    Args:
        num_features: Channels C of the input.
        num_regions: Regions K; 2 = known and hole.
        stats: ``"instance"``, ``"batch"``, ``"layer"`` or ``"group:G"``.
        affine: Learn ``weight`` (starts at 1) and ``bias`` (starts at 0), both ``[K, C]``.
        eps: Added to the variance.
        activation: ``"relu"`` to apply a ReLU to the result in the same pass, or None.
        track_running_stats: Only with ``stats="batch"``: remember averages of the statistics
            while training and normalise by them in evaluation, so that a picture does not depend
            on the others of its batch.
        momentum: Share of a new batch in the running averages; None weighs all batches alike.
            The first batches of a region are weighed alike in any case.
        eps_on: ``"region"``: eps is added to the region's variance (eq. 10). ``"map"``: to the
            share that the region has in the variance of the whole map, as in the released code,
            which adds ``eps * N / |region|`` to the region's.
    """

    def __init__(
        self,
        num_features: int,
        num_regions: int = 2,
        *,
        stats: str = "instance",
        affine: bool = True,
        eps: float = 1e-5,
        activation: str | None = None,
        track_running_stats: bool = False,
        momentum: float | None = 0.1,
        eps_on: Literal["region", "map"] = "region",
    ) -> None:
        super().__init__(
            num_features,
            num_regions,
            stats=stats,
            eps=eps,
            eps_on=eps_on,
            track_running_stats=track_running_stats,
            momentum=momentum,
            activation=activation,
        )
        self.weight = nn.Parameter(torch.ones(num_regions, num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_regions, num_features)) if affine else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise ``x`` ``[N, C, H, W]`` by the regions of ``mask`` ``[N, 1, h, w]``.

        The mask is resized to the feature map by nearest neighbour. With two regions it is 0/1;
        with more it holds the labels ``0..K-1`` in any dtype.
        """
        mask = resize_mask(mask, (x.shape[2], x.shape[3]))
        if self.num_regions != 2:
            mask = mask.long()
        elif not mask.is_floating_point():
            mask = mask.bool()
        if (remembered := self._remembered()) is not None:
            relu = self.activation == "relu"
            by_kernel = region_norm_by(
                x, mask, *remembered, self.weight, self.bias, eps=self.eps, relu=relu
            )
            if by_kernel is not None:
                return by_kernel
        if not self._uses_kernels():
            return self._in_plain_torch(x, mask)

        def normalise() -> Tensor:
            return region_norm(
                x,
                mask,
                self.weight,
                self.bias,
                num_regions=self.num_regions,
                stats=self.stats,
                eps=self.eps,
                activation=self.activation,
            )

        return self._followed(normalise, x, lambda: mask)

    def _in_plain_torch(self, x: Tensor, mask: Tensor) -> Tensor:
        regions = find_regions(x, mask, self.num_regions)
        result = self._normalise(x, regions).flatten(2)
        if self.weight is not None:
            result = result * spread(self.weight.to(result.dtype).t()[None], regions)
        if self.bias is not None:
            result = result + spread(self.bias.to(result.dtype).t()[None], regions)
        return _finish(result.view(x.shape), x, self.activation)

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return (
            f"{self.num_features}, num_regions={self.num_regions}, stats={self.stats!r}, "
            f"affine={self.weight is not None}, activation={self.activation!r}{self._settings()}"
        )


class LearnableRegionNorm2d(RegionLayer):
    """Learnable region normalisation, RN-L (eq. 14-16): the layer finds its own regions.

    The channels' mean and maximum go through a convolution and a sigmoid to the spatial response
    (eq. 14); pixels whose response exceeds ``threshold`` form the second region (eq. 15), through
    which no gradient flows; two more convolutions of the response give the scale and the shift of
    each pixel (eq. 16). Several processes share statistics as in :class:`RegionNorm2d`.

    Args:
        num_features: Channels C of the input; the layer's parameters do not depend on it.
        threshold: The ``t`` of eq. 15, 0.8 in the paper.
        kernel_size: Size of the three convolutions, odd.
        stats: ``"instance"``, ``"batch"``, ``"layer"`` or ``"group:G"``.
        eps: Added to the variance.
        activation: ``"relu"`` to apply a ReLU to the result in the same pass, or None.
        track_running_stats: As for :class:`RegionNorm2d`; the averages are of the regions that
            the layer finds, below and above the threshold.
        momentum: As for :class:`RegionNorm2d`.
        eps_on: As for :class:`RegionNorm2d`.
        bound: Most that gamma and beta may reach, 0 to 1, or None for no bound as in the paper. A
            map that all channels share can take all of them below the ReLU at once, from where no
            gradient brings them back; within a bound of 0.5 a sixth of the values stays above.
            The convolutions' weights are then used at a smaller scale where their sum exceeds it.
    """

    def __init__(
        self,
        num_features: int,
        *,
        threshold: float = 0.8,
        kernel_size: int = 7,
        stats: str = "instance",
        eps: float = 1e-5,
        activation: str | None = None,
        track_running_stats: bool = False,
        momentum: float | None = 0.1,
        eps_on: Literal["region", "map"] = "region",
        bound: float | None = None,
    ) -> None:
        super().__init__(
            num_features,
            2,
            stats=stats,
            eps=eps,
            eps_on=eps_on,
            track_running_stats=track_running_stats,
            momentum=momentum,
            activation=activation,
        )
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}; it should be odd")
        check_threshold(threshold)
        if bound is not None and not 0 < bound <= 1:
            raise ValueError(f"bound is {bound}; expected above 0 and at most 1, or None")
        self.threshold = threshold
        self.bound = bound
        padding = kernel_size // 2
        self.response = nn.Conv2d(2, 1, kernel_size, padding=padding, bias=False)
        # One convolution with two outputs computes gamma and beta in a single pass.
        self.affine = nn.Conv2d(1, 2, kernel_size, padding=padding)
        nn.init.normal_(self.affine.weight, std=0.02)
        nn.init.zeros_(self.affine.bias)  # type: ignore[arg-type]
        # With so few channels, oneDNN's channels-last path is several times faster backward.
        self.response.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.affine.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def spatial_response(self, x: Tensor) -> Tensor:
        """Spatial response map ``[N, 1, H, W]`` in (0, 1) (eq. 14)."""
        return spatial_response(channel_mean_max(x), self.response.weight)

    def region_mask(self, response: Tensor) -> Tensor:
        """Region mask, bool ``[N, 1, H, W]``: response above the threshold (eq. 15)."""
        return response.detach() > self.threshold

    def pixel_maps(self, response: Tensor) -> tuple[Tensor, Tensor]:
        """Gamma and beta of every pixel, ``[N, 1, H, W]`` each (eq. 16)."""
        return pixel_maps(response, *self._affine())

    def _affine(self) -> tuple[Tensor, Tensor]:
        """Weight ``[2, 1, k, k]`` and bias ``[2]`` of gamma and beta, within the bound."""
        weight, bias = self.affine.weight, cast(Tensor, self.affine.bias)
        if self.bound is None:
            return weight, bias
        # The response is between 0 and 1: no sum of products exceeds that of the magnitudes.
        reach = weight.abs().sum((1, 2, 3)) + bias.abs()
        share = (self.bound / reach.clamp(min=self.bound)).to(weight.dtype)
        return weight * share.view(-1, 1, 1, 1), bias * share

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` ``[N, C, H, W]`` by the regions found in it."""
        if (remembered := self._remembered()) is not None:
            by_kernel = learnable_region_norm_by(
                x,
                *remembered,
                self.response.weight,
                *self._affine(),
                threshold=self.threshold,
                eps=self.eps,
                relu=self.activation == "relu",
            )
            if by_kernel is not None:
                return by_kernel
        if not self._uses_kernels():
            return self._in_plain_torch(x)

        def normalise() -> Tensor:
            return learnable_region_norm(
                x,
                self.response.weight,
                *self._affine(),
                threshold=self.threshold,
                stats=self.stats,
                eps=self.eps,
                activation=self.activation,
            )

        return self._followed(normalise, x, lambda: self.region_mask(self.spatial_response(x)))

    def _in_plain_torch(self, x: Tensor) -> Tensor:
        response = self.spatial_response(x)
        regions = find_regions(x, self.region_mask(response), 2)
        result = self._normalise(x, regions)
        gamma, beta = (maps.to(result.dtype) for maps in self.pixel_maps(response))
        return _finish(result * (1 + gamma) + beta, x, self.activation)

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return (
            f"{self.num_features}, threshold={self.threshold}, stats={self.stats!r}, "
            f"activation={self.activation!r}{self._settings()}"
            + ("" if self.bound is None else f", bound={self.bound}")
        )


def check_threshold(threshold: float) -> None:
    """Raise ValueError for a threshold of eq. 15 that no response can pass, or all do."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; a sigmoid's range is 0 to 1")


def _finish(result: Tensor, x: Tensor, activation: str | None) -> Tensor:
    """Apply the activation and restore the dtype."""
    if activation == "relu":
        result = torch.relu(result)
    return result.to(x.dtype)
