"""Make a corpus of photos of every kind, good and bad, and check ``regionnorm inpaint`` on it.

Every good file has to be filled: same format, mode and size, every pixel outside the hole as it
was (in lossless formats; in lossy ones with the same encoding), colour profile and EXIF kept, the
orientation reset. Every bad one has to be named in one line, without a traceback, and the exit
code has to be right.

    python benchmarks/corpus.py
"""

from __future__ import annotations

import argparse
import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

Pixels = npt.NDArray[Any]

ORIENTATION, MAKE = 0x0112, 0x010F
SIZES = ((2, 1), (1, 2), (1, 9), (3, 3), (15, 17), (16, 16), (5, 120), (97, 61), (211, 130))
LARGE = ((1600, 1200), (4000, 3000), (8000, 6000))
LOSSY = frozenset({"JPEG", "AVIF"})


@dataclass(frozen=True)
class Case:
    """A file of the corpus.

    Attributes:
        name: Its name in the folder of photos.
        data: What is in it.
        good: Whether it has to be filled; None where it may be either, as long as it is clean.
        hole: Its mask, bool ``[H, W]`` for the upright photo; None for none.
        mask: What the mask file holds instead of ``hole``.
        metadata: Whether the colour profile and EXIF data have to be kept.
    """

    name: str
    data: bytes
    good: bool | None = True
    hole: Pixels | None = None
    mask: bytes | None = None
    metadata: bool = False


# --- photos --------------------------------------------------------------------------------------


