"""Writing over photos is found, letter by letter."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from regionnorm.masks import lines
from regionnorm.masks.check import NothingFoundError, make_mask
from regionnorm.masks.regions import dilate_disk
from regionnorm.masks.text import find_text
from regionnorm.photo import Photo

Maker = Callable[..., Image.Image]


def written(
    photo: Image.Image, text: str, at: tuple[int, int], size: int, fill: str, outline: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """A photo with letters over it, and where they are with their outline."""
    font = ImageFont.load_default(size)
    letters = Image.new("L", photo.size)
    ImageDraw.Draw(letters).text(at, text, 255, font, stroke_width=outline)
    photo = photo.convert("RGB")
    ImageDraw.Draw(photo).text(at, text, fill, font, stroke_width=outline, stroke_fill="black")
    return np.asarray(photo), np.asarray(letters) > 127


@pytest.mark.parametrize(
    ("fill", "outline", "size"), [("white", 2, 40), ("black", 0, 22), ("#ff9020", 0, 16)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_letters_are_marked_and_hardly_more(
    fill: str, outline: int, size: int, dtype: type
) -> None:
    photo = Image.fromarray(data.chelsea())
    pixels, letters = written(photo, "Where is it?", (40, 220), size, fill, outline)
    found = find_text(pixels.astype(dtype) * (257 if dtype is np.uint16 else 1))
    assert found.dtype == np.bool_ and found.shape == letters.shape
    assert found[letters].mean() > 0.95
    assert found.mean() < 4 * letters.mean()
    assert dilate_disk(letters, 12)[found].mean() > 0.9


def test_a_cup_and_a_cats_face_are_no_writing() -> None:
    for photo in (data.coffee(), data.chelsea()):
        assert find_text(photo).mean() < 0.005


def test_a_small_stamp_on_a_large_photo_is_found() -> None:
    photo = Image.fromarray(data.chelsea()).resize((1800, 1200))
    pixels, letters = written(photo, "24.12.1998", (1500, 1130), 26, "#ff9020")
    found = find_text(pixels)
    assert found[letters].mean() > 0.95 and found.mean() < 0.02


@pytest.mark.parametrize("upright", [False, True])
def test_strips_are_looked_at_as_closely_as_other_photos(upright: bool) -> None:
    ground = np.tile(data.chelsea()[100:160], (1, 9, 1))[:, :4000]
    pixels, letters = written(Image.fromarray(ground), "Where is it?", (3500, 10), 30, "white", 1)
    if upright:
        pixels, letters = pixels.transpose(1, 0, 2), letters.T
    found = find_text(pixels)
    assert found[letters].mean() > 0.95 and found.mean() < 4 * letters.mean()


@pytest.mark.parametrize("upright", [False, True])
def test_time_grows_with_a_strips_length_and_places_stay(
    upright: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def likelihood(session: object, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        likely = np.zeros(pixels.shape[:2], np.float32)
        view = likely.T if upright else likely
        view[4:8, -300:-200] = 0.9  # near the end, of a copy that is twice as large
        seen.append(likely.size)
        return likely

    monkeypatch.setattr(lines, "_likelihood", likelihood)
    for length in (2000, 4000, 8000):
        strip = np.zeros((11, length, 3), np.uint8)
        (line,) = lines.find_lines(strip.transpose(1, 0, 2) if upright else strip)
        top, left, bottom, right = lines._box(line)
        along = (top, bottom) if upright else (left, right)
        assert abs(along[0] - (length - 150)) < 8 and abs(along[1] - (length - 100)) < 8
    assert seen[1] == 2 * seen[0] and seen[2] == 2 * seen[1]


def test_where_letters_cannot_be_told_the_line_is_taken_whole() -> None:
    from regionnorm.masks.letters import find_letters
    from regionnorm.masks.regions import Window

    inside = np.zeros((60, 200), np.bool_)
    inside[20:40, 20:180] = True
    flat = np.full((60, 200, 3), 90, np.uint8)
    line = lines.Line(Window(0, 0, 60, 200), inside, 20.0, 8.0)
    assert np.array_equal(find_letters(flat, line), inside)


def test_rule_makes_a_mask_or_says_that_there_is_no_writing(make_photo: Maker) -> None:
    pixels, letters = written(make_photo(320, 240), "Sample 12", (60, 100), 36, "white", 2)
    checked = make_mask(Photo.from_image(pixels), "auto:text")
    assert checked.hole[letters].mean() > 0.95 and checked.warnings == ()
    with pytest.raises(NothingFoundError, match="no writing was found"):
        make_mask(Photo.from_image(np.full((80, 120, 3), 99, np.uint8)), "auto:text")


def test_a_missing_detector_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = np.zeros((64, 64, 3), np.uint8)
    for name, value in (("_PACKAGE", "no_such_module"), ("_MODEL", "models/no*.onnx")):
        with monkeypatch.context() as patch:
            patch.setattr(lines, name, value)
            with pytest.raises(ImportError, match=r"pip install .*'regionnorm\[text\]'"):
                find_text(photo)


def test_a_page_of_a_thousand_words_costs_no_more_for_each_word() -> None:
    likely = np.zeros((1280, 1280), np.float32)
    for row in range(32):
        for column in range(32):
            likely[40 * row + 8 : 40 * row + 18, 40 * column + 6 : 40 * column + 20] = 0.9
    start = time.process_time()
    found = lines._written(list(lines._lines(likely, likely.shape)))
    assert len(found) == 32 * 32
    assert time.process_time() - start < 3
