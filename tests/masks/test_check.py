"""Masks are looked at before they are used, and made by rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from regionnorm.imaging import mask_to_array
from regionnorm.masks import check as check_module
from regionnorm.masks.check import (
    CheckedMask,
    MaskOptions,
    NothingFoundError,
    check_mask,
    is_mask_rule,
    make_mask,
    paint_preview,
)
from regionnorm.masks.regions import dilate_disk, dilate_square
from regionnorm.photo import Photo

Maker = Callable[..., Image.Image]


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def disk(width: int = 120, height: int = 90) -> Image.Image:
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).ellipse((width // 4, height // 4, width // 2, height // 2), fill=255)
    return mask


def check(mask: Image.Image, size: tuple[int, int] = (120, 90), **options: object) -> CheckedMask:
    return check_mask(mask, size, MaskOptions(**options))  # type: ignore[arg-type]


# --- what looks odd ------------------------------------------------------------------------------


def test_a_clean_mask_passes_without_a_word() -> None:
    checked = check(disk())
    assert checked.warnings == ()
    assert np.array_equal(checked.hole, np.asarray(disk()) > 127)


def test_jpeg_noise_is_said(tmp_path: Path) -> None:
    disk().save(tmp_path / "mask.jpg", quality=60)
    checked = make_mask(Photo.from_image(disk()), tmp_path / "mask.jpg")
    [warning] = checked.warnings
    assert "JPEG noise" in warning and "widen the mask" in warning
    assert (checked.hole != (np.asarray(disk()) > 127)).mean() < 0.01


def test_soft_edges_show_as_much_of_the_fill_and_need_no_word() -> None:
    soft = disk().filter(ImageFilter.SMOOTH)
    levels = np.asarray(soft)
    checked = check(soft)
    assert checked.warnings == () and checked.cover is not None
    gray = (levels > 8) & (levels < 247)
    assert gray.any() and np.array_equal(checked.cover[gray], levels[gray])
    assert np.array_equal(checked.hole, levels > 8)
    inverted = check(Image.fromarray(255 - levels), invert=True)
    assert inverted.cover is not None and np.array_equal(inverted.cover, checked.cover)


def test_hard_masks_are_cut_at_half() -> None:
    soft = disk().filter(ImageFilter.SMOOTH)
    checked = check(soft, hard=True)
    assert checked.cover is None and checked.warnings == ()
    assert np.array_equal(checked.hole, np.asarray(soft) > 127)


def test_wide_grays_are_said() -> None:
    [warning] = check(disk().filter(ImageFilter.GaussianBlur(6))).warnings
    assert "show as much of the fill" in warning and "hard edges" in warning


def test_a_soft_mask_grows_from_where_half_of_the_fill_shows() -> None:
    soft = disk().filter(ImageFilter.SMOOTH)
    grown, plain = check(soft, dilate=3), check(soft)
    assert grown.cover is not None and plain.cover is not None
    assert (grown.cover >= plain.cover).all()
    assert (grown.cover[dilate_disk(np.asarray(soft) > 127, 3)] == 255).all()


def test_a_mask_without_black_is_cut_at_half() -> None:
    ramp = np.tile(np.linspace(20, 250, 160).astype(np.uint8), (40, 1))
    ramp[:, :60], ramp[:, 100:] = 20, 250
    checked = check(Image.fromarray(ramp), (160, 40))
    assert checked.cover is None and np.array_equal(checked.hole, ramp > 127)


def test_a_mask_that_looks_inverted_is_said_and_inverted_on_request() -> None:
    inverted = Image.fromarray(255 - np.asarray(disk()))
    checked = check(inverted)
    assert any("looks inverted" in warning for warning in checked.warnings)
    assert "invert the mask" in checked.warnings[0]
    repaired = check(inverted, invert=True)
    assert repaired == CheckedMask(repaired.hole)
    assert np.array_equal(repaired.hole, np.asarray(disk()) > 127)


def test_a_large_hole_with_a_black_border_is_not_taken_for_inverted() -> None:
    mask = Image.new("L", (120, 90))
    ImageDraw.Draw(mask).rectangle((6, 6, 113, 83), fill=255)
    assert check(mask).warnings == ()


def test_coloured_masks_are_said() -> None:
    photo = Image.new("RGB", (120, 90), (200, 30, 30))
    photo.paste((255, 255, 255), (20, 20, 60, 60))
    assert "in colour" in check(photo).warnings[0]


def test_strokes_on_a_transparent_layer_are_the_hole() -> None:
    layer = Image.new("RGBA", (120, 90), (255, 255, 255, 0))
    layer.putalpha(disk())
    checked = check(layer)
    assert "opaque pixels" in checked.warnings[0]
    assert np.array_equal(checked.hole, np.asarray(disk()) > 127)


def test_strokes_of_a_colour_are_the_hole_on_any_ground() -> None:
    expected = np.asarray(disk()) > 127
    for colour in ((255, 0, 0), (0, 0, 255), (128, 0, 0), (255, 0, 255)):
        layer = Image.new("RGBA", (120, 90))
        layer.paste(colour, mask=disk())
        layer.putalpha(disk())
        for mask in (layer, *(Image.new("RGB", (120, 90), ground) for ground in ("#000", "#fff"))):
            if mask.mode == "RGB":
                mask.paste(colour, mask=disk())
            checked = check(mask)
            assert np.array_equal(checked.hole, expected), (colour, mask.mode)
            assert "taken for white" in checked.warnings[0]


def test_a_layer_with_strokes_of_two_colours_is_its_strokes() -> None:
    layer = Image.new("RGBA", (120, 90))
    layer.paste((0, 0, 200, 255), (10, 10, 30, 30))
    layer.paste((200, 30, 0, 255), (60, 40, 90, 80))
    assert np.array_equal(check(layer).hole, np.asarray(layer.getchannel("A")) > 0)


def labelled(kind: str) -> Image.Image:
    labels = (np.asarray(disk()) > 127).astype(np.uint8)
    if kind == "palette":
        image = Image.fromarray(labels).convert("P")
        image.putpalette([0, 0, 0, 40, 0, 0])
        image.putdata(labels.ravel().tolist())
        return image
    if kind == "16 bit":
        return Image.fromarray(labels.astype(np.uint16))
    return Image.fromarray(labels * (3 if kind == "0 and 3" else 1) + 5 * (kind == "5 and 6"))


@pytest.mark.parametrize("kind", ["0 and 1", "0 and 3", "5 and 6", "palette", "16 bit"])
def test_two_clear_levels_are_a_mask_whatever_they_are(kind: str) -> None:
    checked = check(labelled(kind))
    assert np.array_equal(checked.hole, np.asarray(disk()) > 127)
    assert "two levels" in checked.warnings[0]
    assert np.array_equal(mask_to_array(labelled(kind)), checked.hole)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.4])
@pytest.mark.parametrize(
    ("levels", "kind"), [((0, 60, 120), np.uint8), ((0, 9000, 18000), np.uint16)]
)
def test_a_level_between_two_dark_ones_shows_as_much_of_the_fill(
    share: float, levels: tuple[int, int, int], kind: type
) -> None:
    mask = np.full((100, 100), levels[0], kind)
    mask[:, :40], mask[:, 40 : 40 + round(100 * share)] = levels[2], levels[1]
    checked = check(Image.fromarray(mask), (100, 100))
    assert checked.cover is not None
    assert (checked.cover[:, :40] == 255).all() and (checked.cover[:, 40] == 128).all()
    assert (checked.cover[:, 90:] == 0).all() and np.array_equal(checked.hole, mask > 0)
    hard = check(Image.fromarray(mask), (100, 100), hard=True)
    assert hard.cover is None and hard.hole[:, :40].all() and not hard.hole[:, 90:].any()


def test_two_levels_in_an_array_are_a_mask_too() -> None:
    expected = np.asarray(disk()) > 127
    for low, high, kind in ((0, 3, np.uint8), (0, 3, np.int64), (20, 90, np.uint8)):
        levels = np.where(expected, high, low).astype(kind)
        assert np.array_equal(check_mask(levels, (120, 90)).hole, expected)


def test_a_mask_that_ends_inside_an_objects_soft_edge_is_said(
    make_photo: Maker, tmp_path: Path
) -> None:
    soft = disk(240, 180).filter(ImageFilter.GaussianBlur(1))
    for colour in ((230, 20, 30), (250, 250, 250)):
        photo = make_photo(240, 180)
        photo.paste(colour, mask=soft)
        disk(240, 180).save(tmp_path / "mask.png")
        warnings = {
            dilate: make_mask(
                Photo.from_image(photo), tmp_path / "mask.png", MaskOptions(dilate=dilate)
            ).warnings
            for dilate in (0, 2, 4)
        }
        assert "widen the mask by 2" in warnings[0][0]
        assert warnings[2] == warnings[4] == ()


# --- what stops ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "options", "words"),
    [
        (Image.new("L", (120, 90)), {}, "black everywhere"),
        (Image.new("L", (120, 90), 255), {}, "white everywhere"),
        (Image.new("L", (120, 90), 255), {"invert": True}, "black everywhere"),
        (disk(), {"dilate": 200}, "white everywhere"),
        (disk(60, 45), {}, "mask is 60x45 but the upright photo is 120x90.*scaled"),
        (disk(90, 120), {}, "lies on its side"),
    ],
)
def test_masks_that_cannot_work_are_refused_in_one_line(
    mask: Image.Image, options: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as error:
        check(mask, **options)
    one_line(error)


def test_a_dark_mask_of_many_levels_is_not_called_black() -> None:
    ramp = np.tile(np.arange(60, dtype=np.uint8), (90, 2))
    with pytest.raises(
        ValueError, match="no pixel of the mask is brighter than 127.*brightest is 59"
    ):
        check_mask(ramp, (120, 90))


def test_a_photo_given_as_a_mask_stops(make_photo: Maker, tmp_path: Path) -> None:
    for mode in ("RGB", "L", "P"):
        make_photo(120, 90, mode).save(tmp_path / "photo.png")
        with pytest.raises(ValueError, match="looks like a photo.*exchanged") as error:
            make_mask(Photo.from_image(disk()), tmp_path / "photo.png")
        one_line(error)


def test_a_copy_of_the_photo_with_a_hole_suggests_what_works(
    make_photo: Maker, tmp_path: Path
) -> None:
    photo = make_photo(120, 90)
    painted, erased = photo.copy(), photo.convert("RGBA")
    painted.paste((255, 255, 255), (20, 20, 60, 60))
    erased.putalpha(Image.fromarray(255 - np.asarray(disk())))
    for copy, words in (
        (painted, "copy of the photo.*difference"),
        (erased, "own transparent pixels"),
    ):
        copy.save(tmp_path / "mask.png")
        with pytest.raises(ValueError, match=words) as error:
            make_mask(Photo.from_image(photo), tmp_path / "mask.png")
        one_line(error)


def test_a_negative_dilation_is_refused() -> None:
    with pytest.raises(ValueError, match="dilate is -1"):
        MaskOptions(dilate=-1)


# --- what is done to it --------------------------------------------------------------------------


def test_dilate_grows_the_hole_by_that_many_pixels() -> None:
    mask = np.zeros((41, 41), bool)
    mask[20, 20] = True
    grown = check_mask(mask, (41, 41), MaskOptions(dilate=7)).hole
    y, x = np.nonzero(grown)
    assert np.hypot(y - 20, x - 20).max() <= 7
    assert grown[20, 27] and grown[13, 20] and not grown[20, 28]


def test_fit_keeps_a_soft_mask_soft() -> None:
    soft = disk(60, 45).filter(ImageFilter.GaussianBlur(4))
    checked = check(soft, fit=True)
    assert checked.cover is not None
    wanted = np.asarray(soft.resize((120, 90), Image.Resampling.BILINEAR)).astype(int)
    gray = (wanted > 10) & (wanted < 245)
    assert abs(checked.cover[gray].astype(int) - wanted[gray]).max() <= 1
    assert check(soft, fit=True, hard=True).cover is None
    inverted = check(Image.fromarray(255 - np.asarray(soft)), fit=True, invert=True)
    assert inverted.cover is not None
    assert abs(inverted.cover[gray].astype(int) - wanted[gray]).max() <= 2


def test_fit_scales_a_mask_and_says_when_its_shape_differs() -> None:
    checked = check(disk(60, 45), fit=True)
    assert checked.hole.shape == (90, 120)
    assert checked.warnings == ()
    assert (checked.hole != (np.asarray(disk()) > 127)).mean() < 0.01
    [warning] = check(disk(60, 60), fit=True).warnings
    assert "stretched" in warning


# --- rules ---------------------------------------------------------------------------------------


def test_rules_are_told_from_files() -> None:
    assert all(is_mask_rule(rule) for rule in ("alpha", "auto:scratches", "color:#ff00ff"))
    assert not any(is_mask_rule(name) for name in ("mask.png", "./alpha", Path("a/alpha")))


def test_alpha_takes_transparent_pixels_and_makes_them_visible(make_photo: Maker) -> None:
    photo = make_photo(60, 40, "RGBA")
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[10:20, 10:30] = 0
    alpha[20, 10:30] = 200
    photo.putalpha(Image.fromarray(alpha))
    checked = make_mask(Photo.from_image(photo), "alpha")
    assert checked.opaque
    assert np.array_equal(checked.hole, alpha == 0)
    assert "20 pixels are partly transparent" in checked.warnings[0]
    with pytest.raises(ValueError, match="no transparent pixels"):
        make_mask(Photo.from_image(make_photo(60, 40)), "alpha")


@pytest.mark.parametrize("rule", ["color:#ff00ff", "color:FF00FF", "color:#ff00ff~0"])
def test_a_colour_key_takes_pixels_of_that_colour(make_photo: Maker, rule: str) -> None:
    photo = make_photo(60, 40)
    photo.paste((255, 0, 255), (5, 5, 25, 15))
    hole = make_mask(Photo.from_image(photo), rule).hole
    assert hole[5:15, 5:25].all()
    assert hole.sum() == 200


def test_a_colour_key_finds_its_colour_after_jpeg(make_photo: Maker, tmp_path: Path) -> None:
    photo = make_photo(160, 120)
    photo.paste((255, 0, 255), (16, 16, 96, 64))
    photo.save(tmp_path / "a.jpg", quality=85)
    with Image.open(tmp_path / "a.jpg") as image:
        hole = make_mask(Photo.from_image(image), "color:#ff00ff~60").hole
    assert hole[18:62, 18:94].mean() > 0.99
    assert hole.sum() < 1.1 * 80 * 48


@pytest.mark.parametrize("softness", ["blur", "jpeg", "none"])
def test_a_colour_key_grows_to_where_the_colour_ends_and_says_so(
    make_photo: Maker, tmp_path: Path, softness: str
) -> None:
    photo, stroke = make_photo(240, 160), Image.new("L", (240, 160))
    ImageDraw.Draw(stroke).line((40, 40, 120, 110, 200, 50), fill=255, width=12)
    if softness == "blur":
        stroke = stroke.filter(ImageFilter.GaussianBlur(1.5))
    painted = photo.copy()
    painted.paste((255, 140, 0), mask=stroke)
    painted.save(tmp_path / "a.png")
    if softness == "jpeg":
        painted.save(tmp_path / "a.jpg", quality=85)
    with Image.open(tmp_path / ("a.jpg" if softness == "jpeg" else "a.png")) as image:
        seen = Photo.from_image(image)
        checked = make_mask(seen, "color:#ff8c00")
    toward = np.array([255, 140, 0]) - np.asarray(photo).astype(float)
    change = seen.colours().astype(float) - np.asarray(photo)
    tint = (change * toward).sum(2) / np.sqrt((toward**2).sum(2))
    rim = dilate_square(np.asarray(stroke) > 4, 3) & ~checked.hole
    assert tint[rim].mean() < 1.5
    assert np.percentile(tint[rim], 99) < 30  # JPEG's noise is some of it
    assert checked.hole.sum() < 2.5 * (np.asarray(stroke) > 4).sum()
    assert bool(checked.warnings) == (softness != "none")
    assert all("the colour fades over" in warning for warning in checked.warnings)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("color:#ff00f", "no rule that is known"),
        ("color:magenta", "no rule that is known"),
        ("auto:people", "no rule that is known"),
        ("color:#00ff00", "no pixel of the photo is #00ff00.*color:#00ff00~64"),
    ],
)
def test_rules_that_cannot_work_are_refused_in_one_line(
    make_photo: Maker, rule: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as error:
        make_mask(Photo.from_image(make_photo(60, 40)), rule)
    one_line(error)


def test_the_preview_shows_the_hole_in_red(make_photo: Maker) -> None:
    photo = make_photo(120, 90)
    hole = np.asarray(disk()) > 127
    shown = np.asarray(paint_preview(Photo.from_image(photo), hole)).astype(int)
    assert np.array_equal(shown[~hole], np.asarray(photo)[~hole])
    assert (shown[hole][:, 0] >= shown[hole][:, 1:].max(1) + 80).all()


@pytest.mark.parametrize("rule", ["auto:text", "auto:scratches-classical", "color:#ff00ff~0"])
def test_a_rule_that_marks_much_of_a_photo_is_told(
    rule: str, make_photo: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = make_photo(60, 40)
    for width, warned in ((14, False), (16, True)):
        much = np.zeros((40, 60), np.bool_)
        much[:, :width] = True
        pixels = np.asarray(photo).copy()
        pixels[much] = (255, 0, 255)
        monkeypatch.setattr(check_module, "find_text", lambda _, much=much: much)
        monkeypatch.setattr(check_module, "find_scratches", lambda _, method, much=much: much)
        checked = make_mask(Photo.from_image(pixels), rule)
        told = [line for line in checked.warnings if "27% of the photo" in line and rule in line]
        assert bool(told) == warned


def test_a_photo_without_what_a_rule_looks_for_is_told_apart(make_photo: Maker) -> None:
    clear = make_photo(60, 40)
    clear.putalpha(200)  # partly, and nowhere more than not
    for photo, rule in ((make_photo(60, 40), "color:#ff00ff~0"), (clear, "alpha")):
        with pytest.raises(NothingFoundError):
            make_mask(Photo.from_image(photo), rule)
    with pytest.raises(ValueError, match="no rule that is known") as error:
        make_mask(Photo.from_image(clear), "auto:nothing")
    assert not isinstance(error.value, NothingFoundError)
