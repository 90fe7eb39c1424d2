"""Writing laid over photos, found again: how many of the letters' pixels, and how many others.

    python benchmarks/bench_text.py
    python benchmarks/bench_text.py --data photos/ --count 200 --sheet out/bench/text.png

Subtitles, date stamps, captions and watermarks are drawn over photos of any folder (by default
scikit-image's), with letters of 14 to 72 pixels on photos whose long side is 384 to 1024. The
pixels of a letter are those of its strokes, outline and shadow that cover at least a quarter of
the photo below and can be seen: black on black is none. A third of the photos without any writing
show what is marked where there is none; signs in the scene count as such.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from regionnorm.imaging import read_image
from regionnorm.masks.regions import dilate_disk
from regionnorm.masks.text import find_text

Hole = npt.NDArray[np.bool_]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]

SIDES, SIZES = (384, 1025), (14, 73)
COVERED = 0.25  # of the photo below: what a letter's pixel covers at least
SEEN = 16  # levels of 255, in some channel, by which it differs from the photo below
CLEAN = 3  # of so many cases one is looked at without its writing, too
NEAR = 3  # pixels from a letter that have to be filled with it in any case
LINES = [
    "I never said that.",
    "Where are you going?",
    "- Wait! - What is it now?",
    "We have to leave tonight",
    "The old harbour, early in the morning",
    "Summer holidays by the sea",
    "Happy birthday, Anna!",
    "© J. Meyer Photography",
    "SAMPLE",
    "www.example.org",
    "Lake Garda, Italy",
    "Chapter 3: The return",
]
COLOURS: list[Colour] = [(255, 255, 255), (0, 0, 0), (220, 30, 40), (30, 90, 220), (250, 240, 200)]


@dataclass(frozen=True)
class Style:
    """How letters look: colours, outline in pixels, shadow's offset, how opaque, a box behind."""

    fill: Colour
    outline: float = 0
    rim: Colour = (0, 0, 0)
    shadow: float = 0
    opacity: float = 1
    box: float = 0


@dataclass(frozen=True)
class Case:
    """A photo with writing, uint8 ``[H, W, 3]``, and its letters, bool ``[H, W]``."""

    kind: str
    photo: npt.NDArray[np.uint8]
    letters: Hole


@cache
def font_files() -> tuple[Path, ...]:
    """Matplotlib's fonts: sans, bold, serif, italic, monospaced, and those of its mathematics."""
    import matplotlib

    names = (
        "DejaVuSans DejaVuSans-Bold DejaVuSans-Oblique DejaVuSerif DejaVuSerif-Bold "
        "DejaVuSerif-Italic DejaVuSansMono DejaVuSansMono-Bold STIXGeneral STIXGeneralBol cmss10"
    )
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return tuple(folder / f"{name}.ttf" for name in names.split())


def make_style(kind: str, size: int, rng: np.random.Generator) -> Style:
    thin = max(1.0, size / 16)
    if kind == "subtitle":
        return Style((255, 255, 255), outline=thin)
    if kind == "yellow":
        return Style((255, 225, 40), outline=thin * int(rng.integers(2)), shadow=thin)
    if kind == "stamp":
        return Style((255, int(rng.integers(120, 180)), 30))
    if kind == "watermark":
        grey = 255 if rng.random() < 0.7 else 0
        return Style((grey, grey, grey), opacity=float(rng.uniform(0.4, 0.7)))
    colour = COLOURS[int(rng.integers(len(COLOURS)))]
    if kind == "boxed":
        return Style(colour if sum(colour) > 300 else (255, 255, 255), box=0.5)
    return Style(colour, shadow=thin * int(rng.integers(2)), rim=(20, 20, 20))


KINDS = ("subtitle", "yellow", "stamp", "watermark", "boxed", "caption", "default")


