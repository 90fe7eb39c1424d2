"""Photos, masks, weights, shards and reports behind URLs."""

from __future__ import annotations

import csv
import io
import pickle
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from regionnorm.checkpoints.weights import load_pretrained, load_weights, save_weights
from regionnorm.data import open_source
from regionnorm.files.remote import RemotePath, as_place, is_url
from regionnorm.files.whole import atomic_path
from regionnorm.filling.batch import inpaint_path
from regionnorm.imaging import read_image, write_image
from regionnorm.masks import MaskFolder, write_masks
from regionnorm.models import create_model

Maker = Callable[..., Image.Image]
RunCli = Callable[..., tuple[int, str, str]]


def red(photo: Image.Image, hole: np.ndarray) -> Image.Image:
    return Image.new("RGB", photo.size, (255, 0, 51))


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    store.store.clear()


@pytest.fixture
def stored(memory: fsspec.AbstractFileSystem, make_photo: Maker, make_mask: Maker) -> None:
    """Three photos and masks in memory://, one of them in a folder."""
    for number, name in enumerate(("a.png", "b.jpg", "deep/c.png")):
        write_image(make_photo(40, 30, seed=number), f"memory://in/{name}")
        write_image(make_mask(40, 30), f"memory://masks/{Path(name).with_suffix('.png')}")


# --- names ---------------------------------------------------------------------------------------


def test_names_are_taken_apart_like_paths() -> None:
    place = RemotePath("S3://bucket/in/photo.tar.gz/")
    assert str(place) == "s3://bucket/in/photo.tar.gz"
    assert (place.name, place.suffix) == ("photo.tar.gz", ".gz")
    assert place.parent == RemotePath("s3://bucket/in")
    assert place.parent / "deep/x.png" == RemotePath("s3://bucket/in/deep/x.png")
    assert (place.parent / "deep/x.png").relative_to(place.parent) == Path("deep/x.png")
    assert place.with_suffix(".png").name == "photo.tar.png"
    assert not RemotePath("s3://bucket/inside").is_relative_to(RemotePath("s3://bucket/in"))
    assert RemotePath("https://host/a%20b.png?key=x/y").name == "a b.png"
    assert pickle.loads(pickle.dumps(place)) == place


def test_paths_stay_paths() -> None:
    assert as_place("photos/a.png") == Path("photos/a.png")
    assert as_place("file:///tmp/a.png") == Path("/tmp/a.png")
    assert not is_url("color:#ff00ff") and not is_url("C:\\photos") and not is_url("owner/name")


# --- photos, masks, results ----------------------------------------------------------------------


