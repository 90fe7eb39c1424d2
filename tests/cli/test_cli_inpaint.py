"""``regionnorm inpaint``: masks, folders, what it prints."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regionnorm.cli import console
from regionnorm.filling.inpainter import Inpainter
from regionnorm.imaging import read_image, read_mask

RunCli = Callable[..., tuple[int, str, str]]
Maker = Callable[..., Image.Image]


@pytest.fixture
def photo(tmp_path: Path, make_photo: Maker) -> Path:
    path = tmp_path / "photo.png"
    image = make_photo(60, 44)
    image.paste((0, 255, 0), (20, 10, 40, 30))
    image.save(path)
    return path


@pytest.fixture
def mask(tmp_path: Path, make_mask: Maker) -> Path:
    path = tmp_path / "mask.png"
    make_mask(60, 44).save(path)
    return path


def changed(before: Path, after: Path) -> np.ndarray:
    return (np.asarray(read_image(before)) != np.asarray(read_image(after))).any(2)


def test_warnings_name_the_photo_on_stderr_and_do_not_fail(
    run_cli: RunCli, tmp_path: Path, photo: Path, make_mask: Maker, small_weights: Path
) -> None:
    make_mask(60, 44).save(tmp_path / "mask.jpg", quality=40)
    out = tmp_path / "out.png"
    code, printed, err = run_cli(
        "inpaint", photo, "-m", tmp_path / "mask.jpg", "-o", out, "--model", small_weights
    )
    assert (code, printed) == (0, f"{out}\n")
    assert err.startswith(f"Warning: {photo}: ")
    assert "JPEG noise" in err and err.count("\n") == 1


def test_what_the_library_advises_is_told_with_the_flag_that_does_it(
    run_cli: RunCli, tmp_path: Path, photo: Path, make_mask: Callable[..., Image.Image]
) -> None:
    make_mask(40, 30).save(tmp_path / "small.png")
    code, _, err = run_cli(
        "inpaint", photo, "-m", tmp_path / "small.png", "--preview", tmp_path / "hole.png"
    )
    assert code != 0 and "or have it scaled (--fit-mask)" in err
    package = Path(console.__file__).parents[1]
    rooms = ("masks", "filling", "web", "cli")
    library = [
        path.read_text("utf-8") for room in rooms for path in package.glob(f"{room}/**/*.py")
    ]
    for advice in console.FLAGS:
        assert sum(advice in text for text in library) >= 2, advice


def test_no_flag_is_advised_that_the_command_lacks(
    run_cli: RunCli, tmp_path: Path, photo: Path, make_mask: Callable[..., Image.Image]
) -> None:
    pytest.importorskip("matplotlib")
    make_mask(60, 44).save(tmp_path / "mask.jpg", quality=30)
    for command, advised in (("inpaint", True), ("visualize", False)):
        code, _, err = run_cli(
            command, photo, "--mask", tmp_path / "mask.jpg", "--output", tmp_path / f"{command}.png"
        )
        assert code == 0, err
        assert "widen the mask by 2 pixels" in err
        assert ("--dilate" in err) == advised


def test_the_mask_options_work_together(
    run_cli: RunCli, tmp_path: Path, photo: Path, make_mask: Maker, small_weights: Path
) -> None:
    small = np.asarray(make_mask(30, 22))
    Image.fromarray(255 - small).save(tmp_path / "small.png")
    out, saved = tmp_path / "out.png", tmp_path / "saved.png"
    options = ("--invert-mask", "--fit-mask", "--dilate", 2, "--feather", 4, "--save-mask", saved)
    code, _, err = run_cli(
        "inpaint",
        photo,
        "-m",
        tmp_path / "small.png",
        "-o",
        out,
        *options,
        "--model",
        small_weights,
    )
    assert (code, err) == (0, "")
    hole = read_mask(saved)
    assert (np.asarray(make_mask(60, 44)) > 0)[~hole].sum() == 0
    assert not changed(photo, out)[~hole].any()


def test_a_colour_key_is_previewed_without_loading_a_network(
    run_cli: RunCli, tmp_path: Path, photo: Path
) -> None:
    shown, saved = tmp_path / "shown.png", tmp_path / "saved.png"
    arguments = ("-m", "color:#00ff00", "--preview", shown, "--save-mask", saved)
    code, printed, error = run_cli("inpaint", photo, *arguments, "--model", "none such")
    assert (code, printed, error) == (0, f"{saved}\n{shown}\n", "")
    assert read_mask(saved).sum() == 400
    assert (np.asarray(read_image(shown))[read_mask(saved)][:, 0] >= 170).all()


def test_nothing_to_write_is_wrong_usage(run_cli: RunCli, photo: Path) -> None:
    code, _, err = run_cli("inpaint", photo, "-m", "color:#00ff00")
    assert code == 2
    assert "nothing to write" in err and err.count("\n") == 1


@pytest.mark.parametrize("strategy", ["original", "crop", "resize"])
def test_every_strategy_keeps_known_pixels(
    run_cli: RunCli, tmp_path: Path, photo: Path, mask: Path, small_weights: Path, strategy: str
) -> None:
    out = tmp_path / "out.png"
    arguments = ("-m", mask, "-o", out, "--strategy", strategy, "--model", small_weights)
    assert run_cli("inpaint", photo, *arguments)[0] == 0
    assert not changed(photo, out)[~read_mask(mask)].any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--strategy", "tiles"), "'tiles' is not known"),
        (("--feather", 999), "feather is 999"),
        (("--dilate", 5000), "dilate is 5000"),
        (("--quality", 0), "--quality"),
        (("--jobs", 0), "--jobs"),
    ],
)
def test_options_that_make_no_sense_are_one_line(
    run_cli: RunCli,
    tmp_path: Path,
    photo: Path,
    mask: Path,
    small_weights: Path,
    options: tuple[object, ...],
    words: str,
) -> None:
    arguments = ("-m", mask, "-o", tmp_path / "out.png", "--model", small_weights)
    code, _, err = run_cli("inpaint", photo, *arguments, *options)
    assert code == 2
    assert words in err and err.count("\n") == 1


def test_quality_is_taken_for_jpeg(
    run_cli: RunCli, tmp_path: Path, photo: Path, mask: Path, small_weights: Path
) -> None:
    sizes = []
    for quality in (20, 95):
        out = tmp_path / f"{quality}.jpg"
        arguments = ("-m", mask, "-o", out, "--quality", quality, "--model", small_weights)
        assert run_cli("inpaint", photo, *arguments)[0] == 0
        sizes.append(out.stat().st_size)
    assert sizes[0] < sizes[1] / 2


def test_a_folder_is_resumed_and_reported(
    run_cli: RunCli, tmp_path: Path, make_photo: Maker, mask: Path, small_weights: Path
) -> None:
    folder, out, report = tmp_path / "in", tmp_path / "out", tmp_path / "report.csv"
    folder.mkdir()
    for number in range(4):
        make_photo(60, 44, seed=number).save(folder / f"{number}.png")
    arguments = ("-m", mask, "-o", out, "--jobs", 2, "--report", report, "--model", small_weights)
    assert run_cli("inpaint", folder, *arguments) == (0, f"4 photos in {out}\n", "")
    (out / "2.png").unlink()
    code, printed, _ = run_cli("inpaint", folder, *arguments)
    assert (code, printed) == (0, f"1 photos in {out} (3 were there already)\n")
    with report.open(newline="") as file:
        states = [row["status"] for row in csv.DictReader(file)]
    assert sorted(states) == ["filled"] * 5 + ["skipped"] * 3


def test_a_folder_that_is_done_does_not_wait_for_pytorch(tmp_path: Path, photo: Path) -> None:
    for folder in ("photos", "masks", "out"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(photo.read_bytes())
    command = "inpaint", "photos", "--mask", "masks", "-o", "out"
    code = (
        "import sys; from regionnorm.cli import main; status = main(sys.argv[1:]); "
        "sys.exit(status or 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 photos in out (1 were there already)\n"


def test_what_is_left_out_of_a_folder_is_named(
    tmp_path: Path, run_cli: RunCli, photo: Path, make_mask: Maker
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    with Image.open(photo) as image:
        image.save(photos / "a.png")
        make_mask(*image.size).save(tmp_path / "mask.png")
    (photos / "a.raw").write_bytes(b"")
    arguments = (photos, "--mask", tmp_path / "mask.png", "--preview", tmp_path / "shown")
    code, _, error = run_cli("inpaint", *arguments)
    assert code == 0 and "a.raw" in error and error.count("\n") == 1


def test_a_folder_with_photos_that_have_nothing_to_fill_is_no_failure(
    tmp_path: Path, run_cli: RunCli, photo: Path, small_weights: Path
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / "a.png").write_bytes(photo.read_bytes())
    arguments = (photos, "--mask", "color:#ff00ff~0", "-o", out, "--model", small_weights)
    code, _, error = run_cli("inpaint", *arguments)
    assert (code, error) == (0, "Note: nothing to fill, copied as they are: a.png (1 in all)\n")
    assert (out / "a.png").read_bytes() == photo.read_bytes()


def test_variants_of_a_narrow_hole_are_one_fill(
    tmp_path: Path,
    run_cli: RunCli,
    photo: Path,
    small_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow = np.zeros((44, 60), np.uint8)
    narrow[20:24, 20:40] = 255
    Image.fromarray(narrow).save(tmp_path / "narrow.png")
    fill, fills = Inpainter.fill_photo, []

    def counted(self: Inpainter, *given: Any, **options: Any) -> Any:
        fills.append(options.get("variant"))
        return fill(self, *given, **options)

    monkeypatch.setattr(Inpainter, "fill_photo", counted)
    options = ("-o", tmp_path / "out.png", "--variants", 3, "--model", small_weights)
    code, printed, err = run_cli("inpaint", photo, "-m", tmp_path / "narrow.png", *options)
    assert (code, printed, fills) == (0, f"{tmp_path / 'out-1.png'}\n", [0])
    assert "alike each time" in err and err.count("\n") == 1
    monkeypatch.setattr(Inpainter, "varies", lambda self, hole: True)
    code, printed, err = run_cli(
        "inpaint", photo, "-m", tmp_path / "narrow.png", *options, "--overwrite"
    )
    assert (code, printed.count("\n"), err, fills) == (0, 3, "", [0, 0, 1, 2])


def test_progress_goes_into_a_pipe_and_an_interrupt_says_how_far_it_came(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt), console.progress("work") as advance:
        advance(1, 3)
        advance(2, 3, "photo")
        raise KeyboardInterrupt
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["work: 1 of 3", "work: 2 of 3", "Interrupted: 2 of 3 were done"]


def test_names_that_are_no_text_are_printed_without_a_traceback(
    run_cli: RunCli, tmp_path: Path, photo: Path, mask: Path, small_weights: Path
) -> None:
    name = tmp_path / "b\udcff\n\x1b[31m.png"  # a byte that is no UTF-8, and what moves cursors
    name.write_bytes(photo.read_bytes())
    code, printed, _ = run_cli(
        "inpaint", name, "-m", mask, "-o", tmp_path / "o", "--model", small_weights
    )
    assert code == 0
    assert "\x1b" not in printed and printed.count("\n") == 1
    name.write_bytes(b"damaged")
    code, _, err = run_cli(
        "inpaint", name, "-m", mask, "-o", tmp_path / "p", "--model", small_weights
    )
    assert code == 1
    assert "\x1b" not in err and err.count("\n") == 1


def test_what_decoders_say_themselves_does_not_reach_the_terminal(
    tmp_path: Path, mask: Path, make_photo: Maker, small_weights: Path
) -> None:
    # libtiff writes to the process's own standard error.
    make_photo(60, 44).convert("1").save(tmp_path / "a.tif", compression="group4")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    for at in range(20, 60):
        data[at] ^= 0x5A
    (tmp_path / "a.tif").write_bytes(bytes(data))
    arguments = ["-m", mask, "-o", tmp_path / "o.tif", "--model", small_weights]
    command = [sys.executable, "-m", "regionnorm", "inpaint", tmp_path / "a.tif", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1)
    assert all(line.startswith(("Error: ", "Warning: ")) for line in run.stderr.splitlines())


def test_variants_go_into_the_folder_that_is_named(
    tmp_path: Path, run_cli: RunCli, photo: Path, small_weights: Path
) -> None:
    mask = np.zeros((44, 60), np.uint8)
    mask[8:36, 10:50] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "out").mkdir()
    given = ("-o", tmp_path / "out", "--variants", 2, "--model", small_weights)
    code, _, err = run_cli("inpaint", photo, "-m", tmp_path / "mask.png", *given)
    assert code == 0, err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{photo.stem}-{number}{photo.suffix}" for number in (1, 2)]


def test_variants_go_where_a_single_fill_would(
    tmp_path: Path, run_cli: RunCli, photo: Path, mask: Path, small_weights: Path
) -> None:
    line = np.zeros((44, 60), np.uint8)  # which the network fills alone
    line[20:26, 10:50] = 255
    Image.fromarray(line).save(mask)
    given = ("inpaint", photo, "-m", mask, "--model", small_weights, "--variants", 2)
    assert run_cli(*given, "-o", tmp_path / "new")[0] == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"{photo.stem}-1.png"]
    code, _, err = run_cli(
        *given, "-o", tmp_path / "w.png", "--save-mask", tmp_path / "w-2.png", "--overwrite"
    )
    assert (code, "named for the variant 2 and for the mask" in err) == (2, True)


def test_names_that_the_output_cannot_show_are_no_failure(
    tmp_path: Path, photo: Path, mask: Path, small_weights: Path
) -> None:
    result = tmp_path / "結果.png"
    command = [sys.executable, "-m", "regionnorm", "inpaint", photo, "-m", mask, "-o", result]
    run = subprocess.run(
        [*command, "--model", small_weights],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.strip().endswith(b"\\u7d50\\u679c.png") and result.is_file()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--strategy", "strategy 'foo'"),
        ("--method", "method 'foo'"),
        ("--device", "device 'foo'"),
    ],
)
def test_a_preview_takes_no_options_that_a_fill_would_refuse(
    tmp_path: Path, run_cli: RunCli, photo: Path, mask: Path, option: str, words: str
) -> None:
    shown = tmp_path / "shown.png"
    code, _, err = run_cli("inpaint", photo, "-m", mask, "--preview", shown, option, "foo")
    assert (code, words in err, shown.exists()) == (2, True, False)


def test_an_empty_file_is_called_empty(run_cli: RunCli, tmp_path: Path, mask: Path) -> None:
    (tmp_path / "zero.png").touch()
    given = (tmp_path / "zero.png", "-m", mask, "--preview", tmp_path / "shown.png")
    code, _, err = run_cli("inpaint", *given)
    assert (code, "zero.png is empty; use an intact copy" in err) == (1, True)


def test_masks_of_photos_that_are_skipped_are_said_to_be_missing(
    tmp_path: Path, run_cli: RunCli, photo: Path, small_weights: Path
) -> None:
    photos = tmp_path / "photos"
    (photos / ".trash").mkdir(parents=True)
    for folder in (photos, photos / ".trash"):
        (folder / "a.png").write_bytes(photo.read_bytes())
    given = (photos, "-m", "color:#ff00ff", "-o", tmp_path / "out", "--model", small_weights)
    assert run_cli("inpaint", *given, "--recursive")[0] == 0
    assert not (tmp_path / "out" / ".trash").exists()
    code, _, err = run_cli("inpaint", *given, "--save-mask", tmp_path / "masks")
    assert code == 0
    assert "no mask or preview is written" in " ".join(err.split())


@pytest.mark.parametrize("suffix", [".jpeg", ".jfif", ".avif"])
def test_masks_go_into_no_format_that_changes_them(
    suffix: str, tmp_path: Path, run_cli: RunCli, photo: Path, mask: Path
) -> None:
    place = tmp_path / f"mask{suffix}"
    code, _, err = run_cli("inpaint", photo, "-m", mask, "--save-mask", place)
    assert code != 0
    assert "adds noise" in " ".join(err.split())
    assert not place.exists()
