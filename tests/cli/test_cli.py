"""The command line: what each command does, its exit codes and its one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import regionnorm
from regionnorm.cli import console
from regionnorm.imaging import read_image, read_mask

RunCli = Callable[..., tuple[int, str, str]]
Maker = Callable[..., Image.Image]
FolderMaker = Callable[..., Path]

COMMANDS = (
    "inpaint",
    "train",
    "evaluate",
    "study",
    "visualize",
    "masks",
    "select",
    "app",
    "models",
    "convert",
)


@pytest.fixture
def photo(tmp_path: Path, make_photo: Maker) -> Path:
    path = tmp_path / "photo.png"
    make_photo(50, 37).save(path)
    return path


@pytest.fixture
def mask(tmp_path: Path, make_mask: Maker) -> Path:
    path = tmp_path / "mask.png"
    make_mask(50, 37).save(path)
    return path


@pytest.fixture
def mask_folder(tmp_path: Path, make_mask: Maker) -> FolderMaker:
    """Masks for the photos of ``photo_folder``."""

    def make(count: int) -> Path:
        folder = tmp_path / "masks"
        folder.mkdir()
        for index in range(count):
            make_mask(64, 64).save(folder / f"photo-{index}.png")
        return folder

    return make


# --- help and version ----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_every_command(run_cli: RunCli, arguments: tuple[str, ...]) -> None:
    code, out, err = run_cli(*arguments)
    assert (code, err) == (0, "")
    assert all(f"\n  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_holds_an_example(run_cli: RunCli, command: str) -> None:
    code, out, _ = run_cli(command, "--help")
    assert code == 0
    assert f"Example:\n    regionnorm {command}" in out


def test_version_is_printed(run_cli: RunCli) -> None:
    assert run_cli("--version") == (0, f"regionnorm {regionnorm.__version__}\n", "")


def test_python_dash_m_runs_the_same_program() -> None:
    command = [sys.executable, "-m", "regionnorm"]
    result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"regionnorm {regionnorm.__version__}\n"
    assert subprocess.run([*command, "--no-such"], capture_output=True, check=False).returncode == 2


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inpait",), "'inpait'"),
        (("--colour",), "--colour"),
        (("inpaint", "photo.png"), "--mask"),
        (("masks", "--count", "many", "--out", "m"), "--count"),
        (("masks", "--count", "0", "--out", "m"), "--count"),
        (("masks", "--interval", "0.2", "--count", "1", "--out", "m"), "LOW-HIGH"),
        (("masks", "--interval", "0.3-0.2", "--count", "1", "--out", "m"), "0.3-0.2"),
        (("masks", "--kind", "hearts", "--count", "1", "--out", "m"), "hearts"),
        (("train",), "RECIPE"),
        (("train", "relesed", "--data", "d", "--out", "o"), "relesed"),
        (("train", "released", "--data", "d", "--out", "o", "--set", "batch"), "KEY=VALUE"),
        (("train", "released", "--data", "d", "--out", "o", "--set", "batch=no"), "batch=no"),
        (("evaluate", "rn", "--data", "."), "without trained weights"),
        (("evaluate", "ns", "--data", "nowhere"), "nowhere"),
        (("inpaint", "a.png", "-m", "b.png", "-o", "c.png", "--model", "d.pt"), "d.pt"),
        (("export", "default", "s3://bucket/m.onnx"), "is a URL"),
        (("export", "--site", "s3://bucket/site"), "is a URL"),
        (("inpaint", "a.png", "--expand", "left=0", "-o", "c.png"), "adds nothing"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    run_cli: RunCli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_cli(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert words in err


def test_long_paths_are_not_wrapped(
    run_cli: RunCli,
    tmp_path: Path,
    mask: Path,
    small_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = tmp_path / ("a long name " * 10) / "photo.png"
    _, _, err = run_cli("inpaint", path, "-m", mask, "-o", "out.png", "--model", small_weights)
    assert str(path) in err
    assert err.count("\n") == 1


def test_traceback_is_shown_on_request(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGIONNORM_TRACEBACK", "1")
    with pytest.raises(ValueError, match="LOW-HIGH"):
        run_cli("masks", "--interval", "x", "--count", 1, "--out", "m")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ImportError("run: pip install 'regionnorm[eval]'"), 2, "regionnorm[eval]"),
        (PermissionError(13, "Permission denied", "masks/a"), 2, "masks/a: Permission denied"),
        (RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB"), 2, "not enough memory"),
        (ValueError("two\nlines"), 2, "two lines"),
        (KeyboardInterrupt(), 130, "Interrupted: 0 of all were done"),
    ],
)
def test_errors_of_the_library_become_one_line(
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    words: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("regionnorm.masks.write_masks", fail)
    result, _, err = run_cli("masks", "--count", 1, "--out", "m")
    assert result == code
    assert words in err
    assert err.count("\n") == 1


# --- inpaint -------------------------------------------------------------------------------------


def test_inpaint_changes_the_hole_only(
    run_cli: RunCli, tmp_path: Path, photo: Path, mask: Path, small_weights: Path
) -> None:
    out = tmp_path / "new" / "filled.png"
    code, printed, err = run_cli(
        "inpaint", photo, "--mask", mask, "-o", out, "--model", small_weights
    )
    assert (code, printed, err) == (0, f"{out}\n", "")
    before, after, hole = np.array(read_image(photo)), np.array(read_image(out)), read_mask(mask)
    assert (before == after)[~hole].all()
    assert (before != after)[hole].any()


def test_inpaint_replaces_a_result_only_when_told_to(
    run_cli: RunCli, tmp_path: Path, photo: Path, mask: Path, small_weights: Path
) -> None:
    out = tmp_path / "filled.png"
    out.write_bytes(b"precious")
    arguments = ("inpaint", photo, "-m", mask, "-o", out, "--model", small_weights)
    code, _, err = run_cli(*arguments)
    assert code == 1
    assert "--overwrite" in err
    assert out.read_bytes() == b"precious"
    assert run_cli(*arguments, "--overwrite")[0] == 0
    assert read_image(out).size == (50, 37)


def test_inpaint_of_a_folder_names_what_failed(
    run_cli: RunCli,
    tmp_path: Path,
    photo_folder: FolderMaker,
    mask_folder: FolderMaker,
    small_weights: Path,
) -> None:
    photos, masks = photo_folder(4), mask_folder(4)
    (photos / "photo-1.png").write_bytes(b"no picture")
    (masks / "photo-3.png").unlink()
    code, out, err = run_cli(
        "inpaint", photos, "--mask", masks, "-o", tmp_path / "out", "--model", small_weights
    )
    assert code == 1
    assert out == f"2 photos in {tmp_path / 'out'}\n"
    lines = err.splitlines()
    assert len(lines) == 2
    assert str(photos / "photo-1.png") in lines[0]
    assert str(photos / "photo-3.png") in lines[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "photo-0.png",
        "photo-2.png",
    ]


def test_no_progress_bar_outside_a_terminal(
    run_cli: RunCli,
    tmp_path: Path,
    photo_folder: FolderMaker,
    mask_folder: FolderMaker,
    small_weights: Path,
) -> None:
    arguments = ("inpaint", photo_folder(2), "--mask", mask_folder(2), "-o", tmp_path / "out")
    assert run_cli(*arguments, "--model", small_weights)[2] == ""


# --- masks ---------------------------------------------------------------------------------------


def test_masks_lie_in_the_interval(run_cli: RunCli, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    arguments = ("--interval", "0.2-0.3", "--count", 6, "--size", 64, "--seed", 1, "--out", out)
    assert run_cli("masks", *arguments) == (0, f"6 masks in {out}\n", "")
    areas = [read_mask(path).mean() for path in sorted(out.glob("*.png"))]
    assert len(areas) == 6
    assert all(0.2 < area <= 0.3 for area in areas)


def test_select_writes_the_mask_of_what_a_stroke_goes_over(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGIONNORM_SEGMENTER", "")
    pixels = np.full((90, 120, 3), 200, np.uint8)
    pixels[30:70, 40:90] = (40, 90, 160)
    stroke = np.zeros((90, 120), np.uint8)
    stroke[42:60, 48:84] = 255
    photo, scribble, out = (tmp_path / name for name in ("photo.png", "stroke.png", "mask.png"))
    Image.fromarray(pixels).save(photo)
    Image.fromarray(stroke).save(scribble)
    arguments = ("select", photo, "-o", out)
    seen = tmp_path / "seen.png"
    code, printed, note = run_cli(*arguments, "--scribble", scribble, "--preview", seen)
    found = read_mask(out)
    assert (code, printed) == (0, f"{out} ({found.mean():.1%} of the photo)\n")
    assert "--segmenter" in note
    assert found[32:68, 42:88].all() and 1960 < found.sum() < 2040
    assert (np.asarray(Image.open(seen))[..., 0] > 180)[found].all()
    assert run_cli(*arguments, "--box", "38,28,92,72", "--grow", -2, "--overwrite")[0] == 0
    assert read_mask(out).sum() == pytest.approx(46 * 36, rel=0.03)
    for more, words in (
        ((), "mask.png exists; allow replacing it (--overwrite)"),
        (("--overwrite", "--box", "1,2,3"), "--box is '1,2,3'"),
        (("--overwrite", "--point", "x,2"), "--point is 'x,2'"),
        (("--overwrite",), "nothing is painted; give a scribble"),
        (("--overwrite", "--point", "500,2"), "the point 500,2 is not on the photo, 120x90"),
    ):
        code, _, error = run_cli(*arguments, *more)
        assert code == 2 and words in error and error.count("\n") == 1


def test_select_replaces_no_input_and_writes_no_two_results_to_one_file(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGIONNORM_SEGMENTER", "")
    photo, scribble, out = (tmp_path / name for name in ("photo.png", "stroke.png", "mask.png"))
    Image.new("RGB", (40, 30), "gray").save(photo)
    Image.new("L", (40, 30), 255).save(scribble)
    (tmp_path / "link.png").symlink_to(photo)
    before = photo.read_bytes(), scribble.read_bytes()
    for more, words in (
        (("-o", photo), "photo.png is also the photo given"),
        (("-o", tmp_path / "link.png"), "link.png is also the photo given"),
        (("-o", scribble), "stroke.png is also the scribble given"),
        (("-o", out, "--preview", photo), "photo.png is also the photo given"),
        (("-o", out, "--preview", tmp_path / "." / "mask.png"), "for the mask and for the preview"),
        (("-o", out, "--preview", tmp_path / "seen.txt"), "txt"),
        (("-o", tmp_path / "mask.jpg"), "JPEG adds noise"),
        (("-o", out, "--segmenter", "nope.onnx"), "there is no file nope.onnx"),
    ):
        code, _, error = run_cli("select", photo, "--scribble", scribble, "--overwrite", *more)
        assert code == 2 and words in error and error.count("\n") == 1, more
        assert not out.exists() and before == (photo.read_bytes(), scribble.read_bytes())
    code, _, note = run_cli("select", photo, "--scribble", scribble, "-o", out, "--segmenter", "")
    assert code == 0 and "the selection covers the whole photo" in note
    out.unlink()
    Image.new("RGB", (16400, 30), "gray").save(photo)
    seen = ("--preview", tmp_path / "seen.webp")
    code, _, error = run_cli("select", photo, "--box", "9,9,40,20", "-o", out, *seen)
    assert code == 2 and "WEBP holds 16383 pixels a side" in error and not out.exists()


def test_masks_without_interval_cover_all_six(run_cli: RunCli, tmp_path: Path) -> None:
    assert run_cli("masks", "--count", 6, "--size", 64, "--out", tmp_path)[0] == 0
    areas = [read_mask(path).mean() for path in sorted(tmp_path.glob("*.png"))]
    assert sorted(int(np.ceil(10 * area)) for area in areas) == [1, 2, 3, 4, 5, 6]


# --- evaluate ------------------------------------------------------------------------------------


def test_evaluate_prints_and_saves_the_table(
    run_cli: RunCli, tmp_path: Path, photo_folder: FolderMaker, small_weights: Path
) -> None:
    report = tmp_path / "report"
    arguments = ("--data", photo_folder(2), "--size", 32, "--report", report)
    code, out, err = run_cli("evaluate", small_weights, "ns", *arguments)
    assert (code, err) == (0, "")
    assert "small" in out
    assert "50-60 %" in out
    assert str(report / "report.md") in out
    rows = json.loads((report / "report.json").read_text())["rows"]
    assert len(rows) == 2 * (6 + 1)


@pytest.mark.parametrize(
    ("output", "encoding", "code"),
    [("/dev/full", "utf-8", 2), (os.devnull, "ascii", 0), (None, "utf-8", 0)],
)
def test_a_report_is_there_whatever_becomes_of_the_table(
    tmp_path: Path, photo_folder: FolderMaker, output: str | None, encoding: str, code: int
) -> None:
    if output is not None and not os.path.exists(output):
        pytest.skip("this system has no device that is full")
    command = [sys.executable, "-m", "regionnorm", "evaluate", "ns", "--metric", "none"]
    command += ["--data", photo_folder(1), "--size", "32", "--report", tmp_path / "report"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    if output is None:  # closed, as where there is no console
        shell = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
        run = subprocess.run(shell, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    else:
        with open(output, "w") as file:
            run = subprocess.run(
                command,
                env=environment,
                stdout=file,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
    assert (run.returncode, "Traceback" in run.stderr) == (code, False), run.stderr
    assert json.loads((tmp_path / "report" / "report.json").read_text())["rows"]


def test_measures_that_are_not_known_are_told_all_there_are(
    run_cli: RunCli, photo_folder: FolderMaker
) -> None:
    code, _, err = run_cli("evaluate", "ns", "--data", photo_folder(1), "--metric", "foo")
    assert code == 2
    assert "choose from feature_distance, texture_distance, lpips, fid, none" in err


def test_evaluate_takes_no_photos_for_masks(run_cli: RunCli, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(2):
        gray = np.random.default_rng(seed).integers(60, 200, (40, 50, 3), np.uint8)
        Image.fromarray(gray).save(photos / f"{seed}.png")
    given = ("--data", photos, "--masks", photos, "--size", 32, "--metric", "none")
    code, _, err = run_cli("evaluate", "ns", *given)
    assert (code, "2 cannot be read or look like photos" in err) == (2, True)


def test_workers_get_a_gpu_however_it_is_written() -> None:
    asked = [console.wants_gpu(name) for name in (None, "cpu", "cuda", "CUDA:1")]
    assert asked == [None, False, True, True]


def test_evaluate_tells_before_the_work_that_a_report_cannot_be_written(
    run_cli: RunCli, tmp_path: Path, photo_folder: FolderMaker
) -> None:
    (tmp_path / "file").touch()
    arguments = ("--data", photo_folder(2), "--size", 32, "--report", tmp_path / "file" / "report")
    code, out, err = run_cli("evaluate", "ns", *arguments)
    assert (code, out) == (2, "") and "cannot make the folder" in err and err.count("\n") == 1


def test_evaluate_takes_a_folder_of_masks(
    run_cli: RunCli, photo_folder: FolderMaker, mask_folder: FolderMaker
) -> None:
    masks = mask_folder(1)
    code, out, _ = run_cli(
        "evaluate", "ns", "--data", photo_folder(2), "--masks", masks, "--size", 32
    )
    assert code == 0
    assert "10-20 %" in out
    assert "20-30 %" not in out


def test_evaluate_names_photos_that_it_cannot_use(
    run_cli: RunCli, photo_folder: FolderMaker
) -> None:
    photos = photo_folder(3)
    (photos / "photo-1.png").write_bytes(b"no picture")
    code, _, err = run_cli("evaluate", "ns", "--data", photos, "--size", 32)
    assert code == 1
    assert err.count("\n") == 1
    assert "photo-1.png" in err


def test_evaluate_compares_the_shipped_weights_with_opencv_by_default(
    run_cli: RunCli, photo_folder: FolderMaker
) -> None:
    code, out, _ = run_cli("evaluate", "--data", photo_folder(1), "--size", 32)
    assert code == 0
    assert all(name in out for name in ("default", "ns", "telea"))


# --- models --------------------------------------------------------------------------------------


def test_models_are_listed_with_size_and_statistics(run_cli: RunCli) -> None:
    code, out, _ = run_cli("models")
    assert code == 0
    by_name = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert set(regionnorm.list_models()) <= set(by_name)
    assert "11.6 M" in by_name["rn"]
    assert "instance" in by_name["rn"]
    assert "instance" not in by_name["baseline-none"].split("M", 1)[1][:15]


# --- train ---------------------------------------------------------------------------------------

TINY = {
    "steps": 2,
    "batch": 2,
    "size": 32,
    "workers": 0,
    "options.width": 2,
    "options.blocks": 1,
    "discriminator_width": 2,
    "accelerator": "cpu",
}
SETTINGS = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]


def test_train_lists_its_recipes(run_cli: RunCli) -> None:
    code, out, _ = run_cli("train", "--list")
    assert code == 0
    assert {"released", "paper"} <= {line.split()[0] for line in out.splitlines()}


def test_train_leaves_weights_that_inpaint_takes(
    run_cli: RunCli, tmp_path: Path, photo_folder: FolderMaker, photo: Path, mask: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "filled.png"
    data = photo_folder(3)
    arguments = ("train", "released", "--data", data, "--val", data, "--out", run, *SETTINGS)
    code, printed, told = run_cli(*arguments)
    assert code == 0 and printed == f"{run / 'best.safetensors'}\n"
    assert "3 photos to train on, 3 photos to judge by" in told and "trained on too" in told
    assert "step 1/2" in told
    assert run_cli("inpaint", photo, "-m", mask, "-o", out, "--model", run)[0] == 0
    assert json.loads((run / "recipe.json").read_text())["steps"] == 2


def test_train_refuses_to_overwrite_a_run(
    run_cli: RunCli, tmp_path: Path, photo_folder: FolderMaker
) -> None:
    arguments = ("train", "released", "--data", photo_folder(3), "--out", tmp_path / "run")
    assert run_cli(*arguments, *SETTINGS)[0] == 0
    code, _, err = run_cli(*arguments, *SETTINGS)
    assert code == 2
    assert "--resume" in err
    assert run_cli(*arguments, *SETTINGS, "--resume")[0] == 0


def test_a_resumed_run_goes_on_with_its_own_recipe(
    run_cli: RunCli, photo_folder: FolderMaker, tmp_path: Path
) -> None:
    arguments = ("train", "released", "--data", photo_folder(2), "--out", tmp_path / "run")
    assert run_cli(*arguments, *SETTINGS)[0] == 0
    before = (tmp_path / "run" / "recipe.json").read_text()
    assert run_cli(*arguments, "--resume")[0] == 0
    assert (tmp_path / "run" / "recipe.json").read_text() == before
    code, _, err = run_cli("train", "paper", *arguments[2:], "--resume")
    assert (code, "'released', not 'paper'" in err) == (2, True)


def test_interrupted_training_says_how_to_go_on(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regionnorm.training.train", lambda *_, **__: False)
    code, _, err = run_cli("train", "released", "--data", "photos", "--out", tmp_path / "run")
    assert code == 130
    assert "--resume" in err
    assert err.count("\n") == 1


def test_launch_options_reach_the_recipe(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        "regionnorm.training.train", lambda recipe, **arguments: seen.append((recipe, arguments))
    )
    options = ("--devices", 2, "--nodes", 3, "--precision", "bf16-mixed", "--strategy", "ddp")
    data = ("--data", "a", "--data", "b", "--val", "c", "--out", tmp_path, "--resume")
    assert run_cli("train", "released", *data, *options)[0] == 0
    [(recipe, arguments)] = seen
    assert (int(recipe.devices), recipe.nodes) == (2, 3)
    assert (recipe.precision, recipe.strategy) == ("bf16-mixed", "ddp")
    assert arguments == {"data": ["a", "b"], "val": "c", "out": tmp_path, "resume": True}