def write_on(photo: Image.Image, kind: str, rng: np.random.Generator) -> Case:
    """Lay one or two lines over a photo."""
    size = int(rng.integers(*SIZES))
    text, font, style = *wording(kind, size, rng), make_style(kind, size, rng)
    while font.getbbox(text)[2] > 0.92 * photo.width and len(text) > 6:
        text = text[: max(6, len(text) * 3 // 4)].strip()
    while font.getbbox(text)[2] > 0.92 * photo.width and size > SIZES[0]:
        size = max(SIZES[0], size * 3 // 4)
        font = sized(font, size)
    width, height = round(font.getbbox(text)[2]), round(font.getbbox(text)[3])
    low = kind in ("subtitle", "yellow", "stamp")
    left = int(rng.integers(4, max(5, photo.width - width - 4)))
    top = int(rng.uniform(0.72 if low else 0.05, 0.92) * max(1, photo.height - 1.5 * height))
    angle = float(rng.uniform(-8, 8)) if rng.random() < 0.2 else 0.0
    turn = (left + width / 2, top + height / 2)

    def layer(shift: float, stroke: float) -> npt.NDArray[np.float32]:
        drawn = Image.new("L", photo.size)
        ImageDraw.Draw(drawn).text(
            (left + shift, top + shift), text, 255, font, stroke_width=stroke if stroke else 0
        )
        if angle:
            drawn = drawn.rotate(angle, Image.Resampling.BICUBIC, center=turn)
        return np.asarray(drawn, np.float32)[:, :, None] / 255

    colours = np.asarray(photo, np.float32)
    covered = np.zeros((photo.height, photo.width, 1), np.float32)
    if style.box:
        edge = height // 4
        box = Image.new("L", photo.size)
        corners = (left - edge, top - edge, left + width + edge, top + height + edge)
        ImageDraw.Draw(box).rectangle(corners, fill=255)
        if angle:
            box = box.rotate(angle, Image.Resampling.BICUBIC, center=turn)
        colours = colours * (1 - style.box * np.asarray(box, np.float32)[:, :, None] / 255)
    below = colours
    parts = []
    if style.shadow:
        shade = Image.fromarray(np.uint8(255 * layer(style.shadow, 0)[:, :, 0]))
        shade = shade.filter(ImageFilter.GaussianBlur(style.shadow / 3))
        parts.append((0.7 * np.asarray(shade, np.float32)[:, :, None] / 255, style.rim))
    if style.outline:
        parts.append((layer(0, style.outline), style.rim))
    parts.append((layer(0, 0), style.fill))
    for share, colour in parts:
        share = share * style.opacity
        colours = colours * (1 - share) + np.asarray(colour, np.float32) * share
        covered = 1 - (1 - covered) * (1 - share)
    written = np.rint(colours).clip(0, 255).astype(np.uint8)
    seen = abs(written.astype(np.int16) - np.asarray(below)).max(2) >= SEEN
    return Case(kind, written, seen & (covered[:, :, 0] >= COVERED * style.opacity))


def wording(kind: str, size: int, rng: np.random.Generator) -> tuple[str, Font]:
    files = font_files()
    if kind == "default":
        return LINES[int(rng.integers(len(LINES)))], ImageFont.load_default(size)
    if kind == "stamp":
        day, month, year = rng.integers((1, 1, 85), (29, 13, 100))
        text = f"{day:02d}.{month:02d}.'{year}" if rng.random() < 0.5 else f"'{year} {month} {day}"
        return text, ImageFont.truetype(files[int(rng.integers(6, 8))], size)
    bold = kind in ("subtitle", "yellow")
    file = files[int(rng.integers(2))] if bold else files[int(rng.integers(len(files)))]
    return LINES[int(rng.integers(len(LINES)))], ImageFont.truetype(file, size)


def sized(font: Font, size: int) -> Font:
    if isinstance(font, ImageFont.FreeTypeFont) and isinstance(font.path, str | Path):
        return font.font_variant(size=size)
    return ImageFont.load_default(size)


def make_case(paths: Sequence[Path], number: int) -> tuple[Case, npt.NDArray[np.uint8]]:
    """Case of that number, the same each time, and its photo without the writing."""
    rng = np.random.default_rng((16, number))
    photo = read_image(paths[number % len(paths)]).convert("RGB")
    side = int(rng.integers(*SIDES))
    scale = side / max(photo.size)
    size = (round(photo.width * scale), round(photo.height * scale))
    photo = photo.resize(size, Image.Resampling.LANCZOS)
    return write_on(photo, KINDS[number % len(KINDS)], rng), np.asarray(photo)


def sample_photos() -> list[Path]:
    from skimage import data

    folder = Path(data.__file__).parent
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
    return [folder / name for name in names if (folder / name).is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of photos; scikit-image's without it")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--sheet", type=Path, help="write the cases that were found worst here")
    arguments = parser.parse_args()
    folder = arguments.data
    paths = (
        sample_photos() if folder is None else sorted(p for p in folder.iterdir() if p.is_file())
    )
    rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    shown = []
    start = time.process_time()
    for number in range(arguments.count):
        case, clean = make_case(paths, number)
        found = find_text(case.photo)
        near = dilate_disk(case.letters, NEAR)
        counts = (
            case.letters.sum(),
            (found & case.letters).sum(),
            found.sum(),
            (found & near).sum(),
        )
        size = case.letters.size
        clean_share = float("nan") if number % CLEAN else float(find_text(clean).mean())
        row = (*map(float, counts), float(size), float((found & ~near).sum() / size), clean_share)
        rows[case.kind].append(row)
        shown.append((counts[1] / counts[0], number))
    looks = arguments.count + -(-arguments.count // CLEAN)
    seconds = (time.process_time() - start) / looks
    print(
        f"{arguments.count} overlays on {len(paths)} photos, {seconds:.2f} processor seconds each"
    )
    print(
        f"{'kind':10} {'cases':>5} {'recall':>8} {'mean':>7} {'lines':>7} {'near':>7} "
        f"{'false area':>11} {'clean photos':>13}"
    )
    for kind in (*KINDS, "all"):
        given = [row for each in rows.values() for row in each] if kind == "all" else rows[kind]
        letters, right, marked, beside, _, false, clean_area = np.array(given).T
        each = right / letters
        print(
            f"{kind:10} {len(given):5} {right.sum() / letters.sum():8.1%} {each.mean():7.1%} "
            f"{(each > 0.5).mean():7.1%} {beside.sum() / max(1, marked.sum()):7.1%} "
            f"{false.mean():11.2%} {np.nanmean(clean_area):13.2%}"
        )
    worst = sorted(shown)[:24]
    print("worst:", ", ".join(f"{number} ({share:.0%})" for share, number in worst))
    if arguments.sheet is not None:
        write_sheet(paths, [number for _, number in worst], arguments.sheet)


def write_sheet(paths: Sequence[Path], numbers: Sequence[int], path: Path) -> None:
    """Photos and what is marked in them, in pairs."""
    sheet = Image.new("RGB", (4 * 480, -(-len(numbers) // 2) * 360))
    for index, number in enumerate(numbers):
        photo = make_case(paths, number)[0].photo
        shown = photo.copy()
        shown[find_text(photo)] = (255, 20, 100)
        for offset, pixels in enumerate((photo, shown)):
            image = Image.fromarray(pixels)
            image.thumbnail((480, 360))
            sheet.paste(image, ((index % 2 * 2 + offset) * 480, index // 2 * 360))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    print(f"saved {path}")


if __name__ == "__main__":
    main()
