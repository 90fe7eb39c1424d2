"""Photos beyond their border."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from regionnorm.filling.expand import Margins, expand_photo
from regionnorm.filling.inpainter import inpaint_path
from regionnorm.photo import Photo, read_photo

Maker = Callable[..., Image.Image]


def red(photo: Image.Image, hole: np.ndarray) -> Image.Image:
    return Image.new("RGB", photo.size, (255, 0, 51))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("left=20,top=10%", (20, 3, 0, 0)),
        ("all=50%", (20, 15, 20, 15)),
        (" right = 7px , bottom=3", (0, 0, 7, 3)),
        ("left=2.5%", (1, 0, 0, 0)),
    ],
)
def test_margins_are_pixels_or_shares(text: str, wanted: tuple[int, ...]) -> None:
    assert Margins.parse(text).pixels((40, 30)) == wanted


@pytest.mark.parametrize(
    "text", ["", "20", "left", "left=", "left=-3", "left=3,left=4", "all=3,top=2", "up=3"]
)
def test_other_margins_are_refused_with_what_would_work(text: str) -> None:
    with pytest.raises(ValueError, match="left=200,top=10%"):
        Margins.parse(text)


def test_nothing_and_too_much_are_refused() -> None:
    with pytest.raises(ValueError, match="adds nothing"):
        Margins.parse("left=0").pixels((40, 30))
    with pytest.raises(ValueError, match="at most 30"):
        Margins.parse("top=31").pixels((40, 30))


def in_mode(photo: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 250)
    if mode == "P transparent":
        image = photo.quantize(8)
        image.info["transparency"] = 0
        return image
    if mode == "L key":
        image = photo.convert("L")
        image.info["transparency"] = 0
        return image
    return photo.convert(mode)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "P transparent", "L key"]
)
def test_the_photo_stays_and_what_is_new_is_filled_in_every_mode(
    make_photo: Maker, mode: str
) -> None:
    photo = Photo.from_image(in_mode(make_photo(40, 30), mode))
    wide, new = expand_photo(photo, Margins.parse("left=5,bottom=7"))
    assert wide.size == (45, 37) and wide.mode == photo.mode
    assert new.sum() == 45 * 37 - 40 * 30 and new[0, :5].all() and new[30:].all()
    colours = np.full((37, 45, 3), (250, 250, 250), wide.colours().dtype)
    filled = wide.filled(colours, new)
    assert np.array_equal(np.asarray(filled.image)[:30, 5:], np.asarray(photo.image))
    assert abs(filled.colours()[new].astype(int) - 250).max() <= 5
    alpha = filled.alpha()
    assert alpha is None or (alpha[new] == 255).all()


def test_deep_colour_grows_too(tmp_path: Path, rng: np.random.Generator) -> None:
    cv2 = pytest.importorskip("cv2")
    values = rng.integers(0, 65536, (30, 40, 4)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), values)
    photo = read_photo(tmp_path / "deep.png")
    wide, new = expand_photo(photo, Margins.parse("right=10"))
    assert wide.deep is not None and photo.deep is not None
    assert np.array_equal(wide.deep[:, :40], photo.deep)
    assert (wide.deep[new][:, 3] == 65535).all()


@pytest.mark.parametrize("with_mask", [False, True])
def test_files_grow_beside_what_a_mask_takes(
    tmp_path: Path, make_photo: Maker, make_mask: Maker, with_mask: bool
) -> None:
    photo, mask = make_photo(40, 30), make_mask(40, 30)
    photo.save(tmp_path / "photo.png")
    mask.save(tmp_path / "mask.png")
    inpaint_path(
        red,
        tmp_path / "photo.png",
        tmp_path / "mask.png" if with_mask else None,
        tmp_path / "out.png",
        expand=Margins.parse("left=25%"),
        save_mask=tmp_path / "used.png",
    )
    filled = np.asarray(Image.open(tmp_path / "out.png"))
    hole = np.pad(
        np.asarray(mask) > 127 if with_mask else np.zeros((30, 40), bool), ((0, 0), (10, 0))
    )
    hole[:, :10] = True
    assert (filled[hole] == (255, 0, 51)).all()
    assert np.array_equal(
        filled[~hole], np.pad(np.asarray(photo), ((0, 0), (10, 0), (0, 0)))[~hole]
    )
    assert np.array_equal(np.asarray(Image.open(tmp_path / "used.png")) > 127, hole)


@pytest.mark.parametrize("soft", [False, True])
def test_a_mask_that_was_saved_can_be_given_again(
    tmp_path: Path, make_photo: Maker, make_mask: Maker, soft: bool
) -> None:
    make_photo(40, 30).save(tmp_path / "photo.png")
    mask = make_mask(40, 30)
    if soft:
        mask = mask.filter(ImageFilter.GaussianBlur(2))
    mask.save(tmp_path / "mask.png")
    given = tmp_path / "mask.png"
    for name in ("first", "again"):
        report = inpaint_path(
            red,
            tmp_path / "photo.png",
            given,
            tmp_path / f"{name}.png",
            expand=Margins.parse("left=25%,top=3"),
            save_mask=tmp_path / f"{name}-mask.png",
        )
        assert report.failed == []
        given = tmp_path / f"{name}-mask.png"
    for kind in ("", "-mask"):
        first, again = (Image.open(tmp_path / f"{n}{kind}.png") for n in ("first", "again"))
        assert np.array_equal(np.asarray(first), np.asarray(again))


def test_a_mask_that_leaves_the_new_border_black_has_it_filled_all_the_same(
    tmp_path: Path, make_photo: Maker
) -> None:
    make_photo(40, 30).save(tmp_path / "photo.png")
    mask = np.zeros((30, 50), np.uint8)
    mask[5:9, 20:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = {"expand": Margins(left="10"), "save_mask": tmp_path / "used.png"}
    inpaint_path(red, tmp_path / "photo.png", tmp_path / "mask.png", tmp_path / "o.png", **options)
    mask[:, :10] = 255
    assert np.array_equal(np.asarray(Image.open(tmp_path / "used.png")), mask)


def test_neither_mask_nor_margin_is_refused(tmp_path: Path, make_photo: Maker) -> None:
    make_photo(40, 30).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match="give a mask, or margins"):
        inpaint_path(red, tmp_path / "photo.png", None, tmp_path / "out.png")


def test_margins_in_python_are_checked_too() -> None:
    assert Margins(left=20).pixels((40, 30)) == (20, 0, 0, 0)  # type: ignore[arg-type]
    for value in ("-20", "10px", "x", "9" * 400):
        with pytest.raises(ValueError, match=r"pixels or per cent"):
            Margins(left=value)
    for text in ("left=" + "9" * 400, "left=0", "all=0%"):
        with pytest.raises(ValueError, match="give"):
            Margins.parse(text)


def test_what_grows_beyond_its_format_is_refused_before_it_is_filled(tmp_path: Path) -> None:
    Image.new("RGB", (9000, 4), (9, 90, 200)).save(tmp_path / "long.webp")

    def never(photo: Image.Image, hole: np.ndarray) -> Image.Image:
        raise AssertionError

    [(_, reason)] = inpaint_path(
        never, tmp_path / "long.webp", None, tmp_path / "o.webp", expand=Margins(left="8000")
    ).failed
    assert "17000x4" in reason and "16383" in reason and ".png" in reason
