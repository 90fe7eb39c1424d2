"""Thin holes filled: scratches, writing and wires, as they come and by the network alone.

    python benchmarks/bench_thin.py
    python benchmarks/bench_thin.py --data photos/ --model weights.safetensors
    python benchmarks/bench_thin.py --data photos/ --count 40 --blind out/blind

Holes cover at most a tenth of a photo of any folder (by default scikit-image's): scratches as the
package draws them, the letters of ``bench_text.py`` with two pixels around, and wires that hang
between two sides. Navier-Stokes and biharmonic fill the same. The hole is all that a filler knows.
PSNR is of the whole photo, known pixels being the photo's own; differences are by photo, with
95 % intervals. ``--blind`` writes a picture a case for a judge: the place of the hole, enlarged and
marked, and under shuffled letters the original among the fills; the key lies beside. With
``--whole`` whole pictures at their own size instead, and nothing marked.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from bench_text import KINDS as LOOKS
from bench_text import sample_photos, write_on
from PIL import Image, ImageDraw
from removal.cases import Case, Hole, make_case
from removal.pictures import write_blind
from torch import Tensor

import regionnorm as rn
from regionnorm.filling.classical import classical_filler
from regionnorm.imaging import (
    image_to_tensor,
    mask_to_tensor,
    read_image,
    tensor_to_image,
    write_image,
)
from regionnorm.masks.generated import scratch_mask
from regionnorm.masks.regions import dilate_disk
from regionnorm.measuring.metrics import psnr
from regionnorm.measuring.report import bootstrap_means

Filler = Callable[[Tensor, Tensor], Tensor]
KINDS = ("scratches", "writing", "wires")
OURS = "regionnorm"
LARGEST = 0.1  # share of the photo that is hole
MARGIN = 2  # pixels around letters: what softening and compression leave of them
ZOOM = 96  # pixels of the window that a judge sees


def thin_hole(kind: str, photo: Image.Image, rng: np.random.Generator) -> Hole:
    """A hole of a kind, bool ``[H, W]``."""
    if kind == "scratches":
        return scratch_mask(photo.height, photo.width, rng, area=(0.01, LARGEST))
    for _ in range(100):
        hole = _letters(photo, rng) if kind == "writing" else _wires(photo.size, rng)
        if 0 < hole.mean() <= LARGEST:
            return hole
    raise ValueError(f"no {kind} of at most {LARGEST:.0%} fit a photo of {photo.size}")


def _letters(photo: Image.Image, rng: np.random.Generator) -> Hole:
    case = write_on(photo, LOOKS[int(rng.integers(len(LOOKS)))], rng)
    return dilate_disk(case.letters, MARGIN)


def _wires(size: tuple[int, int], rng: np.random.Generator) -> Hole:
    """One to four lines that sag a little, 2 to 6 pixels wide, across or from side to top."""
    canvas = Image.new("1", size)
    draw, (width, height) = ImageDraw.Draw(canvas), size
    steps = np.linspace(0, 1, 64)[:, None]
    for _ in range(int(rng.integers(1, 5))):
        start, end = np.array([(0, rng.uniform(0, height)), (width, rng.uniform(0, height))])
        if rng.random() < 0.3:
            end = np.array((rng.uniform(0.3, 1) * width, 0))
        sag = np.array((0, rng.uniform(0, 0.12) * height))
        points = start + (end - start) * steps + 4 * steps * (1 - steps) * sag
        draw.line([tuple(p) for p in points.tolist()], fill=1, width=int(rng.integers(2, 7)))
    return np.asarray(canvas)


def fillers(model: str | None) -> dict[str, Filler]:
    """What comes of the package, its network alone, and what needs no network."""
    inpainter = rn.Inpainter(model)

    def ours(image: Tensor, mask: Tensor, method: str = "auto") -> Tensor:
        hole = Image.fromarray(_hole_of(mask))
        return image_to_tensor(inpainter(tensor_to_image(image), hole, method=method))

    others = {name: classical_filler(name) for name in ("ns", "biharmonic")}
    return {OURS: ours, "network": partial(ours, method="network"), **others}


def _hole_of(mask: Tensor) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = mask[0, 0].numpy() > 0.5
    return found


def make_cases(paths: Sequence[Path], count: int, folder: Path) -> list[tuple[str, Case]]:
    """Cases with their kinds: the same each time."""
    cases = []
    for number in range(count):
        rng, kind = np.random.default_rng((19, number)), KINDS[number % len(KINDS)]
        photo = read_image(paths[number % len(paths)]).convert("RGB")
        photo.thumbnail((512, 512), Image.Resampling.LANCZOS)
        hole = thin_hole(kind, photo, rng)
        cases.append((kind, make_case(f"{number:03d}-{kind}", photo, hole, folder)))
    return cases


def zoomed(case: Case, fills: dict[str, Path], folder: Path) -> tuple[Case, dict[str, Path]]:
    """The window with the most hole, of the case and of its fills."""
    hole = case.hole()
    top, left = densest_window(hole)
    box = (left, top, min(left + ZOOM, hole.shape[1]), min(top + ZOOM, hole.shape[0]))
    photo = Image.fromarray(case.pixels()).crop(box)
    part = make_case(case.name, photo, hole[box[1] : box[3], box[0] : box[2]], folder / "cases")
    shown = {}
    for name, source in fills.items():
        shown[name] = folder / name
        answer = Image.fromarray(case.filled(source / f"{case.name}.png")).crop(box)
        write_image(answer, shown[name] / f"{case.name}.png")
    return part, shown


def densest_window(hole: Hole) -> tuple[int, int]:
    """Top and left of the window of ``ZOOM`` pixels with the most hole."""
    sums = np.pad(hole.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    high, wide = (min(ZOOM, side) for side in hole.shape)
    inside = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of photos; scikit-image's without it")
    parser.add_argument("--count", type=int, default=60, help="how many cases")
    parser.add_argument("--model", help="name or weights file; the package's without it")
    parser.add_argument("--blind", type=Path, help="write a picture a case, and the key beside")
    parser.add_argument("--whole", action="store_true", help="whole pictures, holes not marked")
    parser.add_argument("--seed", type=int, default=0, help="of the letters")
    parser.add_argument("--out", type=Path, default=Path("out/bench/thin"))
    arguments = parser.parse_args()
    folder = arguments.data
    paths = (
        sample_photos() if folder is None else sorted(p for p in folder.iterdir() if p.is_file())
    )
    cases = make_cases(paths, arguments.count, arguments.out / "cases")
    found = fillers(arguments.model)
    fills = {name: arguments.out / name for name in found}
    values, seconds = np.zeros((len(cases), len(found))), np.zeros(len(found))
    for row, (_, case) in enumerate(cases):
        photo, mask = image_to_tensor(case.pixels()), mask_to_tensor(case.hole())
        for column, (name, filler) in enumerate(found.items()):
            start = time.perf_counter()
            with torch.inference_mode():
                answer = filler(photo * (1 - mask), mask)
            seconds[column] += time.perf_counter() - start
            filled = torch.where(mask > 0, answer, photo)
            values[row, column] = float(psnr(filled, photo).mean())
            write_image(tensor_to_image(filled), fills[name] / f"{case.name}.png")
    report([kind for kind, _ in cases], values, list(found), seconds / len(cases))
    if arguments.blind:
        chosen = [case for _, case in cases]
        shown = {"original": _originals(chosen, arguments.out / "original")}
        shown |= {name: fills[name] for name in (OURS, "biharmonic")}
        if not arguments.whole:
            pairs = [zoomed(case, shown, arguments.out / "zoom") for case in chosen]
            chosen, shown = [case for case, _ in pairs], pairs[0][1]
        key = write_blind(chosen, shown, arguments.blind, arguments.seed, whole=arguments.whole)
        print(f"saved {arguments.blind}, the key is {key}")


def _originals(cases: Sequence[Case], folder: Path) -> Path:
    """The photos themselves as if they were fills."""
    for case in cases:
        write_image(Image.fromarray(case.pixels()), folder / f"{case.name}.png")
    return folder


def report(
    kinds: Sequence[str],
    values: npt.NDArray[np.float64],
    names: Sequence[str],
    seconds: npt.NDArray[np.float64],
) -> None:
    """Print means by kind, and ours minus each other's."""
    print(
        "seconds a photo:", ", ".join(f"{n} {s:.2f}" for n, s in zip(names, seconds, strict=True))
    )
    print(f"{'kind':10} {'cases':>5} " + " ".join(f"{name:>11}" for name in names) + "  ours minus")
    for kind in (*KINDS, "all"):
        chosen = [kind in (one, "all") for one in kinds]
        if not any(chosen):
            continue
        part = values[chosen]
        gaps = bootstrap_means(part[:, :1] - part[:, 1:]) if len(part) > 1 else []
        text = ", ".join(
            f"{name} {gap.mean:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})"
            for name, gap in zip(names[1:], gaps, strict=False)
        )
        means = " ".join(f"{mean:8.2f} dB" for mean in part.mean(0))
        print(f"{kind:10} {len(part):5} {means}  {text}")


if __name__ == "__main__":
    main()
