"""Photos with a border cut off and put on again: how near the fill comes to what was there.

    python benchmarks/bench_expand.py --data photos/ --sheet out/bench/expand.png

Each photo loses a fifth of its width and an eighth of its height at one corner. The methods are the
package's own two and Navier-Stokes; PSNR and texture distance are of what was cut off alone. The
sheet shows photo, fills and original side by side, for the eye has the last word here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from regionnorm.filling.classical import classical_filler
from regionnorm.filling.inpainter import Inpainter
from regionnorm.imaging import image_to_tensor, mask_to_tensor, read_image, tensor_to_image
from regionnorm.measuring.perceptual import make_metrics

Pixels = npt.NDArray[np.uint8]


def cut(photo: Pixels) -> npt.NDArray[np.bool_]:
    """What is cut off: the left and the top of a photo ``[H, W, 3]``."""
    hole = np.zeros(photo.shape[:2], bool)
    hole[: photo.shape[0] // 8] = True
    hole[:, : photo.shape[1] // 5] = True
    return hole


def navier_stokes(photo: Pixels, hole: npt.NDArray[np.bool_]) -> Pixels:
    """OpenCV's fill."""
    filled = classical_filler("ns")(image_to_tensor(photo), mask_to_tensor(hole))
    return np.asarray(tensor_to_image(filled))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--limit", type=int, default=36)
    parser.add_argument("--sheet", type=Path, default=None)
    arguments = parser.parse_args()
    inpainter = Inpainter(device="cpu")
    methods = {
        "ns": navier_stokes,
        "network": lambda photo, hole: np.asarray(inpainter(photo, hole, method="network")),
        "auto": lambda photo, hole: np.asarray(inpainter(photo, hole)),
    }
    texture = make_metrics(["texture_distance"])["texture_distance"]
    scores: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
    rows = []
    for path in sorted(p for p in arguments.data.iterdir() if p.is_file())[: arguments.limit]:
        photo = np.asarray(read_image(path).convert("RGB"))
        hole = cut(photo)
        row = [np.where(hole[..., None], np.uint8(255), photo)]
        for name, fill in methods.items():
            start = time.process_time()
            filled = fill(np.where(hole[..., None], np.uint8(0), photo), hole)
            seconds = time.process_time() - start
            error = (filled.astype(float) - photo)[hole]
            psnr = 10 * np.log10(255**2 / max(float((error**2).mean()), 1e-6))
            distance = texture(
                image_to_tensor(filled), image_to_tensor(photo), mask_to_tensor(hole)
            )
            scores[name].append((psnr, float(distance), seconds))
            row.append(filled)
        rows.append(np.concatenate([*row, photo], 1))
    print(f"{'method':10} {'PSNR, dB':>9} {'texture':>8} {'processor s':>12}")
    for name, values in scores.items():
        psnr, distance, seconds = (statistics.mean(column) for column in zip(*values, strict=True))
        print(f"{name:10} {psnr:9.2f} {distance:8.3f} {seconds:12.2f}")
    if arguments.sheet is not None:
        write_sheet(rows, arguments.sheet)


def write_sheet(rows: list[Pixels], path: Path) -> None:
    """Rows of pictures, each scaled to one width."""
    width = 1600
    images = [Image.fromarray(row) for row in rows]
    images = [image.resize((width, image.height * width // image.width)) for image in images]
    sheet = Image.new("RGB", (width, sum(image.height for image in images)))
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


if __name__ == "__main__":
    main()
