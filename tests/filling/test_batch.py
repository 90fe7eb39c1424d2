"""Folders: several photos at once, what exists, reports, masks by rule."""

from __future__ import annotations

import csv
import os
import signal
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from regionnorm.files.pairing import count_results
from regionnorm.filling.batch import BatchReport, inpaint_path
from regionnorm.filling.expand import Margins
from regionnorm.imaging import read_image, read_mask
from regionnorm.masks.check import MaskOptions

Maker = Callable[..., Image.Image]


def red(photo: Image.Image, hole: np.ndarray) -> Image.Image:
    return Image.new("RGB", photo.size, (255, 0, 51))


@pytest.fixture
def folders(tmp_path: Path, make_photo: Maker, make_mask: Maker) -> tuple[Path, Path]:
    """Six photos of several formats, and a mask each."""
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    for number, suffix in enumerate((".png", ".jpg", ".tif", ".webp", ".bmp", ".gif")):
        photo = make_photo(40 + number, 30, seed=number)
        (photo.quantize() if suffix == ".gif" else photo).save(photos / f"{number}{suffix}")
        make_mask(40 + number, 30).save(masks / f"{number}.png")
    return photos, masks


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- what is in a folder -------------------------------------------------------------------------


def test_accents_are_the_same_however_they_are_written(
    tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    composed, apart = (unicodedata.normalize(form, "Müller é") for form in ("NFC", "NFD"))
    make_photo(40, 30).save(photos / f"{composed}1.png")
    make_mask(40, 30).save(masks / f"{apart}1.png")
    make_photo(40, 30).save(photos / f"{apart}2.png")
    for suffix in (".png", ".bmp"):  # two masks fit: the one of the photo's name is taken
        make_mask(40, 30).save(masks / f"{composed}2{suffix}")
    report = inpaint_path(red, photos, masks, tmp_path / "out")
    assert len(report.done) == 2 and not report.failed


def test_nothing_in_a_folder_is_passed_over_in_silence(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    photos, masks = folders
    with Image.open(photos / "0.png") as first, Image.open(photos / "1.jpg") as second:
        first.save(photos / "two.mpo", format="MPO", save_all=True, append_images=[second])
        first.save(photos / "old.tga")
        (masks / "two.png").write_bytes((masks / "0.png").read_bytes())
    (photos / "notes.txt").write_text("none")
    (photos / ".hidden").write_text("none")
    (photos / "gone.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (masks / "gone.png").write_bytes((masks / "0.png").read_bytes())
    os.mkfifo(photos / "pipe.png")
    report = inpaint_path(red, photos, masks, photos / "out")
    assert {path.name for path in report.left_out} == {"old.tga", "notes.txt", "pipe.png"}
    assert photos / "out" / "two.mpo" in report.done
    ((path, reason),) = report.failed
    assert path.name == "gone.jpg" and "is a link to" in reason and "elsewhere" in reason


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, masks = folders
    (photos / "secret").mkdir()
    walk = os.walk

    def refusing(top: str, onerror: Callable[[OSError], None]) -> object:
        onerror(PermissionError(13, "Permission denied", str(photos / "secret")))
        return walk(top, onerror=onerror)

    monkeypatch.setattr(os, "walk", refusing)
    report = inpaint_path(red, photos, masks, tmp_path / "out", recursive=True)
    assert [path.name for path, _ in report.failed] == ["secret"]


def test_photos_of_one_stem_have_a_mask_and_a_preview_each(
    tmp_path: Path, make_photo: Maker
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, left in (("a.jpg", 4), ("a.png", 20), ("b.png", 9)):
        photo = make_photo(40, 30)
        photo.paste("#00ff00", (left, 5, left + 8, 20))
        photo.save(photos / name, **({"quality": 100} if name == "a.jpg" else {}))
    places = {"save_mask": tmp_path / "masks", "preview": tmp_path / "seen"}
    report = inpaint_path(red, photos, "color:#00ff00~40", tmp_path / "out", **places)
    assert not report.failed and len(report.done) == 3
    for place in places.values():
        assert {path.name for path in place.iterdir()} == {"a.jpg.png", "a.png.png", "b.png"}
    # Given again, each finds its own.
    again = inpaint_path(red, photos, places["save_mask"], tmp_path / "again")
    assert not again.failed and len(again.done) == 3
    for path in report.done:
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_masks_and_previews_among_the_photos_are_no_photos(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    photos, masks = folders
    places = {"save_mask": photos / "masks", "preview": photos / "seen"}
    reports = [
        inpaint_path(red, photos, masks, photos / "out", recursive=True, **places) for _ in range(2)
    ]
    assert [len(report.done) for report in reports] == [6, 0]
    assert len(reports[1].skipped) == 6
    assert not any(report.failed or report.left_out for report in reports)
    for what, place in (("save_mask", photos), ("preview", photos)):
        with pytest.raises(ValueError, match="is given for the photos, too"):
            inpaint_path(red, photos, masks, tmp_path / "out", **{what: place})


# --- several at once, and once more --------------------------------------------------------------


def test_several_jobs_give_what_one_gives(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    reports = [inpaint_path(red, *folders, tmp_path / f"out{n}", jobs=n) for n in (1, 4)]
    assert [path.name for path in reports[0].done] == [path.name for path in reports[1].done]
    for path in reports[0].done:
        assert path.read_bytes() == (tmp_path / "out4" / path.name).read_bytes()


def test_no_more_photos_are_worked_on_than_jobs(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    lock, busy, most = threading.Lock(), 0, 0
    both = threading.Barrier(2, timeout=30)

    def counted(photo: Image.Image, hole: np.ndarray) -> Image.Image:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        both.wait()  # six photos, two at a time
        with lock:
            busy -= 1
        return red(photo, hole)

    assert len(inpaint_path(counted, *folders, tmp_path / "out", jobs=2).done) == 6
    assert most == 2


def test_what_exists_is_skipped_and_the_rest_filled(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    out = tmp_path / "out"
    calls = 0

    def stops(photo: Image.Image, hole: np.ndarray) -> Image.Image:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return red(photo, hole)

    with pytest.raises(KeyboardInterrupt):
        inpaint_path(stops, *folders, out)
    first = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert len(first) == 3
    report = inpaint_path(red, *folders, out)
    assert [path.name for path in report.skipped] == ["0.png", "1.jpg", "2.tif"]
    assert [path.name for path in report.done] == ["3.webp", "4.bmp", "5.gif"]
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())
    assert len(inpaint_path(red, *folders, out, overwrite=True).done) == 6


def test_originals_are_never_touched(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    files = [path for folder in folders for path in folder.iterdir()]
    before = {path: path.read_bytes() for path in files}
    inpaint_path(red, *folders, tmp_path / "out", jobs=3, overwrite=True)
    assert {path: path.read_bytes() for path in files} == before


# --- the report ----------------------------------------------------------------------------------


def test_the_report_has_a_line_for_each_photo(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (folders[0] / "1.jpg").write_bytes(b"no photo")
    (folders[1] / "2.png").unlink()
    report = tmp_path / "new" / "report.csv"
    inpaint_path(red, *folders, tmp_path / "out", report=report, jobs=2)
    by_name = {Path(row["photo"]).name: row for row in rows(report)}
    assert len(by_name) == 6
    good = by_name["0.png"]
    assert (good["status"], good["width"], good["height"]) == ("filled", "40", "30")
    assert good["result"] == str(tmp_path / "out" / "0.png")
    assert 10 < float(good["hole_percent"]) < 20
    assert by_name["1.jpg"]["status"] == "failed"
    assert "no image" in by_name["1.jpg"]["message"]
    assert "no mask 2.png" in by_name["2.tif"]["message"]


def test_a_second_run_adds_to_the_report(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    report = tmp_path / "report.csv"
    for _ in range(2):
        inpaint_path(red, *folders, tmp_path / "out", report=report)
    assert [row["status"] for row in rows(report)] == ["filled"] * 6 + ["skipped"] * 6


def test_a_folder_interrupted_in_the_middle_reports_all_that_is_there(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(photo: Image.Image, hole: object) -> Image.Image:
        begun.release()
        assert go_on.wait(60)
        return photo

    def interrupt() -> None:
        for _ in range(3):
            begun.acquire()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        go_on.set()

    threading.Thread(target=interrupt, daemon=True).start()
    report, out = tmp_path / "report.csv", tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        inpaint_path(slow, *folders, out, report=report, jobs=3)
    told = {Path(row["result"]).name for row in rows(report)}
    assert told == {path.name for path in out.iterdir()} and len(told) == 3


def test_a_photo_that_failed_is_not_taken_for_done_by_anothers_result(
    tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    make_mask(40, 30).save(tmp_path / "mask.png")
    make_photo(40, 30).save(photos / "a.bmp.png")
    (photos / "a.bmp").write_bytes(b"no photo")
    for _ in range(2):
        report = inpaint_path(red, photos, tmp_path / "mask.png", out)
        assert [path.name for path, _ in report.failed] == ["a.bmp"]
    make_photo(40, 30).save(photos / "a.bmp")
    report = inpaint_path(red, photos, tmp_path / "mask.png", out)
    assert [path.name for path in report.done] == ["a.bmp"]
    # A result that its own format cannot hold does not take the place of another photo's either.
    image = make_photo(40, 30).convert("RGBA")
    image.putalpha(90)
    for name, kind in (("b.jpg", "PNG"), ("b.jpg.png", "PNG")):
        image.save(photos / name, kind)
    report = inpaint_path(red, photos, tmp_path / "mask.png", out, overwrite=True)
    assert [path.name for path, _ in report.failed] == ["b.jpg"]
    assert "is the result of another photo; rename one" in report.failed[0][1]


def test_a_folder_named_like_a_result_is_none(
    tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    (tmp_path / "photos").mkdir()
    make_photo(40, 30).save(tmp_path / "photos" / "a.png")
    make_mask(40, 30).save(tmp_path / "mask.png")
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    report = inpaint_path(red, tmp_path / "photos", tmp_path / "mask.png", tmp_path / "out")
    assert [path.name for path, _ in report.failed] == ["a.png"]


def test_names_as_long_as_they_can_be_are_filled_and_found_again(
    tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    (tmp_path / "photos").mkdir()
    make_photo(40, 30).save(tmp_path / "photos" / f"{'x' * 251}.png")
    make_mask(40, 30).save(tmp_path / "mask.png")
    where = tmp_path / "photos", tmp_path / "mask.png", tmp_path / "out"
    assert len(inpaint_path(red, *where).done) == 1
    assert len(inpaint_path(red, *where).skipped) == 1
    assert count_results(*where, recursive=False) == 1


@pytest.mark.parametrize(
    ("output", "other"),
    [
        ("new/", {"save_mask": "new/photo.png"}),
        ("new", {"preview": "new/photo.png"}),
        ("new/", {"report": "new/photo.png"}),
    ],
)
def test_a_result_in_a_folder_is_not_written_over_what_else_is_named(
    tmp_path: Path,
    make_photo: Maker,
    make_mask: Maker,
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    other: dict[str, str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_photo(40, 30).save("photo.png")
    make_mask(40, 30).save("mask.png")
    with pytest.raises(ValueError, match=r"is named for the result and for the|named for the"):
        inpaint_path(red, "photo.png", "mask.png", output, **other)
    assert not Path("new").exists()


def test_masks_and_results_of_nested_folders_stay_apart(
    tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    for name in ("a.png", "sub/a.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        make_photo(40, 30).save(tmp_path / "photos" / name)
    make_mask(40, 30).save(tmp_path / "mask.png")
    where = tmp_path / "photos", tmp_path / "mask.png", tmp_path / "out"
    inside = tmp_path / "out" / "sub"
    with pytest.raises(ValueError, match=r"the mask of a\.png and the result of sub/a\.png would"):
        inpaint_path(red, *where, recursive=True, save_mask=inside)
    assert not list((tmp_path / "out").rglob("*.png"))
    assert len(inpaint_path(red, *where, save_mask=inside).done) == 1


@pytest.mark.parametrize("cut", [1, 2, 9, 60])
def test_a_line_that_was_being_written_does_not_take_the_next_with_it(
    tmp_path: Path, folders: tuple[Path, Path], cut: int
) -> None:
    (folders[0] / "0.png").write_bytes(b"no photo")
    (folders[1] / "1.png").unlink()
    report = tmp_path / "report.csv"
    inpaint_path(red, *folders, tmp_path / "out", report=report)
    whole = report.read_bytes()
    for end in range(1, 8):
        report.write_bytes(whole[: -cut * end])
        before = len(rows(report))
        inpaint_path(red, *folders, tmp_path / "out", report=report)
        added = [Path(row["photo"]).name for row in rows(report)[before:]]
        assert added == ["0.png", "1.jpg", "2.tif", "3.webp", "4.bmp", "5.gif"]


def test_another_file_is_never_taken_for_a_report(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    for content in (b"dear diary\n", bytes(range(256))):
        (tmp_path / "diary.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"diary\.csv exists and is no report"):
            inpaint_path(red, *folders, tmp_path / "out", report=tmp_path / "diary.csv")
        assert (tmp_path / "diary.csv").read_bytes() == content


# --- masks ---------------------------------------------------------------------------------------


def test_what_the_mask_doctor_says_comes_back_as_data(
    tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    make_photo(64, 48).save(tmp_path / "a.png")
    make_mask(64, 48).save(tmp_path / "mask.jpg", quality=50)
    report = inpaint_path(red, tmp_path / "a.png", tmp_path / "mask.jpg", tmp_path / "b.png")
    [(photo, warning)] = report.warnings
    assert photo == tmp_path / "a.png"
    assert "JPEG noise" in warning


def test_options_reach_the_mask(tmp_path: Path, make_photo: Maker, make_mask: Maker) -> None:
    make_photo(64, 48).save(tmp_path / "a.png")
    make_mask(32, 24).save(tmp_path / "mask.png")
    options = MaskOptions(dilate=3, fit=True)
    inpaint_path(
        red, tmp_path / "a.png", tmp_path / "mask.png", tmp_path / "b.png", mask_options=options
    )
    filled = (np.asarray(read_image(tmp_path / "b.png")) == [255, 0, 51]).all(2)
    plain = np.asarray(make_mask(64, 48)) > 0
    assert plain.sum() < filled.sum() < 2 * plain.sum()


def test_a_rule_makes_a_mask_for_every_photo(tmp_path: Path, make_photo: Maker) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        photo = make_photo(60, 40, seed=number)
        photo.paste((0, 255, 0), (5 * number, 5, 5 * number + 9, 20))
        photo.save(folder / f"{number}.png")
    report = inpaint_path(
        red,
        folder,
        "color:#00ff00~0",
        tmp_path / "out",
        save_mask=tmp_path / "masks",
        preview=tmp_path / "shown",
    )
    assert len(report.done) == 3
    hole = read_mask(tmp_path / "masks" / "1.png")
    assert hole.sum() == 9 * 15 and hole[5:20, 5:14].all()
    assert read_image(tmp_path / "shown" / "2.png").size == (60, 40)
    # The saved masks serve as a folder of masks.
    again = inpaint_path(red, folder, tmp_path / "masks", tmp_path / "again")
    assert [a.read_bytes() for a in again.done] == [b.read_bytes() for b in report.done]


def test_a_folder_goes_on_where_a_run_stopped_between_mask_and_result(
    tmp_path: Path, make_photo: Maker
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        photo = make_photo(60, 40)
        photo.paste((0, 255, 0), (5, 5, 14, 20))
        photo.save(folder / name)
    places = {"save_mask": tmp_path / "masks", "preview": tmp_path / "shown"}
    first = inpaint_path(red, folder, "color:#00ff00~0", tmp_path / "out", **places)
    for result in first.done:
        Path(result).unlink()
    Image.new("L", (60, 40), 255).save(tmp_path / "masks" / "b.png")  # someone's own
    again = inpaint_path(red, folder, "color:#00ff00~0", tmp_path / "out", **places)
    assert [Path(done).name for done in again.done] == ["a.png"]
    assert len(again.failed) == 1 and "b.png exists" in again.failed[0][1]
    assert read_mask(tmp_path / "masks" / "b.png").all()
    assert not (tmp_path / "out" / "b.png").exists()


def test_photos_in_which_a_rule_finds_nothing_are_copied(tmp_path: Path, make_photo: Maker) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for name in ("clean.png", "clean.jpg", "marked.png"):
        make_photo(60, 40).save(folder / name)
    with Image.open(folder / "marked.png") as marked:
        marked.paste((0, 255, 0), (5, 5, 15, 15))
        marked.save(folder / "marked.png")
    options = {"save_mask": tmp_path / "masks", "report": tmp_path / "report.csv"}
    report = inpaint_path(red, folder, "color:#00ff00~0", out, **options)
    assert report.done == [out / "marked.png"] and not report.failed
    assert report.unchanged == [folder / "clean.jpg", folder / "clean.png"]
    for photo in report.unchanged:
        assert (out / photo.name).read_bytes() == photo.read_bytes()
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["marked.png"]
    told = {Path(row["photo"]).name: row for row in rows(tmp_path / "report.csv")}
    assert told["clean.png"]["status"] == "nothing to fill"
    assert told["clean.png"]["result"] == str(out / "clean.png")
    assert "no pixel of the photo is #00ff00" in told["clean.png"]["message"]
    assert len(inpaint_path(red, folder, "color:#00ff00~0", out).skipped) == 3
    # Of one photo it is what the person did not get.
    single = inpaint_path(red, folder / "clean.png", "color:#00ff00~0", tmp_path / "one.png")
    assert len(single.failed) == 1 and not (tmp_path / "one.png").exists()


def test_photos_grow_where_a_rule_finds_nothing(tmp_path: Path, make_photo: Maker) -> None:
    make_photo(60, 40).save(tmp_path / "a.png")
    report = inpaint_path(
        red, tmp_path / "a.png", "color:#00ff00~0", tmp_path / "b.png", expand=Margins(left="10")
    )
    assert report.done == [tmp_path / "b.png"] and read_image(tmp_path / "b.png").width == 70
    ((_, words),) = report.warnings
    assert words.startswith("no pixel of the photo") and words.endswith(
        "only what is new is filled"
    )


def test_transparent_pixels_become_visible(tmp_path: Path, make_photo: Maker) -> None:
    photo = make_photo(40, 30, "RGBA")
    alpha = Image.new("L", (40, 30), 255)
    alpha.paste(0, (10, 10, 20, 20))
    photo.putalpha(alpha)
    photo.save(tmp_path / "a.png")
    inpaint_path(red, tmp_path / "a.png", "alpha", tmp_path / "b.png")
    result = np.asarray(read_image(tmp_path / "b.png"))
    assert (result[..., 3] == 255).all()
    assert (result[10:20, 10:20, :3] == [255, 0, 51]).all()


def test_mask_and_preview_are_saved_without_filling(tmp_path: Path, make_photo: Maker) -> None:
    photo = make_photo(60, 40)
    photo.paste((0, 255, 0), (5, 5, 15, 15))
    photo.save(tmp_path / "a.png")

    def never(photo: Image.Image, hole: np.ndarray) -> Image.Image:
        pytest.fail("the model ran")

    places = {"save_mask": tmp_path / "mask.png", "preview": tmp_path / "shown.jpg"}
    report = inpaint_path(never, tmp_path / "a.png", "color:#00ff00", None, **places)
    assert report == BatchReport()
    assert read_mask(tmp_path / "mask.png").sum() == 100
    assert read_image(tmp_path / "shown.jpg").size == (60, 40)
    with pytest.raises(ValueError, match="nothing to write"):
        inpaint_path(never, tmp_path / "a.png", "color:#00ff00", None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preview": "shown.txt"}, "shown.txt"),
        ({"preview": "shown.gif"}, "holds no RGB"),
        ({"save_mask": "mask.jpg"}, "JPEG adds noise"),
        ({"preview": "shown.webp"}, "WEBP holds 16383 pixels a side"),
        ({"preview": "there.png"}, "there.png exists"),
        ({"save_mask": "there.png/mask.png"}, "there.png"),
    ],
)
def test_nothing_is_written_where_a_part_of_it_is_refused(
    tmp_path: Path, make_photo: Maker, options: dict[str, str], words: str
) -> None:
    photo = make_photo(60, 40)
    photo.paste((0, 255, 0), (5, 5, 15, 15))
    if "WEBP" in words:
        photo = photo.resize((16400, 40), Image.Resampling.NEAREST)
    photo.save(tmp_path / "a.png")
    Image.new("L", (4, 4)).save(tmp_path / "there.png")
    places = {"save_mask": "mask.png", "preview": "shown.png"} | options
    extras = {key: tmp_path / name for key, name in places.items()}
    try:
        report = inpaint_path(
            red, tmp_path / "a.png", "color:#00ff00", tmp_path / "b.png", **extras
        )
        reason = report.failed[0][1]
    except (ValueError, OSError) as error:
        reason = str(error)
    assert words in reason and "\n" not in reason
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "there.png"]


def test_a_mask_or_a_preview_never_replaces_a_file(tmp_path: Path, make_photo: Maker) -> None:
    photo = make_photo(60, 40)
    photo.paste((0, 255, 0), (5, 5, 15, 15))
    photo.save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    for option in ("save_mask", "preview"):
        for overwrite in (False, True):
            report = inpaint_path(
                red,
                tmp_path / "a.png",
                "color:#00ff00",
                tmp_path / "b.png",
                overwrite=overwrite,
                **{option: tmp_path / "a.png"},
            )
            assert "a.png" in report.failed[0][1]
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"), [({"jobs": 0}, "jobs is 0"), ({"quality": 101}, "quality is 101")]
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, folders: tuple[Path, Path], options: dict[str, int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        inpaint_path(red, *folders, tmp_path / "out", **options)


# --- formats -------------------------------------------------------------------------------------


def test_16_bit_photos_stay_so_with_any_filler(tmp_path: Path, make_mask: Maker) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (30, 40)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    make_mask(40, 30).save(tmp_path / "mask.png")
    report = inpaint_path(red, tmp_path / "a.png", tmp_path / "mask.png", tmp_path / "b.png")
    hole = read_mask(tmp_path / "mask.png")
    with Image.open(report.done[0]) as image:
        values = np.asarray(image)
    assert values.dtype == np.uint16
    assert np.array_equal(values[~hole], deep[~hole])
    assert set(values[hole]) == {21089}  # the luma of the red in 16 bits


def test_an_animation_says_that_its_first_frame_is_filled(
    tmp_path: Path, make_photo: Maker, make_mask: Maker
) -> None:
    frames = [make_photo(40, 30, seed=number).quantize() for number in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    make_mask(40, 30).save(tmp_path / "mask.png")
    report = inpaint_path(red, tmp_path / "a.gif", tmp_path / "mask.png", tmp_path / "b.gif")
    assert "only the first" in report.warnings[0][1]
    with Image.open(report.done[0]) as image:
        assert (image.format, image.n_frames) == ("GIF", 1)


# --- soft masks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_gray_shows_as_much_of_the_fill_unless_it_is_noise(
    tmp_path: Path, make_photo: Maker, suffix: str
) -> None:
    photo = make_photo(40, 30)
    photo.save(tmp_path / "photo.png")
    levels = np.zeros((30, 40), np.uint8)
    levels[8:20, 10:30] = 255
    levels[8:20, 30:34] = (200, 150, 100, 50)
    mask = tmp_path / f"mask{suffix}"
    Image.fromarray(levels).save(mask, quality=95)
    inpaint_path(red, tmp_path / "photo.png", mask, tmp_path / "out.png")
    shown, known = (
        np.asarray(image).astype(float) for image in (Image.open(tmp_path / "out.png"), photo)
    )
    share = (
        levels[..., None] / 255
        if suffix == ".png"
        else np.asarray(Image.open(mask))[..., None] > 127
    )
    wanted = known + (np.array([255, 0, 51]) - known) * share
    assert abs(shown - wanted).max() <= 0.51


def test_a_saved_soft_mask_fills_the_same_again(tmp_path: Path, make_photo: Maker) -> None:
    make_photo(40, 30).save(tmp_path / "photo.png")
    soft = Image.fromarray(np.pad(np.full((12, 12), 255, np.uint8), ((9, 9), (14, 14))))
    soft.filter(ImageFilter.GaussianBlur(2)).save(tmp_path / "mask.png")
    first, again, saved = (tmp_path / f"{name}.png" for name in ("first", "again", "saved"))
    inpaint_path(red, tmp_path / "photo.png", tmp_path / "mask.png", first, save_mask=saved)
    inpaint_path(red, tmp_path / "photo.png", saved, again)
    assert np.array_equal(Image.open(first), Image.open(again))


@pytest.mark.parametrize("extra", ["save_mask", "preview", "report"])
def test_nothing_is_written_over_another_result(
    tmp_path: Path, make_photo: Maker, make_mask: Maker, extra: str
) -> None:
    make_photo(40, 30).save(tmp_path / "photo.png")
    make_mask(40, 30).save(tmp_path / "mask.png")
    places = {"output": tmp_path / "out.png", extra: tmp_path / "." / "out.png"}
    with pytest.raises(ValueError, match="give each its own"):
        inpaint_path(red, tmp_path / "photo.png", tmp_path / "mask.png", **places)
    assert not (tmp_path / "out.png").exists()
