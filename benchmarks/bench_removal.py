"""Objects removed: this package's fills beside other programs', in figures and in pictures.

Takes any folder of photos and one of masks with the same stems; without them seven of
scikit-image's photos with a hole of a fifth of their area. Ours, the network alone and
Navier-Stokes always run. Other programs run where they are installed: PyPatchMatch in the
environment that ``--peers-python`` names, G'MIC and GIMP's Resynthesizer where they are found;
some are GPL, and none is a dependency. Fills are kept in ``out/bench/removal/fills/NAME``: started
again, only what is missing is filled. The table is saved as ``removal.md`` beside them. Feature
and texture distance need VGG-19, given with ``--vgg`` or named by REGIONNORM_VGG.

    python benchmarks/bench_removal.py
    python benchmarks/bench_removal.py --data photos --masks masks --vgg vgg19.pth
    python benchmarks/bench_removal.py --data photos --masks masks --peers-python peers/bin/python
    python benchmarks/bench_removal.py --again ours --sheet sheet.webp --blind out/blind
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from removal.cases import Case, paired, samples
from removal.fills import OURS, fill_missing, fillers
from removal.pictures import sheet, write_blind

from regionnorm.files.whole import atomic_path
from regionnorm.imaging import image_to_tensor, mask_to_tensor, write_image
from regionnorm.measuring.metrics import PSNR_CAP
from regionnorm.measuring.perceptual import FeatureDistance, Features, TextureDistance
from regionnorm.measuring.report import bootstrap_means
from regionnorm.nn.vgg import ENVIRONMENT_VARIABLE

Values = npt.NDArray[np.float64]
COLUMNS = {
    "hole PSNR, dB": 2,
    "feature distance": 4,
    "texture distance": 4,
    "seconds": 2,
}


def measure(
    cases: Sequence[Case],
    fills: Mapping[str, Path],
    seconds: Mapping[str, Mapping[str, float]],
    features: Features | None,
) -> dict[str, Values]:
    """For each filler ``[cases, columns]``; nan where there is no VGG-19."""
    values: dict[str, list[list[float]]] = {name: [] for name in fills}
    for case in cases:
        photo, mask = image_to_tensor(case.pixels()), mask_to_tensor(case.hole())
        for name, folder in fills.items():
            result = image_to_tensor(case.filled(folder / f"{case.name}.png"))
            row = [hole_psnr(result, photo, mask), np.nan, np.nan, seconds[name][case.name]]
            if features is not None:
                row[1] = float(FeatureDistance(features)(result, photo))
                row[2] = float(TextureDistance(features)(result, photo, mask))
            values[name].append(row)
    return {name: np.array(rows) for name, rows in values.items()}


def hole_psnr(result: torch.Tensor, photo: torch.Tensor, mask: torch.Tensor) -> float:
    """PSNR over the hole's pixels alone, in dB."""
    error = ((result - photo).double().square() * mask).sum() / (3 * mask.sum())
    return min(PSNR_CAP, float(-10 * error.log10()))


def table(values: Mapping[str, Values]) -> list[str]:
    """Means; in brackets the filler's value minus ours with its 95 % interval; as Markdown."""
    lines = [
        "| fill | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for name, rows in values.items():
        cells = [
            f"{mean:.{n}f}" if np.isfinite(mean) else ""
            for mean, n in zip(rows.mean(axis=0), COLUMNS.values(), strict=True)
        ]
        if name != OURS and OURS in values:
            gaps = bootstrap_means(rows - values[OURS])
            cells = [
                cell and f"{cell} ({gap.mean:+.{n}f}: {gap.low:+.{n}f} to {gap.high:+.{n}f})"
                for cell, gap, n in zip(cells, gaps, COLUMNS.values(), strict=True)
            ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of photos; scikit-image's without it")
    parser.add_argument("--masks", type=Path, help="folder of masks, named as the photos")
    parser.add_argument("--limit", type=int, default=0, help="how many cases")
    parser.add_argument("--model", help="name or weights file; the package's without it")
    parser.add_argument("--vgg", default=os.environ.get(ENVIRONMENT_VARIABLE))
    parser.add_argument("--peers-python", type=Path, help="interpreter that has pypatchmatch")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these fillers")
    parser.add_argument("--again", nargs="+", metavar="NAME", default=[], help="fill anew")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here")
    parser.add_argument("--blind", type=Path, help="write a picture a case, and the key beside")
    parser.add_argument("--seed", type=int, default=0, help="of the letters")
    parser.add_argument("--quality", type=int, default=85, help="of a sheet in WebP")
    parser.add_argument("--out", type=Path, default=Path("out/bench/removal"))
    arguments = parser.parse_args()
    if (arguments.data is None) != (arguments.masks is None):
        parser.error("--data and --masks go together")
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    folder = arguments.out / "cases"
    if arguments.data is None:
        cases = samples(arguments.limit, folder)
    else:
        cases = paired(arguments.data, arguments.masks, arguments.limit, folder)
    found = fillers(arguments.model, arguments.peers_python)
    wanted = [name for name in found if not arguments.only or name in arguments.only]
    fills = {name: arguments.out / "fills" / name for name in wanted}
    for name in set(arguments.again) & set(fills):
        shutil.rmtree(fills[name], ignore_errors=True)
    seconds = {name: fill_missing(name, found[name], cases, fills[name]) for name in wanted}
    if arguments.sheet:
        webp = arguments.sheet.suffix == ".webp"  # else it would be written without loss
        options = {"quality": arguments.quality, "lossless": False} if webp else {}
        write_image(sheet(cases, fills), arguments.sheet, **options)
        print(f"saved {arguments.sheet}")
    if arguments.blind:
        key = write_blind(cases, fills, arguments.blind, arguments.seed)
        print(f"saved {arguments.blind}, the key is {key}")
    features = Features.load(arguments.vgg) if arguments.vgg else None
    threads = f"{arguments.threads} threads" if arguments.threads > 1 else "1 thread"
    lines = [f"{len(cases)} cases, {threads}; in brackets: minus ours, 95 % interval", ""]
    lines += table(measure(cases, fills, seconds, features))
    print("\n".join(lines))
    with atomic_path(arguments.out / "removal.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"saved {arguments.out / 'removal.md'}")


if __name__ == "__main__":
    main()
