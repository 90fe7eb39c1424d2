"""What the app does with photos, masks and fills, without a page."""

from __future__ import annotations

import io
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from regionnorm.filling.inpainter import Inpainter
from regionnorm.imaging import read_image, read_mask
from regionnorm.web.examples import _drawn, write_examples
from regionnorm.web.handlers import Handlers
from regionnorm.web.pictures import canvas_of, decode_mask, encoded, patch, thumbnail
from regionnorm.web.visitors import HISTORY, Gone, Picture, Store, Visitor, Visitors

Maker = Callable[..., Image.Image]
WIDE = (20, 10, 46, 36)


@pytest.fixture
def handlers(tmp_path: Path, small_weights: Path) -> Handlers:
    store = Store(tmp_path / "private", tmp_path / "public")
    return Handlers(Inpainter(small_weights), store, [], max_megapixels=0.1)


@pytest.fixture
def whole_photo(tmp_path: Path) -> Handlers:
    """Handlers that fill from the photo alone, so that every hole can be filled in other ways."""
    store = Store(tmp_path / "private", tmp_path / "public")
    return Handlers(Inpainter(method="exemplar"), store, [], max_megapixels=0.1)


@pytest.fixture
def photo(tmp_path: Path, make_photo: Maker) -> Path:
    path = tmp_path / "photo.png"
    make_photo(61, 47).save(path)
    return path


@pytest.fixture
def visitor(handlers: Handlers) -> Visitor:
    return Visitors(handlers.store.private).new()


Box = tuple[int, int, int, int]


def hole(box: Box = (20, 12, 40, 30), size: tuple[int, int] = (61, 47)) -> npt.NDArray[np.bool_]:
    """A hole of the shape of a box."""
    made = np.zeros((size[1], size[0]), bool)
    made[box[1] : box[3], box[0] : box[2]] = True
    return made


def painted(size: tuple[int, int], box: Box = (20, 12, 40, 30)) -> bytes:
    """A mask with a box, as the page sends it."""
    mask = Image.new("L", size)
    mask.paste(255, box)
    buffer = io.BytesIO()
    mask.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def opened(handlers: Handlers, path: Path, visitor: Visitor) -> Picture:
    """Open a file as an upload of it would be."""
    return handlers.open_photo(Path(shutil.copy(path, visitor.new_folder())), visitor)


def files_in(folder: Path) -> list[Path]:
    """Files that somebody brought or gets, without what was made from them for the screen."""
    found = folder.rglob("*") if folder.exists() else ()
    return [path for path in found if path.is_file() and path.parent.name != "made"]


# --- photos --------------------------------------------------------------------------------------


