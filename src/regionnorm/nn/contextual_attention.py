"""Contextual attention (Yu et al., 2018): fill a hole with patches of the known features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary
from torch.utils.checkpoint import checkpoint

__all__ = ["contextual_attention"]

CHUNK = 1 << 22  # scores computed at a time: 16 MiB in float32


def contextual_attention(
    foreground: Tensor,
    background: Tensor,
    mask: Tensor,
    *,
    kernel_size: int = 3,
    rate: int = 2,
    scale: float = 10.0,
    fuse: bool = True,
    chunk: int = CHUNK,
) -> Tensor:
    """Rebuild ``foreground`` from patches of ``background`` that hold no hole (section 4.1).

    1. Both maps are sampled at every ``rate``-th pixel. Patches of ``kernel_size`` around each
       sample are compared: the foreground's as they are, the background's scaled to length 1.
    2. With ``fuse``, each score becomes the sum over a 3x3 neighbourhood of the scores of pairs
       moved alike, which prefers coherent moves. (The paper's two diagonal passes; at the map's
       edges, where those wrap around to the next row, nothing is added here.)
    3. Softmax of ``scale`` times the scores, over background patches without any hole pixel.
    4. Patches of ``2 rate`` from the full background, weighted so, are pasted at every
       ``rate``-th pixel and the sum is divided by 4, the number of patches that overlap there.

    Scores are computed for some rows of the foreground at a time and, where one time does not do,
    once more in the backward pass, so that memory grows with the number of pixels and not with
    its square.

    Args:
        foreground: float ``[N, C, H, W]``.
        background: The same shape.
        mask: 0/1 ``[N, 1, H, W]``, 1 = hole of the background.
        kernel_size: Of the patches that are compared; odd.
        rate: Step between samples; half the size of the patches that are pasted.
        scale: Of the softmax.
        fuse: Whether to do step 2.
        chunk: How many scores to hold at a time, at least those of one row of samples.

    Returns:
        ``[N, C, H, W]`` in the foreground's dtype; 0 for a picture without any patch to take.

    Raises:
        ValueError: The shapes do not fit, ``kernel_size`` is even or ``rate`` odd.
    """
    if has_torch_function_unary(foreground):
        options: dict[str, Any] = {
            "kernel_size": kernel_size,
            "rate": rate,
            "scale": scale,
            "fuse": fuse,
        }
        given = (foreground, background, mask)
        return handle_torch_function(contextual_attention, given, *given, **options, chunk=chunk)
    _check(foreground, background, mask, kernel_size, rate)
    height, width = foreground.shape[-2:]
    padding = (0, -width % rate, 0, -height % rate)
    if any(padding):
        foreground, background, mask = (
            F.pad(x, padding, mode="replicate")
            for x in (foreground, background, mask.to(background.dtype))
        )
    # Half precision would overflow in the products and blur the softmax.
    with torch.autocast(foreground.device.type, enabled=False):
        dtype = torch.promote_types(foreground.dtype, torch.float32)
        filled = [
            _attend(f[None], b[None], m[None], kernel_size, rate, scale, fuse, chunk)
            for f, b, m in zip(
                foreground.to(dtype), background.to(dtype), mask.to(dtype), strict=True
            )
        ]
    result = torch.cat(filled) if filled else foreground  # of an empty batch nothing
    return result[..., :height, :width].to(foreground.dtype)


@dataclass(frozen=True)
class _Search:
    """What all rows of samples of one picture have in common."""

    keys: Tensor  # [C k k, H W], the background's patches to compare with
    usable: Tensor  # [H W], whether they are free of the hole
    patches: Tensor  # [C 2r 2r, H W], what is pasted in their place
    height: int  # in samples
    width: int
    kernel_size: int
    scale: float
    fuse: bool

    def take(self, strip: Tensor, first: bool, last: bool) -> Tensor:
        """Weighted patches for a strip of rows, padded by :attr:`margin`; ``[C 2r 2r, samples]``.

        Args:
            strip: ``[1, C, rows + 2 margin, W + k - 1]``.
            first: Whether the strip begins with the first row of samples.
            last: Whether it ends with the last.
        """
        queries = F.unfold(strip, self.kernel_size)[0]
        scores = queries.t() @ self.keys
        if self.fuse:
            scores = scores.view(-1, self.width, self.height, self.width)
            scores = _fuse(scores, first, last).flatten(2).flatten(0, 1)
        # Finite, and zeroed afterwards, so that a picture without usable patches gives no NaN.
        lowest = torch.finfo(scores.dtype).min
        weights = (self.scale * scores).masked_fill(~self.usable, lowest).softmax(dim=1)
        return self.patches @ (weights * self.usable).t()

    @property
    def margin(self) -> int:
        """Rows that a strip needs beyond its own: half a patch, and one to fuse with."""
        return self.kernel_size // 2 + self.fuse


def _attend(
    foreground: Tensor,
    background: Tensor,
    mask: Tensor,
    kernel_size: int,
    rate: int,
    scale: float,
    fuse: bool,
    chunk: int,
) -> Tensor:
    """Attention of one picture, ``[1, C, H, W]``."""
    half = kernel_size // 2
    queries = foreground[..., ::rate, ::rate]
    height, width = queries.shape[-2:]
    keys = F.unfold(background[..., ::rate, ::rate], kernel_size, padding=half)[0]
    compared = F.max_pool2d(mask[..., ::rate, ::rate], kernel_size, stride=1, padding=half)
    pasted = F.max_pool2d(mask, 2 * rate, stride=rate, padding=rate // 2)
    usable = torch.maximum(compared, pasted).flatten() == 0
    patches = F.unfold(background, 2 * rate, stride=rate, padding=rate // 2)[0]
    # Of patches in the hole only scores are of use, to fuse those beside it; NaN is of none.
    patches = patches.masked_fill(~usable, 0)
    keys = torch.where(usable, keys, keys.nan_to_num(0, 0, 0))
    keys = F.normalize(keys, dim=0, eps=1e-4)
    search = _Search(keys, usable, patches, height, width, kernel_size, scale, fuse)

    padded = F.pad(queries, (half, half, search.margin, search.margin))
    rows = max(1, chunk // (width * height * width) - 2 * fuse)
    taken = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = padded[..., top : bottom + 2 * search.margin, :]
        arguments = (strip, top == 0, bottom == height)
        if torch.is_grad_enabled() and rows < height:
            part = checkpoint(
                search.take, *arguments, use_reentrant=False, preserve_rng_state=False
            )
        else:
            part = search.take(*arguments)
        taken.append(part)
    pasted = torch.cat(taken, dim=1)[None]
    size = background.shape[-2:]
    return F.fold(pasted, size, 2 * rate, stride=rate, padding=rate // 2) / 4


def _fuse(scores: Tensor, first: bool, last: bool) -> Tensor:
    """Sum the scores of pairs moved alike by up to one row and column.

    ``[rows + 2, W, H, W]`` (foreground's row and column, background's) to ``[rows, W, H, W]``.
    """
    across = scores.clone()
    across[:, :-1, :, :-1] += scores[:, 1:, :, 1:]
    across[:, 1:, :, 1:] += scores[:, :-1, :, :-1]
    fused = across[1:-1].clone()
    above, below = (1 if first else 0), (-1 if last else None)
    fused[above:, :, 1:] += across[above:-2, :, :-1]
    fused[:below, :, :-1] += across[2:][:below, :, 1:]
    return fused


def _check(
    foreground: Tensor, background: Tensor, mask: Tensor, kernel_size: int, rate: int
) -> None:
    if foreground.ndim != 4 or background.shape != foreground.shape:
        raise ValueError(
            f"foreground has shape {list(foreground.shape)} and background "
            f"{list(background.shape)}; give both as [N, C, H, W] of the same size"
        )
    expected = [foreground.shape[0], 1, *foreground.shape[2:]]
    if list(mask.shape) != expected:
        raise ValueError(f"mask has shape {list(mask.shape)}; expected {expected}")
    if kernel_size % 2 == 0 or rate < 2 or rate % 2:
        raise ValueError(
            f"kernel_size is {kernel_size} and rate {rate}; give an odd size and an even rate"
        )
