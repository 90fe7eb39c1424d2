"""How much damage auto:scratches finds on photos, and how much of what it marks is damage.

    python benchmarks/bench_scratches.py --data photos/ --sheet out/bench/scratches.png
    python benchmarks/bench_scratches.py --data photos/ --scanned --limit 24

Marks are drawn over each photo in two ways: as in training (``regionnorm.masks.damage``), and by
a second renderer that the network never saw (``old_photos.py``); both age, blur, grain and compress
the photo along with them. Small photos are sharper than any scan: their own edges are a pixel wide,
as marks are. ``--scanned`` enlarges each by 2 to 4 first and takes 512 pixels of it: a print that
shows 5 line pairs a millimetre, scanned at 500 to 1000 dots an inch, has as many pixels for each
of its details. Counted is what is delivered, the mask grown by its pixel:

- recall: the share of marked pixels that it covers. A pixel is marked where the marks change its
  strongest channel by 16 gray levels of 255 or more.
- precision: the share of its pixels that lie within 2 pixels of a marked one, or where the marks
  change the photo by 6 levels or more (a mark's soft rim).
- exact: the share of its pixels that are marked, without that tolerance; those that marks change by
  6 to 15 levels count neither way. What is grown by a pixel cannot reach 100 %.
- within 2: recall with the tolerance that precision has, the share of marked pixels of which some
  found one is within 2 pixels.
- clean: the share of the area of photos without any mark that it takes: as they are, and old.

Sums run over the pixels of all photos of a kind, so that large marks count for more; "by photo" are
the medians over photos with at least 20 marked pixels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from old_photos import old_photo
from PIL import Image

from regionnorm.files.formats import list_images
from regionnorm.imaging import read_image
from regionnorm.masks.damage import FAINT, damage_photo
from regionnorm.masks.marks import KINDS
from regionnorm.masks.regions import dilate_disk
from regionnorm.masks.scratches import find_scratches

Pixels = npt.NDArray[np.uint8]
Hole = npt.NDArray[np.bool_]
Method = Literal["learned", "classical"]
TOLERANCE = 2
_SCAN = 512


class Case(NamedTuple):
    """A photo with marks."""

    image: Pixels
    marks: Hole
    any_change: Hole


class Count(NamedTuple):
    """Pixels of one photo."""

    marked: int
    covered: int
    near: int
    """Marked, and something found is within the tolerance."""
    found: int
    right: int
    """Found, and something marked is within the tolerance."""
    counted: int
    """Found, and not too faint to be either."""


def generated(photo: Pixels, rng: np.random.Generator, kinds: Sequence[str]) -> Case:
    """Marks as in training."""
    damaged = damage_photo(photo, rng, kinds=kinds)
    return Case(damaged.image, damaged.marks, damaged.change >= FAINT)


def second(photo: Pixels, rng: np.random.Generator, kinds: Sequence[str]) -> Case:
    """Marks by the other renderer."""
    return Case(*old_photo(photo, rng, list(kinds)))


RENDERERS: dict[str, Callable[[Pixels, np.random.Generator, Sequence[str]], Case]] = {
    "generated": generated,
    "second": second,
}


def count(case: Case, found: Hole) -> Count:
    """Count what is found; see the top of this file."""
    near = dilate_disk(case.marks, TOLERANCE) | case.any_change
    return Count(*(int(part.sum()) for part in (
        case.marks, case.marks & found, case.marks & dilate_disk(found, TOLERANCE),
        found, found & near, found & (case.marks | ~case.any_change),
    )))  # fmt: skip


def row(name: str, counts: list[Count]) -> str:
    """A line of the table."""
    total = Count(*(sum(column) for column in zip(*counts, strict=True)))
    enough = [one for one in counts if one.marked >= 20]
    recall = statistics.median(one.covered / one.marked for one in enough)
    precision = statistics.median(one.right / max(one.found, 1) for one in enough)
    return (
        f"{name:24} {total.covered / max(total.marked, 1):7.1%} "
        f"{total.right / max(total.found, 1):10.1%} {total.near / max(total.marked, 1):9.1%} "
        f"{total.covered / max(total.counted, 1):7.1%} "
        f"{recall:9.1%} {precision:10.1%} {len(counts):7}"
    )


def chosen_kinds(name: str, rng: np.random.Generator) -> list[str]:
    """The kinds of a row: itself, or two to three of all."""
    if name != "mixed":
        return [name]
    return [str(kind) for kind in rng.choice(KINDS, int(rng.integers(2, 4)), replace=False)]


def table(
    photos: list[Pixels], renderer: str, method: Method, limit: int, sheet: list[Pixels]
) -> None:
    """Print recall and precision by kind of mark."""
    everything: list[Count] = []
    for number, name in enumerate((*KINDS, "mixed")):
        counts = []
        for index in range(min(limit, len(photos))):
            rng = np.random.default_rng((7, number, index))
            # Other photos for each kind, so that all are seen.
            photo = photos[(index * len(photos) // limit + 5 * number) % len(photos)]
            case = RENDERERS[renderer](photo, rng, chosen_kinds(name, rng))
            found = find_scratches(case.image, method=method)
            counts.append(count(case, found))
            if index < 4 and name in ("mixed", "hairs", "folds"):
                sheet.append(picture(case, found))
        everything += counts
        print(row(f"{renderer} {name}", counts), flush=True)
    print(row(f"{renderer} all", everything), flush=True)


def picture(case: Case, found: Hole) -> Pixels:
    """Photo, truth, and found: right in green, wrong in red, missed in blue; 256 px each."""
    near = dilate_disk(case.marks, TOLERANCE) | case.any_change
    shown = case.image // 3
    shown[found & near] = (0, 220, 0)
    shown[found & ~near] = (255, 0, 0)
    shown[case.marks & ~found] = (60, 120, 255)
    truth = np.repeat(case.marks[..., None], 3, 2).astype(np.uint8) * 255
    parts = [Image.fromarray(part).resize((256, 256)) for part in (case.image, truth, shown)]
    return np.concatenate([np.asarray(part) for part in parts], 1)


def scan(photo: Pixels, rng: np.random.Generator) -> Pixels:
    """A part of a photo as soft as a scan, 512 px or less: see the top of this file."""
    scale = 2 ** rng.uniform(1, 2)
    side = min(_SCAN / scale, *photo.shape[:2])
    left, top = rng.random(2) * (photo.shape[1] - side, photo.shape[0] - side)
    pixels = round(side * scale)
    box = (float(left), float(top), float(left + side), float(top + side))
    image = Image.fromarray(photo)
    return np.asarray(image.resize((pixels, pixels), Image.Resampling.BICUBIC, box=box))


def clean(name: str, photos: list[Pixels], method: Method) -> None:
    """Print how much of undamaged photos is marked."""
    shares = [float(find_scratches(photo, method=method).mean()) for photo in photos]
    untouched = sum(share == 0 for share in shares) / len(shares)
    print(
        f"{name}: {statistics.mean(shares):.3%} of the area marked on average, "
        f"{untouched:.0%} of {len(shares)} untouched, the worst {max(shares):.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="photos not trained on")
    parser.add_argument("--limit", type=int, default=48, help="photos for each kind of mark")
    parser.add_argument("--method", choices=["learned", "classical"], default="learned")
    parser.add_argument("--scanned", action="store_true", help="enlarge the photos before")
    parser.add_argument("--sheet", type=Path, default=None)
    arguments = parser.parse_args()
    photos = [np.asarray(read_image(path).convert("RGB")) for path in list_images(arguments.data)]
    if arguments.scanned:
        photos = [scan(photo, np.random.default_rng((8, n))) for n, photo in enumerate(photos)]
    start = time.process_time()
    sheet: list[Pixels] = []
    print(
        f"{'':24} {'recall':>7} {'precision':>10} {'within 2':>9} {'exact':>7} {'by photo':>9} "
        f"{'':10} {'photos':>7}"
    )
    for renderer in RENDERERS:
        table(photos, renderer, arguments.method, arguments.limit, sheet)
    clean("clean photos", photos, arguments.method)
    for name, draw in RENDERERS.items():
        old = [draw(photo, np.random.default_rng((9, n)), []) for n, photo in enumerate(photos)]
        clean(f"clean, old ({name})", [case.image for case in old], arguments.method)
    print(f"{time.process_time() - start:.0f} processor seconds in all")
    if arguments.sheet is not None:
        half = len(sheet) // 2
        columns = [np.concatenate(sheet[:half]), np.concatenate(sheet[half:])]
        arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(columns, 1)).save(arguments.sheet)


if __name__ == "__main__":
    main()