def picture(width: int, height: int, mode: str, random: np.random.Generator) -> Image.Image:
    """Gradients with a disk and grain, in any of Pillow's modes."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    start, across, down = random.uniform(20, 200, (3, 3)).astype(np.float32)
    ramp = start + across * (x / width)[..., None] / 2 + down * (y / height)[..., None] / 2
    disk = (x - width / 3) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 4) ** 2
    ramp[disk] = 255 - ramp[disk]
    ramp += random.normal(0, 6, (height, width, 1)).astype(np.float32)
    colour = Image.fromarray(ramp.clip(0, 255).astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray(deep_picture(width, height, 1, random)[..., 0])
    if mode in ("LA", "RGBA"):
        made = colour.convert(mode)
        alpha = random.integers(0, 256, (height, width), np.uint8)
        made.putalpha(Image.fromarray(alpha))
        return made
    return colour.quantize(64) if mode == "P" else colour.convert(mode)


def deep_picture(width: int, height: int, channels: int, random: np.random.Generator) -> Pixels:
    """uint16 ``[H, W, C]`` that 8 bits cannot hold."""
    ramp = np.linspace(2000, 60000, width)[None, :, None] + np.arange(channels) * 500
    grain = random.integers(-900, 900, (height, width, channels))
    return (ramp + grain).clip(0, 65535).astype(np.uint16)


def box(width: int, height: int) -> Pixels:
    """A hole of about a ninth of the area, or of one pixel."""
    hole = np.zeros((height, width), bool)
    top, left = height // 3, width // 3
    hole[top : top + max(1, height // 3), left : left + max(1, width // 3)] = True
    return hole


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def deep_encoded(pixels: Pixels, suffix: str) -> bytes:
    """Encode uint16 pixels with OpenCV."""
    order = [2, 1, 0, 3][: pixels.shape[2]]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(pixels[:, :, order]))
    assert done
    return bytes(data)


def exif(orientation: int = 1) -> bytes:
    """EXIF data with a maker and an orientation."""
    data = Image.Exif()
    data[ORIENTATION], data[MAKE] = orientation, "a camera"
    return data.tobytes()


def profile() -> bytes:
    """A colour profile."""
    return bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


# --- the good ------------------------------------------------------------------------------------

KINDS: tuple[tuple[str, str, tuple[str, ...], dict[str, Any]], ...] = (
    ("png", "PNG", ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), {}),
    ("tif", "TIFF", ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "LAB"), {}),
    ("lzw.tif", "TIFF", ("L", "RGB", "RGBA", "I;16"), {"compression": "tiff_lzw"}),
    ("zip.tif", "TIFF", ("P", "RGB"), {"compression": "tiff_adobe_deflate"}),
    ("pack.tif", "TIFF", ("RGB",), {"compression": "packbits"}),
    ("fax.tif", "TIFF", ("1",), {"compression": "group4"}),
    ("jpg", "JPEG", ("L", "RGB", "CMYK"), {}),
    ("q40.jpg", "JPEG", ("L", "RGB"), {"quality": 40, "subsampling": 1}),
    ("q97.jpg", "JPEG", ("RGB",), {"quality": 97, "subsampling": 0, "progressive": True}),
    ("webp", "WEBP", ("RGB", "RGBA"), {"quality": 80}),
    ("ll.webp", "WEBP", ("RGB", "RGBA"), {"lossless": True, "exact": True}),
    ("bmp", "BMP", ("1", "L", "P", "RGB"), {}),
    ("gif", "GIF", ("L", "P"), {}),
    ("ppm", "PPM", ("1", "L", "RGB", "I;16"), {}),
    ("jp2", "JPEG2000", ("L", "LA", "RGB", "RGBA", "I;16"), {}),
    ("avif", "AVIF", ("RGB", "RGBA"), {"quality": 80}),
)


def every_mode(random: np.random.Generator, sizes: tuple[tuple[int, int], ...]) -> Iterator[Case]:
    """Every format in every mode, in several sizes."""
    for number, (suffix, kind, modes, options) in enumerate(KINDS):
        for place, mode in enumerate(modes):
            for turn in range(3):
                width, height = sizes[(number + 3 * place + 2 * turn) % len(sizes)]
                image = picture(width, height, mode, random)
                name = f"{kind}-{mode.replace(';', '')}-{width}x{height}-{turn}.{suffix}"
                yield Case(name, encoded(image, kind, **options), hole=box(width, height))


def every_depth(random: np.random.Generator, sizes: tuple[tuple[int, int], ...]) -> Iterator[Case]:
    """16 bits in several channels."""
    for width, height in sizes:
        for channels in (3, 4):
            pixels = deep_picture(width, height, channels, random)
            for suffix in (".png", ".tif"):
                data = deep_encoded(pixels, suffix)
                name = f"deep-{channels}-{width}x{height}{suffix}"
                yield Case(name, data, hole=box(width, height))


def every_orientation(random: np.random.Generator) -> Iterator[Case]:
    """Every EXIF orientation, with metadata that has to stay."""
    for kind, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("TIFF", "tif"), ("WEBP", "webp")):
        for orientation in range(1, 9):
            image = picture(60, 40, "RGB", random)
            options = {"exif": exif(orientation), "icc_profile": profile()}
            if kind == "WEBP":
                options |= {"lossless": True}
            size = (40, 60) if orientation >= 5 else (60, 40)
            name = f"turned-{orientation}-{kind}.{suffix}"
            yield Case(name, encoded(image, kind, **options), hole=box(*size), metadata=True)


def special(random: np.random.Generator) -> Iterator[Case]:
    """Transparency of other kinds, several frames, odd metadata, odd names."""
    hole = box(50, 40)

    def case(name: str, mode: str, kind: str, **options: Any) -> Case:
        return Case(name, encoded(picture(50, 40, mode, random), kind, **options), hole=hole)

    yield case("key.png", "RGB", "PNG", transparency=(9, 9, 9))
    yield case("key-gray.png", "L", "PNG", transparency=128)
    yield case("key-palette.png", "P", "PNG", transparency=3)
    yield case("keys-palette.png", "P", "PNG", transparency=bytes(range(0, 256, 4)))
    yield case("key.gif", "P", "GIF", transparency=3)
    frames = [picture(50, 40, "RGB", random) for _ in range(3)]
    moving = {"save_all": True, "append_images": frames[1:]}
    yield case("moving.gif", "P", "GIF", **moving)
    yield case("moving.webp", "RGB", "WEBP", **moving)
    yield case("moving.png", "RGB", "PNG", **moving)
    yield case("pages.tif", "RGB", "TIFF", **moving)
    yield case("several.mpo.jpg", "RGB", "MPO", **moving)
    yield case("odd-exif.jpg", "RGB", "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x07" * 90)
    yield case("odd-exif.png", "RGB", "PNG", exif=b"Exif\0\0no such thing")
    yield case("odd-orientation.jpg", "RGB", "JPEG", exif=exif(99))
    yield case("odd-profile.jpg", "RGB", "JPEG", icc_profile=b"\0\xff" * 300)
    yield case("odd-profile.tif", "CMYK", "TIFF", icc_profile=b"\0\xff" * 300)
    yield case("odd-xmp.jpg", "RGB", "JPEG", xmp=b"<x:xmpmeta" + b"\xff" * 50)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "\x1b[2J\nin\rlines")
    text.add_itxt("Title", "写真")
    yield case("odd-text.png", "RGB", "PNG", pnginfo=text)
    yield Case("really-a-png.jpg", encoded(picture(50, 40, "RGB", random), "PNG"), hole=hole)
    # "\udcff" is how Python holds a byte that is no UTF-8.
    for name in (
        "a name with spaces.png",
        "写真.png",
        "-dash.png",
        "two\nlines.png",
        "b\udcff.png",
    ):
        yield case(name, "RGB", "PNG")


def large(random: np.random.Generator) -> Iterator[Case]:
    """Photos of many megapixels with small holes."""
    for width, height in LARGE:
        image = picture(width, height, "RGB", random)
        hole = np.zeros((height, width), bool)
        hole[height // 2 : height // 2 + 120, width // 2 : width // 2 + 200] = True
        hole[:7, :300] = True
        for kind, suffix, options in (
            ("JPEG", "jpg", {"quality": 85}),
            ("TIFF", "tif", {"compression": "raw"}),
        ):
            name = f"large-{width}x{height}.{suffix}"
            yield Case(name, encoded(image, kind, **options), hole=hole)


# --- the bad -------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def damaged(random: np.random.Generator, shares: tuple[float, ...]) -> Iterator[Case]:
    """Files cut short, flipped bits, bombs, and what is no photo at all."""
    hole = box(90, 70)
    for suffix, kind, modes, options in KINDS:
        whole = encoded(picture(90, 70, modes[-1], random), kind, **options)
        for share in shares:
            # A gray or CMYK file of these may be cut inside what no decoder reads.
            data = whole[: max(4, int(share * len(whole)))]
            name = f"cut-{share}-{kind}.{suffix}"
            yield Case(name, data, None if share > 0.9 else False, hole)
        flipped = bytearray(whole)
        for at in random.integers(0, len(whole), 12):
            flipped[at] ^= int(random.integers(1, 256))
        yield Case(f"flipped-{kind}.{suffix}", bytes(flipped), None, hole)
    signature = b"\x89PNG\r\n\x1a\n"
    bomb = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb += chunk(b"IDAT", zlib.compress(bytes(2_000_000)))
    yield Case("bomb.png", signature + bomb, False, hole)
    text = chunk(b"IHDR", struct.pack(">IIBBBBB", 90, 70, 8, 2, 0, 0, 0))
    text += chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(90_000_000)))
    yield Case("bomb-text.png", signature + text, False, hole)
    yield Case("float.tif", encoded(Image.new("F", (90, 70), 0.5), "TIFF"), False, hole)
    yield Case("deep.tif", encoded(Image.new("I", (90, 70), 1 << 20), "TIFF"), False, hole)
    pages = {"empty.png": b"", "page.jpg": b"<html>not found</html>", "zeros.tif": bytes(5000)}
    pages |= {"noise.webp": random.bytes(3000), "script.gif": b"#!/bin/sh\n", "a.heic": b"ftyp"}
    for name, data in pages.items():
        yield Case(name, data, False, hole)


def bad_masks(random: np.random.Generator) -> Iterator[Case]:
    """Good photos whose masks are not."""
    photo = encoded(picture(50, 40, "RGB", random), "PNG")
    wrong = {
        "mask-empty.png": np.zeros((40, 50), bool),
        "mask-full.png": np.ones((40, 50), bool),
        "mask-lying.png": box(40, 50),
        "mask-small.png": box(25, 20),
        "mask-none.png": None,
    }
    for name, hole in wrong.items():
        yield Case(name, photo, False, hole)
    yield Case("mask-damaged.png", photo, False, mask=photo[:200])
    one = encoded(picture(1, 1, "RGB", random), "PNG")
    yield Case("one-pixel.png", one, False, np.ones((1, 1), bool))
    yield Case("one-pixel-kept.png", one, False, np.zeros((1, 1), bool))


def make_cases(*, full: bool) -> list[Case]:
    """The whole corpus, or a smaller one of smaller photos."""
    random = np.random.default_rng(0)
    sizes = SIZES if full else SIZES[:7]
    makers: list[Callable[[], Iterator[Case]]] = [
        lambda: every_mode(random, sizes),
        lambda: every_depth(random, sizes if full else sizes[4:5]),
        lambda: every_orientation(random),
        lambda: special(random),
        lambda: damaged(random, (0.05, 0.3, 0.6, 0.95) if full else (0.3,)),
        lambda: bad_masks(random),
    ]
    cases = [case for make in makers for case in make()]
    if not full:
        thinned = [case for case in cases if "-1." not in case.name and "-2." not in case.name]
        return [c for c in thinned if "turned" not in c.name or c.name[7] in "168"]
    return cases + list(large(random))


def write_cases(cases: list[Case], photos: Path, masks: Path) -> None:
    """Write the corpus as a folder of photos and one of masks."""
    photos.mkdir(parents=True)
    masks.mkdir(parents=True)
    for case in cases:
        (photos / case.name).write_bytes(case.data)
        # The mask has the photo's whole name in front of its own suffix where stems are shared.
        target = masks / mask_name(case)
        if case.mask is not None:
            target.write_bytes(case.mask)
        elif case.hole is not None:
            Image.fromarray(case.hole).save(target, "PNG")


def mask_name(case: Case) -> str:
    """The mask's name: the photo's stem."""
    return f"{Path(case.name).stem}.png"


# --- checking ------------------------------------------------------------------------------------


def stored(data: bytes) -> tuple[Image.Image, Pixels]:
    """Decode independently: the upright image and its stored values."""
    image = Image.open(io.BytesIO(data))
    image.load()
    if image.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA"):
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if raw is not None and raw.dtype == np.uint16:
            return image, raw
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:
        upright = image.copy()
    if upright.mode in ("P", "GIF"):
        return image, np.asarray(upright.convert("RGBA"))
    return image, np.asarray(upright)


def faults(case: Case, result: bytes) -> list[str]:
    """What is wrong with a result."""
    before, old = stored(case.data)
    after, new = stored(result)
    found = []
    kind = {"MPO": "JPEG"}.get(before.format or "", before.format or "")
    if case.name.startswith("really-a-png"):
        kind = "JPEG"
    if after.format != kind:
        return [f"is {after.format}, was {kind}"]
    if after.mode != before.mode:
        found.append(f"has mode {after.mode}, had {before.mode}")
    if new.shape != old.shape:
        return [*found, f"has shape {new.shape}, had {old.shape}"]
    assert case.hole is not None
    known = ~case.hole
    if kind not in LOSSY:
        if not np.array_equal(new[known], old[known]):
            found.append(f"{int((new[known] != old[known]).sum())} known values changed")
    elif known.any():
        difference = np.abs(new[known].astype(int) - old[known])
        # Chroma subsampling lets the hole's colours run into the few pixels of tiny photos.
        if difference.mean() > (6 if known.sum() > 100 else 20):
            found.append(f"known pixels are off by {difference.mean():.1f} on average")
    if kind == "JPEG" and before.format == "JPEG":
        if before.quantization != after.quantization:
            found.append("has other quantisation tables")
        sampling = [[layer[1:3] for layer in image.layer] for image in (before, after)]
        if before.mode == "RGB" and sampling[0] != sampling[1]:
            found.append("has another subsampling")
    if case.metadata:
        if after.info.get("icc_profile") != before.info["icc_profile"]:
            found.append("lost its colour profile")
        if after.getexif().get(MAKE) != "a camera" or after.getexif().get(ORIENTATION, 1) != 1:
            found.append("has other EXIF data")
    return found


def check(cases: list[Case], folder: Path, code: int, err: str) -> list[str]:
    """Every broken promise of a run over the corpus, one line each.

    Args:
        cases: The corpus.
        folder: Where the results are.
        code: The exit code.
        err: Standard error.
    """
    broken = []
    lines = [line for line in err.splitlines() if line.startswith("Error: ")]
    strange = [line for line in err.splitlines() if not line.startswith(("Error: ", "Warning: "))]
    broken += [f"standard error holds {line!r}" for line in strange]
    if code != 1:
        broken.append(f"the exit code is {code}; some files are bad, so it should be 1")
    for case in cases:
        shown = "".join(
            sign if sign.isprintable() else repr(sign)[1:-1]
            for sign in case.name.encode("utf-8", "backslashreplace").decode()
        )
        named = sum(f"/{shown}" in line for line in lines)
        result = folder / case.name
        if case.good is False and (result.exists() or named != 1):
            broken.append(f"{case.name!r} is bad, but written or named in {named} lines")
        elif case.good is None and result.exists() == bool(named):
            broken.append(f"{case.name!r} should be either written or named")
        elif case.good and not result.exists():
            broken.append(f"{case.name!r} is good, but was not filled")
        elif case.good:
            broken += [f"{case.name!r} {fault}" for fault in faults(case, result.read_bytes())]
    return broken


def main() -> int:
    """Make the corpus, run the command on it, check and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reduced", action="store_true", help="the smaller corpus")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/corpus"))
    arguments = parser.parse_args()
    out = arguments.out / time.strftime("%Y%m%d-%H%M%S")
    cases = make_cases(full=not arguments.reduced)
    write_cases(cases, out / "photos", out / "masks")
    command = [sys.executable, "-m", "regionnorm", "inpaint", str(out / "photos")]
    command += ["--mask", str(out / "masks"), "-o", str(out / "filled")]
    command += ["--jobs", str(arguments.jobs), "--report", str(out / "report.csv")]
    start = time.perf_counter()
    run = subprocess.run(command, capture_output=True, check=False)
    seconds = time.perf_counter() - start
    err = run.stderr.decode("utf-8", "replace")
    broken = check(cases, out / "filled", run.returncode, err)
    good = sum(case.good is True for case in cases)
    bad = sum(case.good is False for case in cases)
    summary = {"files": len(cases), "good": good, "bad": bad, "seconds": round(seconds, 1)}
    summary |= {"exit code": run.returncode, "broken promises": len(broken)}
    (out / "stderr.txt").write_text(err, encoding="utf-8")
    (out / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    for line in broken:
        print(line.encode("utf-8", "backslashreplace").decode())
    print(json.dumps(summary), f"see {os.fspath(out)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
