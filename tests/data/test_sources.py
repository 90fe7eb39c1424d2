"""Photos are found in every kind of source, and damaged ones are told apart from the rest."""

from __future__ import annotations

import io
import logging
import multiprocessing
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regionnorm.data import sources
from regionnorm.data.sources import ImageSource, UnreadableImageError, open_source


def encoded(image: Image.Image, format_name: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format_name, **options)
    return buffer.getvalue()


def flat(level: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def level_of(source: ImageSource, index: int) -> int:
    return source.read(index).getpixel((0, 0))[0]


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_photos(folder: Path, levels: list[int]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for level in levels:
        flat(level).save(folder / f"{level:03d}.png")
    return folder


# --- where photos are found ---


def test_a_folder_is_searched_to_the_bottom_in_sorted_order(tmp_path: Path) -> None:
    write_photos(tmp_path / "b" / "deep", [3])
    write_photos(tmp_path / "a", [1, 2])
    (tmp_path / "a" / "notes.md").write_text("no photo")
    source = open_source(tmp_path)
    assert len(source) == 3
    assert [level_of(source, i) for i in range(3)] == [1, 2, 3]
    assert source.name(2) == str(tmp_path / "b" / "deep" / "003.png")


def test_a_list_file_names_photos_relative_to_itself(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", [1, 2, 3])
    absolute = tmp_path / "photos" / "001.png"
    listing = tmp_path / "list.txt"
    listing.write_text(f"# two photos\n\nphotos/003.png\r\n  {absolute}  \n")
    source = open_source([listing])
    assert [level_of(source, i) for i in range(len(source))] == [3, 1]


def test_a_missing_entry_of_a_list_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# photos\ngone.png\n")
    with pytest.raises(FileNotFoundError, match=r"list\.txt, line 2: no such file: .*gone\.png"):
        open_source(tmp_path / "list.txt")


def test_an_empty_or_binary_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# nothing\n\n")
    with pytest.raises(FileNotFoundError, match="2 lines, none of them names a photo"):
        open_source(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="not a text file"):
        open_source(tmp_path / "list.txt")


def test_a_shard_yields_its_photos_and_nothing_else(tmp_path: Path) -> None:
    members = {
        "x-0.png": encoded(flat(5)),
        "x-0.json": b"{}",
        "._x-1.jpg": b"attributes",
        "deep/x-1.webp": encoded(flat(6), "WEBP", lossless=True),
        "x-2.JPG": encoded(flat(7), "JPEG", quality=100),
    }
    shard = write_shard(tmp_path / "s.tar", members)
    source = open_source(shard)
    assert [level_of(source, i) for i in range(len(source))] == [5, 6, 7]
    assert source.name(1) == f"{shard}/deep/x-1.webp"


def test_a_folder_of_shards_is_read_as_one_source(tmp_path: Path) -> None:
    write_shard(tmp_path / "b.tar", {"2.png": encoded(flat(2)), "3.png": encoded(flat(3))})
    write_shard(tmp_path / "a.tar", {"0.png": encoded(flat(0)), "1.png": encoded(flat(1))})
    source = open_source(tmp_path)
    assert [level_of(source, i) for i in (3, 0, 2, 1)] == [3, 0, 2, 1]


def test_patterns_find_photos_and_shards(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", [1, 2, 30])
    (tmp_path / "photos" / "notes.md").write_text("")
    write_shard(tmp_path / "s-0.tar", {"4.png": encoded(flat(4))})
    write_shard(tmp_path / "s-1.tar", {"5.png": encoded(flat(5))})
    photos = open_source(tmp_path / "photos" / "00*")
    assert [level_of(photos, i) for i in range(len(photos))] == [1, 2]
    shards = open_source(f"{tmp_path}/s-*.tar")
    assert [level_of(shards, i) for i in range(len(shards))] == [4, 5]


def test_sources_of_all_kinds_join_in_the_order_given(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", {"9.png": encoded(flat(9))})
    folder = write_photos(tmp_path / "photos", [1, 2])
    single = tmp_path / "photos" / "002.png"
    source = open_source([shard, folder, single])
    assert [level_of(source, i) for i in range(4)] == [9, 1, 2, 2]
    assert source.name(0).endswith("s.tar/9.png")
    for outside in (4, -1):
        with pytest.raises(IndexError, match="this source has 4"):
            source.read(outside)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: p / "gone", FileNotFoundError, "no such file or folder"),
        (lambda p: p, FileNotFoundError, r"no photos \(.*\.jpg.*\) and no .tar shards among the 2"),
        (lambda p: p / "*.png", FileNotFoundError, "matches 0 files"),
        (lambda p: p / "notes*", FileNotFoundError, "matches 1 files, none of them a photo"),
        (lambda p: p / "notes.md", ValueError, "neither a photo"),
    ],
)
def test_a_source_without_photos_says_what_was_looked_for(
    tmp_path: Path, make: Callable[[Path], Path], error: type[Exception], message: str
) -> None:
    (tmp_path / "notes.md").write_text("")
    (tmp_path / "more.csv").write_text("")
    with pytest.raises(error, match=message):
        open_source(make(tmp_path))


def test_no_paths_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="no photos given"):
        open_source([])


# --- what is read ---


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 24), 128 * 257, np.uint16))
    elif mode == "P":
        image = flat(128).quantize()
    else:
        image = flat(128).convert(mode)
    image.save(tmp_path / "photo.png")
    photo = open_source(tmp_path).read(0)
    assert photo.mode == "RGB"
    assert photo.size == (24, 20)
    if mode != "1":
        assert np.abs(np.asarray(photo).astype(int) - 128).max() <= 1


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = flat(0, (30, 20))
    image.paste((255, 255, 255), (0, 0, 15, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise for display
    image.save(tmp_path / "turned.png", exif=exif)
    photo = open_source(tmp_path).read(0)
    assert photo.size == (20, 30)
    assert photo.getpixel((10, 2)) == (255, 255, 255)
    assert photo.getpixel((10, 27)) == (0, 0, 0)


def test_a_large_jpeg_is_decoded_smaller_but_never_too_small(tmp_path: Path) -> None:
    flat(90, (640, 480)).save(tmp_path / "large.jpg")
    source = open_source(tmp_path)
    assert source.read(0).size == (640, 480)
    assert source.read(0, at_least=100).size == (160, 120)
    assert source.read(0, at_least=479).size == (640, 480)
    assert source.read(0, at_least=5000).size == (640, 480)


def claims_to_be_huge() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x00IEND\xaeB`\x82"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no photo at all",
        np.random.default_rng(0).bytes(5000),
        encoded(flat(3, (200, 200)), "JPEG")[:300],
        encoded(flat(3, (200, 200)))[:60],
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 100,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n",
        claims_to_be_huge(),
    ],
    ids=["empty", "text", "noise", "cut jpeg", "cut png", "broken png", "eps", "bomb"],
)
@pytest.mark.parametrize("in_shard", [False, True])
def test_damaged_photos_raise_one_error_that_names_them(
    tmp_path: Path, data: bytes, in_shard: bool
) -> None:
    if in_shard:
        write_shard(tmp_path / "s.tar", {"bad.jpg": data, "good.png": encoded(flat(8))})
    else:
        (tmp_path / "bad.jpg").write_bytes(data)
        flat(8).save(tmp_path / "good.png")
    source = open_source(tmp_path)
    with pytest.raises(UnreadableImageError, match=r"bad\.jpg: cannot be read \(.+\)") as caught:
        source.read(0, at_least=64)
    assert "\n" not in str(caught.value)
    assert level_of(source, 1) == 8


def test_a_file_that_vanishes_is_unreadable_rather_than_fatal(tmp_path: Path) -> None:
    source = open_source(write_photos(tmp_path / "photos", [1, 2]))
    (tmp_path / "photos" / "001.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"001\.png"):
        source.read(0)


def test_a_shard_cut_short_keeps_what_came_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    members = {"0.png": encoded(flat(1)), "1.png": encoded(noise), "2.png": encoded(flat(2))}
    shard = write_shard(tmp_path / "s.tar", members)
    shard.write_bytes(shard.read_bytes()[:6000])
    with caplog.at_level(logging.WARNING):
        source = open_source(shard)
    assert "read up to photo 2 only" in caplog.text
    assert len(source) == 2
    assert level_of(source, 0) == 1
    with pytest.raises(UnreadableImageError, match=r"s\.tar/1\.png.*the shard ends after"):
        source.read(1)


def test_a_shard_damaged_in_the_middle_is_said_to_end_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = write_shard(tmp_path / "s.tar", {f"{n}.png": encoded(flat(n)) for n in range(4)})
    with caplog.at_level(logging.WARNING):
        assert len(open_source(shard)) == 4
    assert caplog.text == ""
    data = bytearray(shard.read_bytes())
    data[data.index(b"2.png") + 3] ^= 1  # its checksum does not fit any more
    shard.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert len(open_source(shard)) == 2
    assert "read up to photo 2 only" in caplog.text


def test_texts_beside_photos_are_no_lists_where_a_pattern_meets_both(tmp_path: Path) -> None:
    write_photos(tmp_path, [1, 2])
    (tmp_path / "000.txt").write_text("a caption\n")
    source = open_source(f"{tmp_path}/*")
    assert [level_of(source, i) for i in range(len(source))] == [1, 2]


def test_photos_of_plug_ins_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def plug_in() -> None:
        monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")
        monkeypatch.setitem(Image.OPEN, "HEIF", Image.OPEN["PNG"])

    monkeypatch.setattr(sources, "register_plugins", plug_in)
    sources._formats.cache_clear()
    try:
        (tmp_path / "a.heic").write_bytes(encoded(flat(3)))
        assert level_of(open_source(tmp_path), 0) == 3
        assert "HEIF" in sources._formats()
    finally:
        sources._formats.cache_clear()


def test_what_is_no_tar_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"not a tar file" * 100)
    with pytest.raises(ValueError, match="not an uncompressed tar file"):
        open_source(tmp_path / "s.tar")
    write_shard(tmp_path / "t.tar", {"a.json": b"{}"})
    with pytest.raises(FileNotFoundError, match="hold no photos"):
        open_source(tmp_path / "t.tar")


# --- workers ---


def test_a_pickled_source_reads_the_same_photos(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", {f"{i}.png": encoded(flat(i)) for i in range(4)})
    source = open_source([shard, write_photos(tmp_path / "photos", [4, 5])])
    assert level_of(source, 2) == 2
    copy = pickle.loads(pickle.dumps(source))
    assert [level_of(copy, i) for i in range(6)] == list(range(6))


def _read_many(source: ImageSource, results: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    results.put([level_of(source, i % len(source)) for i in range(200)])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_workers_do_not_disturb_each_other(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", {f"{i}.png": encoded(flat(i)) for i in range(20)})
    source = open_source(shard)
    level_of(source, 0)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_read_many, args=(source, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    expected = [i % 20 for i in range(200)]
    assert all(results.get(timeout=60) == expected for _ in workers)
    for worker in workers:
        worker.join()
