"""The texture pass: what it adds, what it leaves alone, and that it is repeatable."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from regionnorm.filling import patchmatch, texture
from regionnorm.filling.texture import STRENGTH, add_texture, wants_texture
from regionnorm.ops import backend

SIDE = 96


def box(height: int = SIDE, width: int = SIDE, share: float = 0.4) -> Tensor:
    """A mask ``[1, 1, H, W]`` with a box in the middle."""
    mask = torch.zeros(1, 1, height, width)
    top, left = (round(side * (1 - share) / 2) for side in (height, width))
    mask[..., top : height - top, left : width - left] = 1
    return mask


def grainy(generator: torch.Generator, size: tuple[int, int] = (SIDE, SIDE)) -> Tensor:
    """A grey wall with even grain, ``[1, 3, H, W]``."""
    return (0.5 + 0.05 * torch.randn((1, 3, *size), generator=generator)).clamp(0, 1)


def pebbles(generator: torch.Generator) -> Tensor:
    """An even texture of blots a few pixels wide."""
    noise = torch.randn((1, 1, SIDE, SIDE), generator=generator)
    for _ in range(2):
        noise = F.avg_pool2d(noise, 3, stride=1, padding=1)
    return (0.5 + 0.12 * noise / noise.std()).clamp(0, 1).expand(1, 3, -1, -1).contiguous()


def grey(image: Tensor) -> Tensor:
    return torch.full_like(image, 0.5)


def inside(image: Tensor, mask: Tensor) -> Tensor:
    return image[mask.expand_as(image) > 0]


def fine(image: Tensor) -> Tensor:
    return image - F.avg_pool2d(image, 5, stride=1, padding=2, count_include_pad=False)


# --- what it leaves alone -------------------------------------------------------------------------


def test_known_pixels_stay_identical(generator: torch.Generator) -> None:
    image, mask = grainy(generator), box()
    result = add_texture(image, torch.rand((1, 3, SIDE, SIDE), generator=generator), mask)
    assert torch.equal(result * (1 - mask), image * (1 - mask))


def test_pixels_under_the_hole_are_not_read(generator: torch.Generator) -> None:
    image, mask = grainy(generator), box()
    hidden = torch.where(mask > 0, torch.nan, image)
    assert torch.equal(
        add_texture(image, grey(image), mask), add_texture(hidden, grey(image), mask)
    )


def test_arguments_are_not_changed(generator: torch.Generator) -> None:
    image, mask = grainy(generator), box()
    arguments = (image, grey(image), mask)
    copies = [tensor.clone() for tensor in arguments]
    add_texture(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(arguments, copies, strict=True))


def test_smooth_surroundings_add_nothing() -> None:
    ramp = torch.linspace(0.2, 0.8, SIDE).expand(1, 3, SIDE, SIDE).contiguous()
    result = add_texture(ramp, ramp, box())
    assert (result - ramp).abs().max() < 0.5 / 255


def test_texture_elsewhere_stays_out_of_smooth_surroundings(generator: torch.Generator) -> None:
    image = torch.full((1, 3, SIDE, 2 * SIDE), 0.5)
    image[..., SIDE + 24 :] = grainy(generator, (SIDE, SIDE - 24))
    mask = F.pad(box(), (0, SIDE))
    changed = (add_texture(image, grey(image), mask) - image).abs()
    assert inside(changed, mask).mean() < 0.5 / 255


def test_colours_and_light_stay_the_fills(generator: torch.Generator) -> None:
    image, mask = grainy(generator), box()
    fill = torch.linspace(0.3, 0.7, SIDE).expand(1, 3, SIDE, SIDE).clone()
    fill[:, 0] += 0.1
    change = (add_texture(image, fill, mask) - fill) * mask
    assert F.avg_pool2d(change, 16).abs().max() < 0.02


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_hole_without_enough_around_it_keeps_its_fill(
    strength: float, generator: torch.Generator
) -> None:
    image = grainy(generator)
    for mask in (torch.ones(1, 1, SIDE, SIDE), box(share=0.9)):
        fill = grey(image)
        expected = torch.where(mask > 0, fill, image)
        assert torch.equal(add_texture(image, fill, mask, strength=strength), expected)


def test_strength_zero_and_no_hole_change_nothing(generator: torch.Generator) -> None:
    image, mask = grainy(generator), box()
    fill = grey(image)
    expected = torch.where(mask > 0, fill, image)
    assert torch.equal(add_texture(image, fill, mask, strength=0), expected)
    assert torch.equal(add_texture(image, fill, torch.zeros_like(mask)), image)


# --- what it adds ---------------------------------------------------------------------------------


def test_even_surroundings_are_continued_with_all_their_grain(generator: torch.Generator) -> None:
    image, mask = grainy(generator), box()
    result = add_texture(image, grey(image), mask, strength=1)
    share = inside(fine(result), mask).std() / inside(fine(image), 1 - mask).std()
    assert 0.7 < share < 1.2


def allow_grain_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no surroundings are even enough for whole texture."""
    monkeypatch.setattr(texture, "_EVEN", 1e-9)