def test_opened_photo_is_shown_upright(
    handlers: Handlers, visitor: Visitor, tmp_path: Path, make_photo: Maker
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    make_photo(64, 40).save(tmp_path / "turned.jpg", exif=exif)
    picture = opened(handlers, tmp_path / "turned.jpg", visitor)
    assert (picture.name, picture.size) == ("turned.jpg", (40, 64))
    with Image.open(encoded(picture.path, 2048)) as shown:
        assert (shown.format, shown.size) == ("JPEG", (40, 64))


def test_photo_above_the_limit_is_refused_before_it_is_decoded(
    handlers: Handlers, visitor: Visitor, tmp_path: Path
) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (400, 300)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:60])  # decoding it would fail
    with pytest.raises(ValueError, match=r"large.png is 400x300, 0 megapixels; up to"):
        opened(handlers, path, visitor)
    assert files_in(visitor.folder) == []


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(99)])
def test_what_is_no_photo_is_refused_in_one_line_and_removed(
    handlers: Handlers, visitor: Visitor, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "odd.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"^.*odd\.png.*$"):
        opened(handlers, tmp_path / "odd.png", visitor)
    assert files_in(visitor.folder) == []


def test_as_many_pictures_are_kept_as_the_history_holds(
    handlers: Handlers, visitor: Visitor, photo: Path
) -> None:
    pictures = [opened(handlers, photo, visitor) for _ in range(HISTORY + 2)]
    assert visitor.pictures == pictures[:1:-1]
    assert len(files_in(visitor.folder)) == HISTORY
    with pytest.raises(Gone, match="open the photo again"):
        visitor.picture(pictures[0].number)


def test_fewer_large_pictures_are_kept(
    handlers: Handlers, visitor: Visitor, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(handlers, photo, visitor)
    size = sum(path.stat().st_size for path in visitor.folder.rglob("*") if path.is_file())
    monkeypatch.setattr("regionnorm.web.visitors._MOST_BYTES", 3.5 * size)
    for _ in range(4):
        opened(handlers, photo, visitor)
    assert len(files_in(visitor.folder)) == 3
    monkeypatch.setattr("regionnorm.web.visitors._MOST_BYTES", size / 2)
    opened(handlers, photo, visitor)
    assert len(files_in(visitor.folder)) == 2


def test_mask_of_huge_photos_is_painted_smaller_and_filled_at_full_size() -> None:
    width, height = canvas_of((8000, 6000))
    assert 15e6 < width * height <= 4096 * 4096
    assert width / height == pytest.approx(8000 / 6000, rel=1e-3)
    assert canvas_of((4000, 3000)) == (4000, 3000)


# --- masks ---------------------------------------------------------------------------------------


def test_loaded_mask_comes_back_opaque_where_the_hole_is(
    handlers: Handlers, visitor: Visitor, photo: Path, tmp_path: Path, make_mask: Maker
) -> None:
    picture = opened(handlers, photo, visitor)
    make_mask(61, 47).save(tmp_path / "mask.png")
    for invert in (False, True):
        given = Path(shutil.copy(tmp_path / "mask.png", visitor.new_folder()))
        number, warnings, _ = handlers.load_mask(given, picture, visitor, invert=invert)
        with Image.open(visitor.mask(number)) as drawn:
            shown = np.asarray(drawn.convert("RGBA"))[..., 3] > 0
        assert (shown != read_mask(tmp_path / "mask.png")).all() == invert
        assert warnings == ()
        assert not given.exists()


def test_loaded_mask_that_looks_inverted_is_said_so(
    handlers: Handlers, visitor: Visitor, photo: Path, make_mask: Maker
) -> None:
    picture = opened(handlers, photo, visitor)
    given = visitor.new_folder() / "mask.png"
    make_mask(61, 47).point(lambda level: 255 - level).save(given)
    _, warnings, _ = handlers.load_mask(given, picture, visitor)
    assert len(warnings) == 1
    assert "invert the mask" in warnings[0]


def test_loaded_mask_of_another_size_is_refused(
    handlers: Handlers, visitor: Visitor, photo: Path, tmp_path: Path, make_mask: Maker
) -> None:
    picture = opened(handlers, photo, visitor)
    make_mask(60, 47).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask is 60x47 but photo.png is 61x47"):
        handlers.load_mask(
            Path(shutil.copy(tmp_path / "mask.png", visitor.new_folder())), picture, visitor
        )


def test_messages_that_reach_the_page_name_no_flag_of_the_command_line() -> None:
    package = Path(str(files("regionnorm")))
    rooms = ("masks", "photo", "files", "filling", "web", "serving")
    sources = [source for room in rooms for source in package.glob(f"{room}/**/*.py")]
    assert len(sources) > 50
    for source in sources:
        if source.name != "site.py":  # which runs npm
            found = re.findall(r'"[^"\n]*(?<![-\w])--[a-z][^"\n]*"', source.read_text("utf-8"))
            assert found == [], source


@pytest.mark.parametrize(
    ("data", "corner", "message"),
    [
        (b"", (0, 0), "no PNG"),
        (b"GIF89a", (0, 0), "no PNG"),
        (painted((62, 47)), (0, 0), "is 62x47 from .0, 0., beyond 61x47"),
        (painted((21, 20), (0, 0, 9, 9)), (41, 0), "beyond 61x47"),
        (painted((61, 47), (0, 0, 0, 0)), (0, 0), "nothing is painted"),
        (painted((61, 47), (0, 0, 61, 47)), (0, 0), "everything is painted over"),
    ],
)
def test_painted_mask_that_cannot_be_used_is_refused(
    data: bytes, corner: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        decode_mask(data, corner, (61, 47))


def test_painted_part_lies_where_its_corner_says() -> None:
    found = decode_mask(painted((20, 18), (0, 0, 20, 18)), (20, 12), (61, 47))
    assert (found == np.where(hole(), 255, 0)).all()


# --- filling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "suffix", "written"),
    [("RGB", "png", "png"), ("RGBA", "webp", "webp"), ("L", "tif", "tif"), ("RGB", "jpg", "jpg")],
)
def test_result_has_the_photos_format_and_size(
    handlers: Handlers,
    visitor: Visitor,
    tmp_path: Path,
    make_photo: Maker,
    mode: str,
    suffix: str,
    written: str,
) -> None:
    path = tmp_path / f"a photo.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    make_photo(61, 47, mode).save(path, **options)
    result = handlers.fill(hole(), opened(handlers, path, visitor), visitor)
    assert result.name == result.path.name == f"a photo-filled.{written}"
    with Image.open(path) as before, Image.open(result.path) as after:
        assert (after.format, after.mode, after.size) == (before.format, before.mode, before.size)
        if suffix != "jpg":
            assert (np.asarray(before) == np.asarray(after))[~hole()].all()
            assert (np.asarray(before) != np.asarray(after))[hole()].any()


def test_fill_equals_the_inpainters(
    handlers: Handlers, visitor: Visitor, photo: Path, small_weights: Path
) -> None:
    result = handlers.fill(hole(), opened(handlers, photo, visitor), visitor)
    expected = np.asarray(Inpainter(small_weights)(read_image(photo), hole()))
    assert (np.asarray(read_image(result.path)) == expected).all()
    # What is sent for the screen is the changed part, exactly.
    left, top, right, bottom = result.box or (0, 0, 0, 0)
    assert (np.asarray(read_image(patch(result))) == expected[top:bottom, left:right]).all()
    assert (left, top, right, bottom) == (20, 12, 40, 30)


def test_opening_another_photo_leaves_the_files_of_a_running_fill_alone(
    handlers: Handlers, visitor: Visitor, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regionnorm.web.visitors.HISTORY", 1)
    picture = opened(handlers, photo, visitor)
    visitor.hold(picture)
    other = opened(handlers, photo, visitor)
    result = handlers.fill(hole(), picture, visitor)
    assert not other.path.exists()
    visitor.release(picture)
    assert result.path.is_file()
    # A fill needs what it was made from, to be compared and filled again.
    assert picture.path.is_file()


def test_no_two_fills_share_a_name_and_filling_on_adds_none(
    handlers: Handlers, visitor: Visitor, photo: Path, tmp_path: Path
) -> None:
    picture = opened(handlers, photo, visitor)
    names = []
    for width in (5, 6):
        names.append(handlers.fill(hole((20, 12, 20 + width, 30)), picture, visitor).name)
    again = handlers.fill(hole((2, 2, 9, 9)), visitor.pictures[0], visitor)
    assert [*names, again.name] == [f"photo-filled{n}.png" for n in ("", "-2", "-3")]
    assert again.origin is picture
    shutil.copy(again.path, tmp_path / "photo-filled-3.png")
    reopened = opened(handlers, tmp_path / "photo-filled-3.png", visitor)
    assert handlers.fill(hole(), reopened, visitor).name == "photo-filled-4.png"


def test_another_is_the_next_variant_of_the_same_photo_and_mask(
    whole_photo: Handlers, photo: Path
) -> None:
    handlers = whole_photo
    visitor = Visitors(handlers.store.private).new()
    first = handlers.fill(hole(WIDE), opened(handlers, photo, visitor), visitor)
    for variant in (1, 2):
        result = handlers.another(first, visitor)
        assert (result.parent, result.variant) == (first.parent, variant)
        expected = handlers.inpainter(read_image(photo), hole(WIDE), variant=variant)
        assert (np.asarray(read_image(result.path)) == np.asarray(expected)).all()
    assert len({picture.path.read_bytes() for picture in visitor.pictures}) == 4
    # Another mask begins anew.
    other = handlers.fill(hole(WIDE), visitor.pictures[-1], visitor)
    assert handlers.another(other, visitor).variant == 1


@pytest.mark.parametrize(
    ("method", "numba", "box", "reason"),
    [
        ("auto", True, (20, 12, 28, 42), "only holes wide all along, 9 pixels"),
        ("auto", False, (20, 12, 43, 35), "the network fills alone"),
        ("network", True, (20, 12, 43, 35), "the network fills alone"),
    ],
)
def test_another_that_would_be_the_same_is_said_so_in_one_line(
    handlers: Handlers,
    visitor: Visitor,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    numba: bool,
    box: Box,
    reason: str,
) -> None:
    monkeypatch.setattr("regionnorm.filling.inpainter.numba_works", lambda: numba)
    handlers.inpainter.method = method
    result = handlers.fill(hole(box), opened(handlers, photo, visitor), visitor)
    before = files_in(visitor.folder)
    with pytest.raises(ValueError, match=rf"^another fill would be the same: {reason}.*$"):
        handlers.another(result, visitor)
    with pytest.raises(ValueError, match="nothing is filled yet"):
        handlers.another(result.origin, visitor)
    assert files_in(visitor.folder) == before


def test_newcomers_without_photos_push_nobody_out(
    handlers: Handlers, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regionnorm.web.visitors._MOST_VISITORS", 3)
    visitors = Visitors(handlers.store.private)
    busy = [visitors.new(), visitors.new()]
    for visitor in busy:
        opened(handlers, photo, visitor)
    for _ in range(9):
        last = visitors.new()
    assert all(visitors.knows(visitor.name) for visitor in (*busy, last))
    # Where all have brought something, who was not seen for longest leaves.
    opened(handlers, photo, last)
    visitors.get(busy[0].name)
    newest = visitors.new()
    left = [visitors.knows(visitor.name) for visitor in (*busy, last, newest)]
    assert left == [True, False, True, True]


def test_what_is_made_of_a_picture_counts_as_the_visitors(
    handlers: Handlers, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitors(handlers.store.private).new()
    pictures = [opened(handlers, photo, visitor) for _ in range(4)]
    monkeypatch.setattr("regionnorm.web.visitors._MOST_BYTES", 100_000)
    made = pictures[-1].path.parent / "made"
    made.mkdir(exist_ok=True)
    (made / "view.png").write_bytes(bytes(100_000))
    opened(handlers, photo, visitor)
    assert pictures[-1] in visitor.pictures and pictures[0] not in visitor.pictures


def test_visitors_that_leave_leave_nothing(handlers: Handlers, photo: Path) -> None:
    visitors = Visitors(handlers.store.private)
    staying, leaving = visitors.new(), visitors.new()
    for visitor in (staying, leaving):
        handlers.fill(hole(), opened(handlers, photo, visitor), visitor)
    now = time.monotonic()
    leaving.seen = now - 3700
    visitors.remove_old(now)
    assert not leaving.folder.exists()
    assert len(files_in(staying.folder)) == 2
    visitors.remove_old(now + 7 * 3600)
    assert files_in(handlers.store.private) == []
    with pytest.raises(Gone, match="reload"):
        visitors.get(leaving.name)


def test_thumbnails_show_the_part_that_changed(
    handlers: Handlers, visitor: Visitor, tmp_path: Path
) -> None:
    photo = Image.new("RGB", (600, 400), "white")
    photo.paste("red", (450, 250, 600, 400))
    photo.save(tmp_path / "photo.png")
    handlers = replace(handlers, max_megapixels=1)
    picture = opened(handlers, tmp_path / "photo.png", visitor)
    result = handlers.fill(hole((500, 300, 540, 340), (600, 400)), picture, visitor)
    levels = np.asarray(read_image(thumbnail(result, 96))).reshape(-1, 3).mean(axis=0)
    assert levels[0] > 200 and levels[1] < 60
    assert np.asarray(read_image(thumbnail(picture, 96))).mean() > 200


# --- regions and examples ------------------------------------------------------------------------


def test_regions_are_shown_for_the_layers_that_see_two(
    handlers: Handlers, visitor: Visitor, photo: Path
) -> None:
    picture = opened(handlers, photo, visitor)
    pictures, summary = handlers.regions(picture)
    assert (pictures, "Fill something first" in summary) == ([], True)
    pictures, summary = handlers.regions(handlers.fill(hole(), picture, visitor))
    assert f"{len(pictures)} of 4 RN-L layers" in summary
    assert all(shown.size == (61, 47) for shown, _ in pictures)


def test_example_photos_are_there_with_and_without_scikit_image(tmp_path: Path) -> None:
    assert len(write_examples(tmp_path / "bundled")) == 4
    drawn = _drawn(tmp_path / "drawn")
    assert len(drawn) == 3
    assert all(np.asarray(read_image(path)).std() > 20 for path in drawn)