def test_folder_elsewhere_is_filled_as_one_here_is(
    stored: None, memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    store = memory
    store.get("memory://in", str(tmp_path / "in"), recursive=True)
    store.get("memory://masks", str(tmp_path / "masks"), recursive=True)
    here = inpaint_path(red, tmp_path / "in", tmp_path / "masks", tmp_path / "out", recursive=True)
    there = inpaint_path(
        red,
        "memory://in",
        "memory://masks/",
        "memory://out/",
        recursive=True,
        report="memory://report.csv",
        save_mask="memory://used",
        preview="memory://preview",
    )
    assert [str(path) for path in there.done] == [
        "memory://out/a.png",
        "memory://out/b.jpg",
        "memory://out/deep/c.png",
    ]
    assert there.failed == [] and there.left_out == []
    for ours, theirs in zip(here.done, there.done, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    assert len(store.find("/used")) == len(store.find("/preview")) == 3
    rows = list(csv.DictReader(io.StringIO(store.cat("/report.csv").decode())))
    assert [row["status"] for row in rows] == ["filled"] * 3


def test_rerun_elsewhere_does_only_what_is_missing(
    stored: None, memory: fsspec.AbstractFileSystem
) -> None:
    arguments = ("memory://in", "memory://masks", "memory://out")
    inpaint_path(red, *arguments, recursive=True, report="memory://report.csv")
    memory.rm("/out/b.jpg")
    memory.pipe("/in/notes.txt", b"no photo")
    again = inpaint_path(red, *arguments, recursive=True, report="memory://report.csv")
    assert [str(path) for path in again.done] == ["memory://out/b.jpg"]
    assert len(again.skipped) == 2
    assert [str(path) for path in again.left_out] == ["memory://in/notes.txt"]
    text = memory.cat("/report.csv").decode()
    assert text.count("photo,mask") == 1 and text.count("\r\n") == 7


def test_results_inside_the_folder_of_photos_are_no_photos(
    stored: None, memory: fsspec.AbstractFileSystem
) -> None:
    for _ in range(2):
        report = inpaint_path(
            red, "memory://in", "memory://masks", "memory://in/out", recursive=True
        )
        assert len(report.done) + len(report.skipped) == 3
    with pytest.raises(ValueError, match="also the photo"):
        inpaint_path(red, "memory://in", "memory://masks", "memory://in/")


def test_photo_that_fails_elsewhere_is_named_and_stops_nothing(
    stored: None, memory: fsspec.AbstractFileSystem
) -> None:
    memory.pipe("/in/a.png", memory.cat("/in/a.png")[:300])
    memory.rm("/masks/deep/c.png")
    report = inpaint_path(red, "memory://in", "memory://masks", "memory://out", recursive=True)
    assert [str(path) for path in report.done] == ["memory://out/b.jpg"]
    reasons = {str(path): reason for path, reason in report.failed}
    assert "damaged" in reasons["memory://in/a.png"]
    assert "no mask deep/c.png" in reasons["memory://in/deep/c.png"]


def test_command_line_takes_urls(
    stored: None, run_cli: RunCli, small_weights: Path, memory: fsspec.AbstractFileSystem
) -> None:
    memory.pipe("/weights/small.safetensors", small_weights.read_bytes())
    command = ["inpaint", "memory://in", "-m", "memory://masks", "-o", "memory://out/"]
    command += ["--model", "memory://weights/small.safetensors", "--device", "cpu"]
    code, out, err = run_cli(*command)
    assert (code, out) == (0, "2 photos in memory://out\n"), err
    code, out, _ = run_cli(*command)
    assert (code, out) == (0, "0 photos in memory://out (2 were there already)\n")
    code, out, err = run_cli(
        *["evaluate", "memory://weights/small.safetensors", "ns", "--data", "memory://in"],
        *["--masks", "memory://masks", "--size", 32, "--report", "memory://report"],
        *["--metric", "none"],
    )
    assert code == 0, err
    assert out.endswith("memory://report/report.md\nmemory://report/report.json\n")
    assert b"| small |" in memory.cat("/report/report.md")


# --- whole or not at all -------------------------------------------------------------------------


def test_file_elsewhere_appears_whole_or_not_at_all(memory: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(RuntimeError), atomic_path("memory://out/a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert memory.find("/") == []
    with atomic_path("memory://out/a.txt") as temporary:
        temporary.write_text("whole")
        assert memory.find("/") == []
    assert memory.cat("/out/a.txt") == b"whole"


# --- weights, shards, lists, masks ---------------------------------------------------------------


def test_weights_are_written_and_read_elsewhere(memory: fsspec.AbstractFileSystem) -> None:
    model = create_model("rn", width=4, blocks=1)
    save_weights(model, "memory://run/best.safetensors")
    for path in ("memory://run/best.safetensors", "memory://run"):
        assert load_pretrained(path).state_dict().keys() == model.state_dict().keys()
    with pytest.raises(FileNotFoundError, match="memory://none.safetensors does not exist"):
        load_weights("memory://none.safetensors")
    memory.pipe("/bad.safetensors", b"PK not weights")
    with pytest.raises(ValueError, match=r"memory://bad.safetensors .* PyTorch's own kind"):
        load_weights("memory://bad.safetensors")


def test_shards_lists_patterns_and_folders_elsewhere_hold_the_photos_of_those_here(
    stored: None, memory: fsspec.AbstractFileSystem
) -> None:
    with memory.open("/shards/0.tar", "wb") as file, tarfile.open(fileobj=file, mode="w") as shard:
        for name in memory.find("/in"):
            member = tarfile.TarInfo(name.removeprefix("/in/"))
            member.size = len(memory.cat(name))
            shard.addfile(member, io.BytesIO(memory.cat(name)))
    memory.pipe("/lists/all.txt", b"# photos\nmemory://in/a.png\n../in/b.jpg\nc.png\n")
    memory.pipe("/lists/c.png", memory.cat("/in/deep/c.png"))
    memory.pipe("/in/b.jpg", memory.cat("/in/b.jpg"))
    expected = [np.asarray(open_source("memory://in").read(i)) for i in range(3)]
    for given in ("memory://shards", "memory://shards/*.tar", "memory://shards/0.tar"):
        source = pickle.loads(pickle.dumps(open_source(given)))
        assert source.name(2) == "memory://shards/0.tar/deep/c.png"
        for index, pixels in enumerate(expected):
            assert np.array_equal(np.asarray(source.read(index)), pixels)
    assert len(open_source("memory://in/*.png")) == 1
    listed = open_source("memory://lists/all.txt")
    assert np.array_equal(np.asarray(listed.read(2)), expected[2])
    with pytest.raises(FileNotFoundError, match="memory://none: no such file"):
        open_source("memory://none")


def test_masks_are_written_and_drawn_from_elsewhere(memory: fsspec.AbstractFileSystem) -> None:
    write_masks("memory://drawn", count=2, size=32)
    assert sorted(memory.ls("/drawn", detail=False))[-1] == "/drawn/masks.json"
    assert MaskFolder("memory://drawn")(16, 16, np.random.default_rng(0)).shape == (16, 16)


# --- what cannot be ------------------------------------------------------------------------------


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(
        ImportError, match=r"s3:// needs s3fs.*pip install 'regionnorm\[remote\]' s3fs"
    ):
        read_image("s3://bucket/photo.png")


def test_places_that_cannot_be_reached_are_one_line(
    memory: fsspec.AbstractFileSystem, make_photo: Maker, run_cli: RunCli
) -> None:
    with pytest.raises(FileNotFoundError, match=r"^there is no file memory://a\.png"):
        read_image("memory://a.png")
    with pytest.raises(ValueError, match=r"^nowhere:// is not known; use "):
        read_image("nowhere://a.png")
    with pytest.raises(OSError, match=r"^cannot write https://host/a\.png: web addresses name"):
        write_image(make_photo(16, 16), "https://host/a.png")
    with pytest.raises(OSError, match=r"^cannot read http://127\.0\.0\.1:9/a\.png: Connect"):
        read_image("http://127.0.0.1:9/a.png")
    code, _, err = run_cli("inpaint", "memory://a.png", "-m", "alpha", "-o", "b.png")
    assert (code, err) == (2, "Error: there is no photo or folder memory://a.png; check the path\n")
    code, _, err = run_cli("train", "default", "--data", "memory://in", "--out", "s3://bucket/run")
    assert code == 2 and "s3://bucket/run is not on this machine" in err


def test_errors_of_a_store_name_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", fail)
    with pytest.raises(FileNotFoundError, match="bucket does not exist.*memory://none/a.png"):
        RemotePath("memory://none/a.png").read_bytes()


def test_an_empty_path_is_no_folder(tmp_path: Path, run_cli: RunCli) -> None:
    with pytest.raises(ValueError, match="a path is empty"):
        as_place("")
    photo = tmp_path / "photo.png"
    Image.new("RGB", (32, 32)).save(photo)
    for arguments in (("--mask", "", "-o", "x.png"), ("--mask", "alpha", "-o", "")):
        code, _, err = run_cli("inpaint", photo, *arguments)
        assert code == 2 and "a path is empty" in err


def test_bucket_is_filled_and_a_rerun_does_what_is_missing(
    bucket: str, make_photo: Maker, make_mask: Maker
) -> None:
    for number in range(3):
        write_image(make_photo(40, 30, seed=number), f"{bucket}/in/{number}.png")
        write_image(make_mask(40, 30), f"{bucket}/masks/{number}.png")
    arguments = (f"{bucket}/in", f"{bucket}/masks", f"{bucket}/out")
    report = inpaint_path(red, *arguments, report=f"{bucket}/report.csv", jobs=2)
    assert (len(report.done), report.failed) == (3, [])
    assert report.done[1].read_bytes()[:4] == b"\x89PNG"
    fsspec.filesystem("s3").rm("bucket/out/1.png")
    again = inpaint_path(red, *arguments)
    assert [str(path) for path in again.done] == [f"{bucket}/out/1.png"]
    assert len(open_source(f"{bucket}/out/*.png")) == 3
    with pytest.raises(FileNotFoundError, match="there is no photo or folder s3://none/in"):
        inpaint_path(red, "s3://none/in", "alpha", f"{bucket}/out")
    with pytest.raises(OSError, match="s3://none/"):
        write_image(make_photo(16, 16), "s3://none/a.png")
    with pytest.raises(FileNotFoundError, match="s3://none/a.png"):
        RemotePath("s3://none/a.png").read_bytes()
