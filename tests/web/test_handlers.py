"""What the app does with photos, masks and fills, without a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regionnorm.filling.inpainter import Inpainter
from regionnorm.imaging import read_image, read_mask
from regionnorm.web.examples import _drawn, write_examples
from regionnorm.web.handlers import Handlers
from regionnorm.web.session import HISTORY, Session, Store

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


def painted(size: tuple[int, int], box: tuple[int, int, int, int] = (20, 12, 40, 30)) -> str:
    """A mask with a box, as the page sends it."""
    mask = Image.new("L", size)
    mask.paste(255, box)
    buffer = io.BytesIO()
    mask.convert("RGB").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


# --- photos --------------------------------------------------------------------------------------


def test_opened_photo_is_described_upright(
    handlers: Handlers, tmp_path: Path, make_photo: Maker
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    make_photo(64, 40).save(tmp_path / "turned.jpg", exif=exif)
    session, told = handlers.open_photo(str(tmp_path / "turned.jpg"), None)
    assert (told["name"], told["width"], told["height"]) == ("turned.jpg", 40, 64)
    assert told["mask"] == session.canvas == (40, 64)
    data = base64.b64decode(told["preview"].partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (40, 64)


def test_photo_above_the_limit_is_refused_before_it_is_decoded(
    handlers: Handlers, tmp_path: Path
) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (400, 300)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:60])  # decoding it would fail
    with pytest.raises(ValueError, match=r"large.png is 400x300, 0 megapixels; up to"):
        handlers.open_photo(str(path), None)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(99)])
def test_what_is_no_photo_is_refused_in_one_line(
    handlers: Handlers, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^.*odd\.png.*$"):
        handlers.open_photo(str(path), None)


def test_only_photos_that_are_in_use_are_kept(handlers: Handlers, photo: Path) -> None:
    session, _ = handlers.open_photo(str(photo), None)
    for _ in range(3):
        session, _ = handlers.open_photo(str(photo), session)
    assert len(files_in(session.folder)) == 1


def test_mask_of_huge_photos_is_painted_smaller_and_filled_at_full_size() -> None:
    session = Session(Path(), size=(8000, 6000))
    width, height = session.canvas
    assert 15e6 < width * height <= 4096 * 4096
    assert width / height == pytest.approx(8000 / 6000, rel=1e-3)
    assert Session(Path(), size=(4000, 3000)).canvas == (4000, 3000)


# --- masks ---------------------------------------------------------------------------------------


def test_loaded_mask_comes_back_opaque_where_the_hole_is(
    handlers: Handlers, photo: Path, tmp_path: Path, make_mask: Maker
) -> None:
    session, _ = handlers.open_photo(str(photo), None)
    make_mask(61, 47).save(tmp_path / "mask.png")
    url, warnings = handlers.load_mask(str(tmp_path / "mask.png"), session)
    assert warnings == ()
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    hole = np.asarray(picture.getchannel("A")) > 0
    assert (hole == read_mask(tmp_path / "mask.png")).all()


def test_loaded_mask_that_looks_inverted_is_said_so(
    handlers: Handlers, photo: Path, tmp_path: Path, make_mask: Maker
) -> None:
    session, _ = handlers.open_photo(str(photo), None)
    make_mask(61, 47).point(lambda level: 255 - level).save(tmp_path / "mask.png")
    _, warnings = handlers.load_mask(str(tmp_path / "mask.png"), session)
    assert len(warnings) == 1


def test_loaded_mask_of_another_size_is_refused(
    handlers: Handlers, photo: Path, tmp_path: Path, make_mask: Maker
) -> None:
    session, _ = handlers.open_photo(str(photo), None)
    make_mask(60, 47).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask is 60x47 but photo.png is 61x47"):
        handlers.load_mask(str(tmp_path / "mask.png"), session)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "no PNG"),
        ("data:image/png;base64,????", "no PNG"),
        ("data:image/png;base64,aaaa", "no PNG"),
        ("data:image/gif;base64,aaaa", "no PNG"),
        (painted((60, 47)), "is 60x47, not 61x47"),
        (painted((61, 47), (0, 0, 0, 0)), "nothing is painted"),
        (painted((61, 47), (0, 0, 61, 47)), "white everywhere"),
    ],
)
def test_painted_mask_that_cannot_be_used_is_refused(
    handlers: Handlers, photo: Path, url: str, message: str
) -> None:
    session, _ = handlers.open_photo(str(photo), None)
    with pytest.raises(ValueError, match=message):
        handlers.fill(url, session)
    assert files_in(handlers.store.public) == []


def test_nothing_works_before_a_photo_is_chosen(handlers: Handlers) -> None:
    for action in (
        lambda: handlers.fill(painted((61, 47)), None),
        lambda: handlers.load_mask("mask.png", None),
        lambda: handlers.open_result(None),
        lambda: handlers.go_back(0, None),
        lambda: handlers.another(None),
        lambda: handlers.another(handlers.store.new_session()),
    ):
        with pytest.raises(ValueError, match=r"choose|paint|reload"):
            action()


# --- filling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "suffix", "written"),
    [("RGB", "png", "png"), ("RGBA", "webp", "webp"), ("L", "tif", "tif"), ("RGB", "jpg", "jpg")],
)
def test_result_has_the_photos_format_and_size(
    handlers: Handlers, tmp_path: Path, make_photo: Maker, mode: str, suffix: str, written: str
) -> None:
    path = tmp_path / f"a photo.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    make_photo(61, 47, mode).save(path, **options)
    session = handlers.fill(painted((61, 47)), handlers.open_photo(str(path), None)[0])
    result = handlers.shown(session).result
    assert result.name == f"a photo-filled.{written}"
    with Image.open(path) as before, Image.open(result) as after:
        assert (after.format, after.mode, after.size) == (before.format, before.mode, before.size)
        if suffix != "jpg":
            hole = read_mask(handlers.shown(session).mask)
            assert (np.asarray(before) == np.asarray(after))[~hole].all()
            assert (np.asarray(before) != np.asarray(after))[hole].any()


def test_fill_equals_the_inpainters(handlers: Handlers, photo: Path, small_weights: Path) -> None:
    session = handlers.fill(painted((61, 47)), handlers.open_photo(str(photo), None)[0])
    shown = handlers.shown(session)
    expected = Inpainter(small_weights)(read_image(photo), read_mask(shown.mask))
    assert (np.asarray(read_image(shown.result)) == np.asarray(expected)).all()


def test_history_leads_back_to_the_last_fills(handlers: Handlers, photo: Path) -> None:
    session, _ = handlers.open_photo(str(photo), None)
    for width in range(1, HISTORY + 3):
        session = handlers.fill(painted((61, 47), (20, 12, 20 + width, 30)), session)
    assert len(handlers.history(session)) == HISTORY
    session = handlers.go_back(HISTORY - 1, session)
    assert read_mask(handlers.shown(session).mask).sum() == 3 * 18
    # No more files than the history needs: the photo, and a mask and a result for each fill.
    assert len(files_in(session.folder)) == 1 + HISTORY
    assert len(files_in(handlers.store.public)) == HISTORY


def test_result_can_be_painted_on(handlers: Handlers, photo: Path) -> None:
    session = handlers.fill(painted((61, 47)), handlers.open_photo(str(photo), None)[0])
    session, told = handlers.open_result(session)
    assert told["name"] == "photo-filled.png"
    session = handlers.fill(painted((61, 47), (2, 2, 10, 10)), session)
    before, after = handlers.comparison(session)
    assert before.size == after.size == (61, 47)


def test_another_is_the_next_variant_of_the_shown_fill_whatever_was_opened_since(
    whole_photo: Handlers, photo: Path, tmp_path: Path, make_photo: Maker
) -> None:
    handlers = whole_photo
    session = handlers.fill(painted((61, 47), WIDE), handlers.open_photo(str(photo), None)[0])
    first = handlers.shown(session)
    make_photo(50, 40, seed=1).save(tmp_path / "next.png")
    session, _ = handlers.open_photo(str(tmp_path / "next.png"), session)
    for variant in (1, 2):
        session = handlers.another(session)
        shown = handlers.shown(session)
        assert (shown.photo, shown.mask) == (first.photo, first.mask)
        expected = handlers.inpainter(read_image(photo), read_mask(first.mask), variant=variant)
        assert (np.asarray(read_image(shown.result)) == np.asarray(expected)).all()
    assert len({fill.result.read_bytes() for fill in session.fills}) == 3
    assert session.photo is not None and session.photo.name == "next.png"

    # From an earlier fill it goes on after the last of them, too.
    session = handlers.another(handlers.go_back(2, session))
    assert [name for _, name in handlers.history(session)] == [
        *(f"photo-filled-{number}.png" for number in (4, 3, 2)),
        "photo-filled.png",
    ]


def test_photo_and_mask_are_kept_while_the_history_has_another_of_them(
    whole_photo: Handlers, photo: Path
) -> None:
    handlers = whole_photo
    session = handlers.fill(painted((61, 47), WIDE), handlers.open_photo(str(photo), None)[0])
    for _ in range(HISTORY + 1):
        session = handlers.another(session)
    assert session.fills[-1].variant == 2
    assert len(files_in(session.folder)) == 2
    assert len(files_in(handlers.store.public)) == HISTORY


@pytest.mark.parametrize(
    ("method", "numba", "box", "reason"),
    [
        ("auto", True, (20, 12, 42, 42), "only holes 23 pixels wide or more"),
        ("auto", False, (20, 12, 43, 35), "the network fills alone"),
        ("network", True, (20, 12, 43, 35), "the network fills alone"),
        ("network", True, (20, 12, 42, 42), "the network fills alone"),
    ],
)
def test_another_that_would_be_the_same_is_said_so_in_one_line(
    handlers: Handlers,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    numba: bool,
    box: tuple[int, int, int, int],
    reason: str,
) -> None:
    monkeypatch.setattr("regionnorm.filling.inpainter.numba_works", lambda: numba)
    handlers.inpainter.method = method
    session = handlers.fill(painted((61, 47), box), handlers.open_photo(str(photo), None)[0])
    before = files_in(handlers.store.public)
    with pytest.raises(ValueError, match=rf"^another fill would be the same: {reason}.*$"):
        handlers.another(session)
    assert files_in(handlers.store.public) == before
    assert len(session.fills) == 1


def test_narrow_holes_have_another_fill_where_all_comes_from_the_photo(
    whole_photo: Handlers, photo: Path
) -> None:
    handlers = whole_photo
    session = handlers.fill(painted((61, 47)), handlers.open_photo(str(photo), None)[0])
    one, two = handlers.another(session).fills
    assert one.result.read_bytes() != two.result.read_bytes()


def test_visitors_that_leave_leave_nothing(handlers: Handlers, photo: Path) -> None:
    session = handlers.fill(painted((61, 47)), handlers.open_photo(str(photo), None)[0])
    session.delete()
    assert files_in(handlers.store.private) == files_in(handlers.store.public) == []


def test_results_of_one_content_lie_in_different_places(handlers: Handlers, photo: Path) -> None:
    results = set()
    for _ in range(2):
        session = handlers.fill(painted((61, 47)), handlers.open_photo(str(photo), None)[0])
        results.add(handlers.shown(session).result)
    assert len(results) == 2
    assert all(len(path.parent.name) >= 32 for path in results)


def test_expired_results_are_named_as_such(handlers: Handlers, photo: Path) -> None:
    session = handlers.fill(painted((61, 47)), handlers.open_photo(str(photo), None)[0])
    handlers.shown(session).result.unlink()
    with pytest.raises(ValueError, match="expired; fill again"):
        handlers.comparison(session)


# --- regions and examples ------------------------------------------------------------------------


def test_regions_are_shown_for_the_layers_that_see_two(handlers: Handlers, photo: Path) -> None:
    pictures, summary = handlers.regions(None)
    assert (pictures, "Fill a hole first" in summary) == ([], True)
    session = handlers.fill(painted((61, 47)), handlers.open_photo(str(photo), None)[0])
    pictures, summary = handlers.regions(session)
    assert f"{len(pictures)} of 4 RN-L layers" in summary
    assert all(picture.size == (61, 47) for picture, _ in pictures)


def test_example_photos_are_there_with_and_without_scikit_image(tmp_path: Path) -> None:
    assert len(write_examples(tmp_path / "bundled")) == 4
    drawn = _drawn(tmp_path / "drawn")
    assert len(drawn) == 3
    assert all(np.asarray(read_image(path)).std() > 20 for path in drawn)