def test_other_surroundings_give_a_share_of_their_grain(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_grain_alone(monkeypatch)
    image, mask = grainy(generator), box()
    result = add_texture(image, grey(image), mask, strength=1)
    share = inside(fine(result), mask).std() / inside(fine(image), 1 - mask).std()
    assert 0.7 * texture._GRAIN < share < 1.2 * texture._GRAIN


def framed(margin: int) -> tuple[Tensor, Tensor]:
    """Two very different halves, known in a frame ``margin`` pixels wide."""
    random = torch.Generator().manual_seed(3)
    image = grainy(random)
    image[..., : SIDE // 2] = 0.2 + (image[..., : SIDE // 2] - 0.5) / 50
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., margin:-margin, margin:-margin] = 1
    return image, mask


@pytest.mark.parametrize("margin", [10, 12])
def test_too_little_is_known_to_call_it_even(margin: int) -> None:
    image, mask = framed(margin)
    filled, hole = torch.where(mask > 0, 0.5, image)[0], mask[0, 0] > 0
    own = filled - texture._blur(filled, 6.0)
    assert texture._texture_weight(own, own, torch.zeros_like(own), hole).max() == 0


def test_texture_of_other_colours_is_not_trusted(generator: torch.Generator) -> None:
    image = grainy(generator)
    own = (image - 0.5)[0]
    for first in range(16, 32, 5):  # where the hole begins within its square
        hole = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        hole[:, first:64] = True
        same = texture._texture_weight(own, own, torch.zeros_like(own), hole)
        other = texture._texture_weight(own, own, torch.full_like(own, 0.4), hole)
        assert same[0][hole].min() > 0.5
        assert other[0][hole].max() < 0.05


def test_even_texture_gets_the_photos_contrast_and_not_grain_alone(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = pebbles(generator), box()
    known = F.avg_pool2d(image, 3, 1, 1)

    def shares() -> list[float]:
        """Contrast in the whole hole and deep in it, as shares of the photo's."""
        smooth = F.avg_pool2d(add_texture(image, grey(image), mask, strength=1), 3, 1, 1)
        contrasts = [inside(smooth, part).std() for part in (mask, box(share=0.3))]
        return [float(contrast / inside(known, 1 - mask).std()) for contrast in contrasts]

    everywhere, deep = shares()
    allow_grain_alone(monkeypatch)
    grain_everywhere, grain_deep = shares()
    assert everywhere > 0.4
    assert everywhere > 2 * grain_everywhere
    assert deep > 0.5
    assert deep > 4 * grain_deep


def test_an_edge_through_the_hole_stays_where_the_fill_has_it(generator: torch.Generator) -> None:
    fill = torch.full((1, 3, SIDE, SIDE), 0.2)
    fill[..., SIDE // 2 :] = 0.8
    image, mask = fill + 0.1 * (grainy(generator) - 0.5), box()
    change = (add_texture(image, fill, mask) - fill) * mask
    # Moved by a pixel, the edge would change the mean of 4x4 pixels by 0.15.
    assert F.avg_pool2d(change, 4).abs().max() < 0.05


def test_strength_scales_what_is_added(generator: torch.Generator) -> None:
    image, mask = grainy(generator), box()
    fill = grey(image)
    half = add_texture(image, fill, mask, strength=0.5) - fill
    whole = add_texture(image, fill, mask, strength=1) - fill
    torch.testing.assert_close(inside(half, mask), inside(whole, mask) / 2, atol=1e-6, rtol=1e-4)
    default = add_texture(image, fill, mask)
    assert torch.equal(default, add_texture(image, fill, mask, strength=STRENGTH))


def test_sources_are_shared_out(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = pebbles(generator), box(share=0.5)
    filled = torch.where(mask > 0, grey(image), image)[0]

    def most_copies() -> int:
        collage = texture._make_collage(filled, mask[0, 0] > 0, 0, 1)
        assert collage is not None
        return int(inside(collage[None, :1], mask).unique(return_counts=True)[1].max())

    shared = most_copies()
    monkeypatch.setattr(texture, "_REPEAT_WEIGHT", 0.0)
    assert shared <= min(8, most_copies())


def test_hole_holds_only_real_pixels_in_the_collage(generator: torch.Generator) -> None:
    image, mask = grainy(generator), box()
    filled = torch.where(mask > 0, grey(image), image)[0]
    collage = texture._make_collage(filled, mask[0, 0] > 0, 0, 1)
    assert collage is not None
    known = set(map(tuple, inside(image[:, :1], 1 - mask)[:, None].tolist()))
    assert set(map(tuple, inside(collage[None, :1], mask)[:, None].tolist())) <= known


# --- repeatable, any size -------------------------------------------------------------------------


def test_result_is_the_same_for_any_number_of_threads(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patchmatch, "_MIN_TASK", 100)
    image, mask = grainy(generator), box()
    one = add_texture(image, grey(image), mask, threads=1)
    for threads in (2, 5):
        assert torch.equal(one, add_texture(image, grey(image), mask, threads=threads))


def test_seed_decides(generator: torch.Generator) -> None:
    image, mask = grainy(generator), box()
    first, again, other = (add_texture(image, grey(image), mask, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_result_does_not_depend_on_the_global_generators(generator: torch.Generator) -> None:
    image, mask = grainy(generator), box()
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(add_texture(image, grey(image), mask))
    assert torch.equal(*results)


def test_batch_equals_one_at_a_time(generator: torch.Generator) -> None:
    images = torch.cat([grainy(generator), pebbles(generator)])
    masks = torch.cat([box(), box(share=0.2)])
    both = add_texture(images, grey(images), masks)
    for k in range(2):
        one = slice(k, k + 1)
        assert torch.equal(both[one], add_texture(images[one], grey(images[one]), masks[one]))


@pytest.mark.parametrize("size", [(16, 16), (17, 90), (63, 65), (96, 33)])
@pytest.mark.parametrize("place", ["corner", "border", "pixel", "all but a frame"])
def test_any_size_and_hole_works(
    size: tuple[int, int], place: str, generator: torch.Generator
) -> None:
    height, width = size
    mask = torch.zeros(1, 1, *size)
    parts = {
        "corner": (slice(0, height // 2), slice(width // 2, width)),
        "border": (slice(0, height), slice(0, 5)),
        "pixel": (slice(height - 1, height), slice(3, 4)),
        "all but a frame": (slice(1, -1), slice(1, -1)),
    }
    mask[0, 0][parts[place]] = 1
    image = grainy(generator, size)
    result = add_texture(image, grey(image), mask, strength=1)
    assert result.shape == image.shape and result.dtype == torch.float32
    assert torch.isfinite(result).all() and result.min() >= 0 and result.max() <= 1
    assert torch.equal(result * (1 - mask), image * (1 - mask))


def test_beyond_the_search_limit_finer_levels_take_over_the_matches(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = grainy(generator), box()
    monkeypatch.setattr(texture, "_SEARCH_LIMIT", 900)
    result = add_texture(image, grey(image), mask, strength=1)
    share = inside(fine(result), mask).std() / inside(fine(image), 1 - mask).std()
    assert 0.6 < share < 1.3


def test_half_precision_fills_are_taken(generator: torch.Generator) -> None:
    image, mask = grainy(generator), box()
    result = add_texture(image, grey(image).bfloat16(), mask)
    assert result.dtype == torch.float32
    assert torch.equal(result * (1 - mask), image * (1 - mask))


# --- errors and the default -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image": torch.zeros(1, 1, 32, 32)}, "[1, 1, 32, 32]"),
        ({"fill": torch.zeros(1, 3, 32, 31)}, "[1, 3, 32, 31]"),
        ({"mask": torch.zeros(1, 3, 32, 32)}, "[1, 1, 32, 32]"),
        ({"strength": 1.5}, "1.5"),
        ({"strength": float("nan")}, "nan"),
        ({"seed": -1}, "-1"),
    ],
)
def test_wrong_arguments_are_named(changed: dict[str, object], said: str) -> None:
    arguments: dict[str, object] = {
        "image": torch.zeros(1, 3, 32, 32),
        "fill": torch.zeros(1, 3, 32, 32),
        "mask": torch.zeros(1, 1, 32, 32),
    }
    with pytest.raises(ValueError) as caught:
        add_texture(**(arguments | changed))  # type: ignore[arg-type]
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_texture_is_on_by_default_with_numba() -> None:
    assert wants_texture(None)
    assert wants_texture(True)
    assert not wants_texture(False)


def test_without_numba_it_is_silently_off_and_an_error_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(backend, "_numba_imports", False)
    assert not wants_texture(None)
    image = torch.zeros(1, 3, 32, 32)
    mask = torch.ones(1, 1, 32, 32)
    for call in (lambda: wants_texture(True), lambda: add_texture(image, image, mask)):
        with pytest.raises(ImportError, match=r"pip install 'regionnorm\[fast\]'"):
            call()


def test_patch_radius_is_the_compiled_codes() -> None:
    assert texture._RADIUS == patchmatch.PATCH_RADIUS


# --- the network's own detail --------------------------------------------------------------------


@pytest.mark.parametrize("even", [True, False])
def test_threads_deep_in_the_hole_are_taken_out(
    even: bool, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not even:
        allow_grain_alone(monkeypatch)
    image = (0.5 + 0.002 * torch.randn((1, 3, SIDE, SIDE), generator=generator)).clamp(0, 1)
    mask = box(share=0.6)
    threads = 0.05 * (-1.0) ** torch.arange(SIDE).expand(1, 3, SIDE, SIDE)
    result = add_texture(image, grey(image) + threads, mask, strength=1.0)
    deep = box(share=0.3)
    left = (inside(result, deep) - 0.5) * inside(threads, deep).sign()
    kept_share = 0 if even else 1 - texture._GRAIN
    assert float(left.mean()) == pytest.approx(kept_share * 0.05, abs=0.15 * 0.05)
    # At the border the fill's detail continues the photo's.
    rim = mask * (1 - F.avg_pool2d(mask, 3, stride=1, padding=1)).ceil()
    kept = (inside(result, rim) - 0.5) * inside(threads, rim).sign()
    assert float(kept.mean()) > 0.7 * 0.05


def test_the_fill_of_a_thin_hole_keeps_its_detail(generator: torch.Generator) -> None:
    image = (0.5 + 0.002 * torch.randn((1, 3, SIDE, SIDE), generator=generator)).clamp(0, 1)
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 45:49, 10:86] = 1
    threads = 0.05 * (-1.0) ** torch.arange(SIDE).expand(1, 3, SIDE, SIDE)
    result = add_texture(image, grey(image) + threads, mask, strength=1.0)
    kept = (inside(result, mask) - 0.5) * inside(threads, mask).sign()
    assert float(kept.mean()) > 0.9 * 0.05
