"""What the texture pass changes: feature distance, PSNR and time, and a sheet to look at.

Without ``--data`` it runs on twelve of scikit-image's photos. Feature distances need VGG-19, as a
file given with ``--vgg`` or named by REGIONNORM_VGG; without it their columns stay empty. Saves
``out/bench/texture.md``.

    python benchmarks/bench_texture.py
    python benchmarks/bench_texture.py --data photos --vgg vgg19.pth --limit 40
    python benchmarks/bench_texture.py --data photos --sheet out.png --limit 12
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import skimage.data
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

import regionnorm as rn
from regionnorm.data import INTERVALS, center_square_mask, evaluation_mask
from regionnorm.imaging import (
    atomic_path,
    composite,
    image_to_tensor,
    list_images,
    mask_to_tensor,
    read_image,
    tensor_to_image,
    write_image,
)
from regionnorm.losses import FEATURE_DISTANCE_LAYERS, feature_distance
from regionnorm.metrics import compute_metrics
from regionnorm.nn.vgg import ENVIRONMENT_VARIABLE, load_vgg19
from regionnorm.texture import STRENGTH, add_texture

SIZE, GAP = 256, 4
SAMPLES = "astronaut chelsea coffee rocket brick grass gravel camera coins moon"
SAMPLES += " hubble_deep_field stereo_motorcycle"
Row = dict[str, Any]


def photos(arguments: argparse.Namespace) -> list[Image.Image]:
    """Squares of 256 pixels."""
    if arguments.data:
        files = list_images(arguments.data)
        files = files[:: max(1, len(files) // arguments.limit)] if arguments.limit else files
        found = [read_image(file) for file in files[: arguments.limit or None]]
    else:
        arrays = [getattr(skimage.data, name)() for name in SAMPLES.split()]
        found = [Image.fromarray(a[0] if isinstance(a, tuple) else a) for a in arrays]
    size = (SIZE, SIZE)
    return [ImageOps.fit(photo.convert("RGB"), size, Image.Resampling.LANCZOS) for photo in found]


def cases(images: list[Image.Image]) -> Iterator[tuple[str, int, Tensor, Tensor]]:
    """Interval, number, photo and mask of the fixed test masks from 20 to 60 %."""
    for low, high in INTERVALS[2:]:
        for number, photo in enumerate(images):
            mask = evaluation_mask(number, (low, high), SIZE)
            name = f"{100 * low:.0f}-{100 * high:.0f} %"
            yield name, number, image_to_tensor(photo), mask_to_tensor(mask)


@torch.inference_mode()
def fill(model: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    filled = model(image * (1 - mask), mask)
    return composite(image, filled.clamp(0, 1), mask)


def rounded(x: Tensor) -> Tensor:
    return (x * 255).round() / 255


def measure(
    images: list[Image.Image], model: nn.Module, vgg: nn.Module | None, strength: float
) -> list[Row]:
    """PSNR and feature distance of every case, with and without texture."""
    rows = []
    for interval, _, image, mask in cases(images):
        plain = fill(model, image, mask)
        textured = add_texture(image, plain, mask, strength=strength)
        row: Row = {"interval": interval}
        for name, result in (("network", plain), ("textured", textured)):
            row[f"{name} psnr"] = float(compute_metrics(rounded(result), image)["psnr"])
            if vgg is not None:
                with torch.inference_mode():
                    distance = feature_distance(vgg(rounded(result)), vgg(image))
                row[f"{name} distance"] = float(distance)
        rows.append(row)
    return rows


def table(rows: list[Row]) -> list[str]:
    """Means by interval and over all, as Markdown."""
    lines = [
        "| hole | network: feature distance | with texture | change | worst photo | "
        "network: PSNR (dB) | with texture | change |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    intervals = list(dict.fromkeys(row["interval"] for row in rows))
    for interval in [*intervals, "all"]:
        chosen = [row for row in rows if interval in (row["interval"], "all")]
        cells = [interval, *distance_cells(chosen)]
        before, after = (
            statistics.fmean(row[f"{name} psnr"] for row in chosen)
            for name in ("network", "textured")
        )
        cells += [f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def distance_cells(rows: list[Row]) -> list[str]:
    if "network distance" not in rows[0]:
        return [""] * 4
    pairs = [(row["network distance"], row["textured distance"]) for row in rows]
    before, after = (statistics.fmean(values) for values in zip(*pairs, strict=True))
    worst = max(new / old for old, new in pairs) - 1
    return [f"{before:.4f}", f"{after:.4f}", f"{after / before - 1:+.1%}", f"{worst:+.0%}"]


def timing(repeat: int = 5) -> str:
    """Wall and processor time at 512x512 with a quarter missing, after the first call."""
    image = image_to_tensor(Image.fromarray(skimage.data.astronaut()).resize((512, 512)))
    mask = mask_to_tensor(center_square_mask(512, 512))
    blurred = nn.functional.avg_pool2d(image, 9, stride=1, padding=4, count_include_pad=False)
    start = time.perf_counter()
    add_texture(image, blurred, mask)
    first, wall, used = time.perf_counter() - start, [], []
    for _ in range(repeat):
        start, processor = time.perf_counter(), time.process_time()
        add_texture(image, blurred, mask)
        wall.append(time.perf_counter() - start)
        used.append(time.process_time() - processor)
    share = 100 * float(mask.mean())
    return (
        f"512x512, {share:.0f} % missing, {torch.get_num_threads()} threads: "
        f"{statistics.median(wall):.2f} s, {statistics.median(used):.2f} s of processor time "
        f"(first call of the process {first:.2f} s)"
    )


def sheet(images: list[Image.Image], model: nn.Module, strength: float) -> Image.Image:
    """Twelve photos at most: input, network, textured, side by side in four rows of three."""
    images = images[:12]
    columns = 3 if len(images) > 4 else 1
    tiles = -(-len(images) // columns)
    cell = SIZE + GAP
    picture = Image.new("RGB", (columns * (3 * cell + 2 * GAP), tiles * (cell + GAP)), "white")
    for number, photo in enumerate(images):
        interval = INTERVALS[2 + number % 4]
        mask = mask_to_tensor(evaluation_mask(number, interval, SIZE))
        image = image_to_tensor(photo)
        plain = fill(model, image, mask)
        textured = add_texture(image, plain, mask, strength=strength)
        left = number % columns * (3 * cell + 2 * GAP)
        top = number // columns * (cell + GAP)
        for place, panel in enumerate((image * (1 - mask) + mask, plain, textured)):
            picture.paste(tensor_to_image(panel), (left + place * cell, top))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of photos; scikit-image's without it")
    parser.add_argument("--limit", type=int, default=0, help="how many of them, spread evenly")
    parser.add_argument("--model", help="name or weights file; the package's without it")
    parser.add_argument("--vgg", type=Path, default=os.environ.get(ENVIRONMENT_VARIABLE))
    parser.add_argument("--strength", type=float, default=STRENGTH)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sheet", type=Path, help="write the pictures here and measure nothing")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images, model = photos(arguments), rn.load_pretrained(arguments.model).eval()
    if arguments.sheet:
        options = {} if arguments.sheet.suffix == ".png" else {"quality": 88}
        write_image(sheet(images, model, arguments.strength), arguments.sheet, **options)
        print(f"saved {arguments.sheet}")
        return
    lines = [f"{len(images)} photos, strength {arguments.strength}", timing(), ""]
    print("\n".join(lines), flush=True)
    vgg = load_vgg19(arguments.vgg, layers=FEATURE_DISTANCE_LAYERS) if arguments.vgg else None
    lines += table(measure(images, model, vgg, arguments.strength))
    print("\n".join(lines[3:]))
    with atomic_path(arguments.out / "texture.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"saved {arguments.out / 'texture.md'}")


if __name__ == "__main__":
    main()
