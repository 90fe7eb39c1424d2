"""What the texture pass changes: feature distance, PSNR and time, and a sheet to look at.

Without ``--data`` it runs on twelve of scikit-image's photos. Feature distances need VGG-19, as a
file given with ``--vgg`` or named by REGIONNORM_VGG; without it their columns stay empty. Saves
``out/bench/texture.md``, and every case as soon as it is measured in ``out/bench/texture.jsonl``:
started again with the same arguments, it goes on from there.

    python benchmarks/bench_texture.py
    python benchmarks/bench_texture.py --data photos --vgg vgg19.pth --limit 32
    python benchmarks/bench_texture.py --timing
    python benchmarks/bench_texture.py --sheet docs/images/texture.webp
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor, nn

import regionnorm as rn
from regionnorm.files.formats import list_images
from regionnorm.files.whole import atomic_path
from regionnorm.filling.texture import STRENGTH, add_texture
from regionnorm.imaging import (
    composite,
    image_to_tensor,
    mask_to_tensor,
    read_image,
    tensor_to_image,
    write_image,
)
from regionnorm.losses import FEATURE_DISTANCE_LAYERS, feature_distance
from regionnorm.masks import INTERVALS, center_square_mask, evaluation_mask
from regionnorm.measuring.metrics import compute_metrics
from regionnorm.measuring.report import interval_label
from regionnorm.nn.vgg import ENVIRONMENT_VARIABLE, load_vgg19

SIZE, GAP, HEADER = 256, 4, 22
# Left, top and side of a square; None takes the largest one in the middle.
SAMPLES: dict[str, tuple[int, int, int] | None] = {
    "gravel": (0, 0, 384),
    "grass": (0, 0, 384),
    "brick": (0, 0, 384),
    "coffee": None,
    "chelsea": None,
    "astronaut": None,
    "rocket": None,
    "immunohistochemistry": (0, 0, 384),
    "coins": None,
    "camera": None,
    "moon": (128, 128, 256),
    "stereo_motorcycle": None,
}
Row = dict[str, Any]
Values = npt.NDArray[np.float64]


def photos(arguments: argparse.Namespace) -> list[Image.Image]:
    """Squares of 256 pixels."""
    if arguments.data:
        files = list_images(arguments.data)
        files = files[:: max(1, len(files) // arguments.limit)] if arguments.limit else files
        found = [read_image(file) for file in files[: arguments.limit or None]]
    else:
        found = [sample(name, crop) for name, crop in SAMPLES.items()]
    size = (SIZE, SIZE)
    return [ImageOps.fit(photo.convert("RGB"), size, Image.Resampling.LANCZOS) for photo in found]


def sample(name: str, crop: tuple[int, int, int] | None) -> Image.Image:
    array = getattr(skimage.data, name)()
    photo = Image.fromarray(array[0] if isinstance(array, tuple) else array)
    if crop is None:
        return photo
    left, top, side = crop
    return photo.crop((left, top, left + side, top + side))


@torch.inference_mode()
def fill(model: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    filled = model(image * (1 - mask), mask)
    return composite(image, filled.clamp(0, 1), mask)


def rounded(x: Tensor) -> Tensor:
    return (x * 255).round() / 255


# --- measuring ------------------------------------------------------------------------------------


def measure(
    images: list[Image.Image], model: nn.Module, vgg: nn.Module | None, arguments: Any
) -> list[Row]:
    """PSNR and feature distance of every photo in every interval, with and without texture."""
    rows, file = finished(arguments, len(images)), arguments.out / "texture.jsonl"
    done = {(row["photo"], tuple(row["interval"])) for row in rows}
    for number, photo in enumerate(images):
        for interval in INTERVALS:
            if (number, interval) in done:
                continue
            image = image_to_tensor(photo)
            mask = mask_to_tensor(evaluation_mask(number, interval, SIZE))
            row: Row = {"photo": number, "interval": interval}
            rows.append(row | scores(image, mask, model, vgg, arguments.strength))
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
    return rows


def scores(
    image: Tensor, mask: Tensor, model: nn.Module, vgg: nn.Module | None, strength: float
) -> dict[str, float]:
    plain = fill(model, image, mask)
    results = {"network": plain, "textured": add_texture(image, plain, mask, strength=strength)}
    found = {}
    for name, result in results.items():
        found[f"{name} psnr"] = float(compute_metrics(rounded(result), image)["psnr"])
        if vgg is not None:
            with torch.inference_mode():
                distance = feature_distance(vgg(rounded(result)), vgg(image))
            found[f"{name} distance"] = float(distance)
    return found


def finished(arguments: Any, count: int) -> list[Row]:
    """What an earlier run with the same arguments has measured; the file begins with them."""
    file = arguments.out / "texture.jsonl"
    names = ("data", "limit", "model", "vgg", "strength")
    setting = {name: str(getattr(arguments, name)) for name in names} | {"photos": count}
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    if lines and json.loads(lines[0]) == setting:
        return [json.loads(line) for line in lines[1:]]
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(setting) + "\n", encoding="utf-8")
    return []


def table(rows: list[Row]) -> list[str]:
    """Means by interval; changes with bootstrap 95 % intervals over photos; as Markdown."""
    lines = [
        "| hole | feature distance | with texture | change, % | better in | worst, % "
        "| PSNR, dB | with texture | change, dB |",
        "| --- " + "| ---: " * 8 + "|",
    ]
    spans = [*INTERVALS, (0.0, 0.2), (0.2, 0.6)]
    for low, high in spans:
        chosen = [row for row in rows if low <= row["interval"][0] and row["interval"][1] <= high]
        cells = [interval_label((low, high)), *distance_cells(chosen), *psnr_cells(chosen)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def distance_cells(rows: list[Row]) -> list[str]:
    if "network distance" not in rows[0]:
        return [""] * 5
    before, after = columns(rows, "distance")
    ratios = after / before - 1
    low, high = spread(rows, "distance", lambda old, new: new / old - 1)
    return [
        f"{before.mean():.4f}",
        f"{after.mean():.4f}",
        f"{100 * (after.mean() / before.mean() - 1):+.1f} ({100 * low:+.1f}, {100 * high:+.1f})",
        f"{np.count_nonzero(ratios < 0)} of {len(ratios)}",
        f"{100 * ratios.max():+.0f}",
    ]


def psnr_cells(rows: list[Row]) -> list[str]:
    before, after = columns(rows, "psnr")
    low, high = spread(rows, "psnr", lambda old, new: new - old)
    change = after.mean() - before.mean()
    cells = [f"{before.mean():.2f}", f"{after.mean():.2f}"]
    return [*cells, f"{change:+.2f} ({low:+.2f}, {high:+.2f})"]


def columns(rows: list[Row], measure: str) -> tuple[Values, Values]:
    before, after = (
        np.array([row[f"{name} {measure}"] for row in rows]) for name in ("network", "textured")
    )
    return before, after


def spread(rows: list[Row], measure: str, change: Callable[[Any, Any], Any]) -> Values:
    """Bootstrap 95 % interval of the change of a mean; all cases of a photo come along."""
    numbers = np.unique([row["photo"] for row in rows], return_inverse=True)[1]
    sums = np.zeros((numbers.max() + 1, 3))
    np.add.at(sums, numbers, np.column_stack([*columns(rows, measure), np.ones(len(rows))]))
    rng = np.random.default_rng(0)
    even = np.full(len(sums), 1 / len(sums))
    totals = rng.multinomial(len(sums), even, 2000) @ sums
    means = totals[:, :2] / totals[:, 2:]
    return np.percentile(change(means[:, 0], means[:, 1]), [2.5, 97.5])


def timing(repeat: int = 5) -> str:
    """Seconds of whole calls at 512x512 with a quarter missing, after the first call."""
    photo = Image.fromarray(skimage.data.astronaut()).resize((512, 512))
    hole = center_square_mask(512, 512)
    inpainter = rn.Inpainter()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    processor: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeat + 1):
        for texture in seconds:
            start, used = time.perf_counter(), time.process_time()
            inpainter(photo, hole, texture=texture)
            seconds[texture].append(time.perf_counter() - start)
            processor[texture].append(time.process_time() - used)
    with_texture, without = (
        f"{statistics.median(seconds[texture][1:]):.2f} s "
        f"({statistics.median(processor[texture][1:]):.2f} s of processor time; "
        f"first call {seconds[texture][0]:.2f} s)"
        for texture in (True, False)
    )
    share, threads = 100 * float(hole.mean()), torch.get_num_threads()
    return (
        f"512x512, {share:.0f} % missing, {threads} threads: with texture {with_texture}, "
        f"without {without}"
    )


# --- looking --------------------------------------------------------------------------------------


def sheet(images: list[Image.Image], model: nn.Module, strength: float) -> Image.Image:
    """Twelve photos at most: input, without and with texture, in rows of three photos."""
    images = images[:12]
    across = min(3, len(images))
    step, column = SIZE + GAP, 3 * SIZE + 2 * GAP + 3 * GAP
    size = (across * column - 3 * GAP, -(-len(images) // across) * step - GAP + HEADER)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for left in range(0, size[0], column):
        for place, name in enumerate(("input", "without texture", "with texture")):
            draw.text((left + place * step, 2), name, "black", ImageFont.load_default(size=15))
    for number, photo in enumerate(images):
        mask = mask_to_tensor(evaluation_mask(number, INTERVALS[2 + number % 3], SIZE))
        image = image_to_tensor(photo)
        plain = fill(model, image, mask)
        textured = add_texture(image, plain, mask, strength=strength)
        left, top = number % across * column, HEADER + number // across * step
        for place, panel in enumerate((image * (1 - mask) + mask, plain, textured)):
            picture.paste(tensor_to_image(panel), (left + place * step, top))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of photos; scikit-image's without it")
    parser.add_argument("--limit", type=int, default=0, help="how many of them, spread evenly")
    parser.add_argument("--model", help="name or weights file; the package's without it")
    parser.add_argument("--vgg", type=Path, default=os.environ.get(ENVIRONMENT_VARIABLE))
    parser.add_argument("--strength", type=float, default=STRENGTH)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--timing", action="store_true", help="measure the time alone")
    parser.add_argument("--sheet", type=Path, help="write the pictures here and measure nothing")
    parser.add_argument("--quality", type=int, default=80, help="of a sheet in WebP")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.timing:
        print(timing())
        return
    images, model = photos(arguments), rn.load_pretrained(arguments.model).eval()
    if arguments.sheet:
        options = {"quality": arguments.quality, "lossless": False}
        picture = sheet(images, model, arguments.strength)
        write_image(
            picture, arguments.sheet, **(options if arguments.sheet.suffix == ".webp" else {})
        )
        print(f"saved {arguments.sheet}")
        return
    lines = [f"{len(images)} photos, strength {arguments.strength}", "", timing(), ""]
    print("\n".join(lines), flush=True)
    vgg = load_vgg19(arguments.vgg, layers=FEATURE_DISTANCE_LAYERS) if arguments.vgg else None
    lines += table(measure(images, model, vgg, arguments))
    print("\n".join(lines[4:]))
    with atomic_path(arguments.out / "texture.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"saved {arguments.out / 'texture.md'}")


if __name__ == "__main__":
    main()
