"""Contextual attention against plain loops, and its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from regionnorm.nn import contextual_attention

WIDE = torch.float64


def scores(foreground: Tensor, background: Tensor, size: int) -> Tensor:
    """Foreground patches times background patches of length 1, ``[H, W, H, W]``."""
    height, width = foreground.shape[1:]
    padded = [F.pad(part, (size // 2,) * 4) for part in (foreground, background)]
    result = torch.zeros(height, width, height, width, dtype=WIDE)
    for y, x, v, u in torch.cartesian_prod(*map(torch.arange, result.shape)).tolist():
        query, key = (
            padded[0][:, y : y + size, x : x + size],
            padded[1][:, v : v + size, u : u + size],
        )
        result[y, x, v, u] = (query * key).sum() / key.square().sum().sqrt().clamp(min=1e-4)
    return result


def fused(plain: Tensor) -> Tensor:
    """Sum over pairs moved alike by up to one row and one column."""
    height, width = plain.shape[:2]
    result = torch.zeros_like(plain)
    for y, x, v, u in torch.cartesian_prod(*map(torch.arange, plain.shape)).tolist():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                rows, columns = (y + dy, v + dy), (x + dx, u + dx)
                if min(*rows, *columns) >= 0 and max(rows) < height and max(columns) < width:
                    result[y, x, v, u] += plain[rows[0], columns[0], rows[1], columns[1]]
    return result


def expected(foreground: Tensor, background: Tensor, mask: Tensor, *, fuse: bool) -> Tensor:
    """One picture: kernel 3, rate 2, scale 10."""
    channels, full_height, full_width = foreground.shape
    sampled = scores(foreground[:, ::2, ::2], background[:, ::2, ::2], 3)
    if fuse:
        sampled = fused(sampled)
    height, width = sampled.shape[:2]
    hole = F.pad(mask[:, ::2, ::2], (1, 1, 1, 1))[0]
    free = [
        (v, u) for v in range(height) for u in range(width) if not hole[v : v + 3, u : u + 3].any()
    ]
    source = F.pad(background, (1, 1, 1, 1))
    pasted = torch.zeros(channels, full_height + 2, full_width + 2, dtype=WIDE)
    for y in range(height):
        for x in range(width):
            if free:
                chosen = torch.stack([sampled[y, x, v, u] for v, u in free])
                weights = (10 * chosen).softmax(dim=0)
                for weight, (v, u) in zip(weights, free, strict=True):
                    patch = source[:, 2 * v : 2 * v + 4, 2 * u : 2 * u + 4]
                    pasted[:, 2 * y : 2 * y + 4, 2 * x : 2 * x + 4] += weight * patch
    return pasted[:, 1:-1, 1:-1] / 4


def example(height: int = 8, width: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    foreground, background = torch.randn(2, 3, 2, height, width, dtype=WIDE)
    mask = torch.zeros(3, 1, height, width, dtype=WIDE)
    mask[0, :, 2:5, 3:6] = 1
    mask[1] = 1
    mask[1, :, : height - 2, : width - 4] = 0
    mask[2] = 1
    return foreground, background, mask


@pytest.mark.parametrize("fuse", [True, False])
def test_it_is_the_plain_loop_whatever_the_chunk(fuse: bool) -> None:
    pictures = example()
    wanted = torch.stack([expected(*sample, fuse=fuse) for sample in zip(*pictures, strict=True)])
    for chunk in (1, 400, 1 << 20):
        result = contextual_attention(*pictures, fuse=fuse, chunk=chunk)
        assert torch.allclose(result, wanted, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_gradients_are_right_whatever_the_chunk(chunk: int) -> None:
    foreground, background = torch.randn(2, 1, 1, 6, 6, dtype=WIDE)
    mask = torch.zeros(1, 1, 6, 6, dtype=WIDE)
    mask[..., 4:, 4:] = 1

    def run(foreground: Tensor, background: Tensor) -> Tensor:
        return contextual_attention(foreground, background, mask, chunk=chunk)

    leaves = (foreground.requires_grad_(), background.requires_grad_())
    assert torch.autograd.gradcheck(run, leaves)


def test_a_hole_is_filled_by_the_pattern_around_it() -> None:
    # A checkerboard of 4x4 blocks in two channels: what lies in the hole follows from outside.
    board = torch.kron((torch.arange(8)[:, None] + torch.arange(8)) % 2, torch.ones(4, 4))
    features = torch.stack([board, 1 - board])[None] * 3
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 13:17, 13:17] = 1
    rebuilt = contextual_attention(features, features * (1 - mask), mask)
    inside = (slice(None), slice(None), slice(13, 17), slice(13, 17))
    assert torch.allclose(rebuilt[inside], features[inside], atol=0.05)


def test_pictures_do_not_see_each_other() -> None:
    foreground, background, mask = example()
    together = contextual_attention(foreground, background, mask)
    alone = contextual_attention(foreground[1:2], background[1:2], mask[1:2])
    assert torch.equal(together[1:2], alone)


def test_without_a_usable_patch_the_result_is_zero_with_finite_gradients() -> None:
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    result = contextual_attention(x, x, torch.ones(1, 1, 8, 8))
    assert not result.any()
    (result.sum() + x.sum()).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_black_features_have_finite_gradients() -> None:
    x = torch.zeros(1, 2, 8, 8, requires_grad=True)
    contextual_attention(x, x, torch.zeros(1, 1, 8, 8)).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("size", [(7, 9), (8, 9), (2, 2)])
def test_odd_sizes_keep_their_size(size: tuple[int, int]) -> None:
    x = torch.randn(1, 2, *size)
    result = contextual_attention(x, x, torch.zeros(1, 1, *size))
    assert result.shape == x.shape
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_precision(dtype: torch.dtype) -> None:
    x = 30 * torch.randn(1, 8, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = contextual_attention(x.to(dtype), x.to(dtype), mask)
    assert result.dtype == dtype
    rounded = x.to(dtype).float()
    assert torch.equal(result, contextual_attention(rounded, rounded, mask).to(dtype))


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((1, 2, 8, 8), (1, 2, 8, 6), (1, 1, 8, 8)), {}, "background"),
        (((1, 2, 8, 8), (1, 2, 8, 8), (1, 2, 8, 8)), {}, "mask has shape"),
        (((1, 2, 8, 8), (1, 2, 8, 8), (1, 1, 8, 8)), {"kernel_size": 2}, "odd"),
        (((1, 2, 8, 8), (1, 2, 8, 8), (1, 1, 8, 8)), {"rate": 1}, "even"),
    ],
)
def test_what_does_not_fit_is_refused(
    shapes: tuple[tuple[int, ...], ...], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        contextual_attention(*(torch.zeros(shape) for shape in shapes), **options)


MEMORY = """
import resource
import torch
from regionnorm.models import create_model

model = create_model("contextual-attention", width=8).eval()
image, mask = torch.rand(1, 3, 512, 512), torch.zeros(1, 1, 512, 512)
mask[..., 100:300, 200:400] = 1
with torch.inference_mode():
    model(image[..., :64, :64], mask[..., :64, :64])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model(image, mask)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_picture_of_512_pixels_takes_little_memory() -> None:
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    # All scores of 4,096 times 4,096 samples alone would take 64 MiB, several times over.
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < 200e6


@pytest.mark.parametrize("at", [(4, 4), (5, 5), (5, 8)])
def test_not_a_single_pixel_of_a_hole_is_pasted(at: tuple[int, int]) -> None:
    foreground, background, _ = example(16, 16)
    mask = torch.zeros(len(foreground), 1, 16, 16)
    mask[..., at[0], at[1]] = 1
    found = []
    for value in (0.0, 1e6, torch.nan):
        poisoned = torch.where(mask > 0, value, background)
        found.append(contextual_attention(foreground, poisoned, mask, fuse=False))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])
    poisoned = torch.where(mask > 0, torch.nan, background)
    assert torch.isfinite(contextual_attention(foreground, poisoned, mask)).all()


def test_masks_of_any_dtype_and_empty_batches_work() -> None:
    foreground, background, mask = example(9, 11)
    expected = contextual_attention(foreground, background, mask)
    assert torch.equal(contextual_attention(foreground, background, mask > 0), expected)
    empty = (part[:0] for part in (foreground, background, mask))
    assert contextual_attention(*empty).shape == (0, *foreground.shape[1:])
