"""Many visitors of the web app's page at once, slow ones and ones that leave among them.

    python benchmarks/load_page.py --visitors 50

The app runs in a process of its own. Every visitor brings a photo and a mask that no other has, as
the page's script does. One in five sends and reads slowly; one in ten leaves as soon as its fill
runs, and one in ten while it waits. Before they fill, one in ten selects an object, one in ten
looks for scratches, and one in ten asks for that twelve times at once, of which the app works on
two. Every answer is compared with what the library makes of that photo. Saves
``out/bench/load_page.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from runpy import run_path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

import regionnorm as rn
from regionnorm.files.whole import atomic_path
from regionnorm.imaging import read_image, read_mask, write_image
from regionnorm.masks.scratches import find_scratches
from regionnorm.masks.selection import select_object

_LOAD = run_path(str(Path(__file__).with_name("load_app.py")))
_KINDS = (
    "quick",
    "slow",
    "greedy",
    "leaving",
    "finding",
    "selecting",
    "slow",
    "quick",
    "giving up",
    "quick",
)
_PIECE = 4096
_GREED = 12  # times that a greedy one asks
_GROW = 4  # pixels by which what is selected grows


@dataclass
class Seen:
    """What one visitor saw."""

    kind: str
    result: bytes | None = None
    found: bytes | None = None
    refused: int = 0
    error: str = ""
    opening: float = 0.0
    finding: float = 0.0
    ran: float = 0.0
    left: float = 0.0
    seconds: float = 0.0
    places: list[int] = field(default_factory=list)


def main() -> int:
    """Measure, print and save; 1 if an answer is wrong or missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--side", type=int, default=256, help="of the photos, in pixels")
    parser.add_argument("--model", default="default")
    parser.add_argument("--out", type=Path, default=Path("out/bench/load_page.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder))
    for name, value in figures.items():
        print(f"{name:<44} {value}")
    with atomic_path(arguments.out) as temporary:
        temporary.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return int(figures["mixed up or wrong"] + figures["failed"] > 0)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Let all come at once and look at what they get."""
    pairs = [_LOAD["make_pair"](folder, n, arguments.side) for n in range(arguments.visitors)]
    for photo, _ in pairs:
        scratch(photo)
    with _LOAD["app"](arguments.model, 2 * arguments.visitors) as (address, memory):
        asyncio.run(all_visit(address, pairs[:1]))  # the first fill compiles and allocates
        idle = memory.now()
        began = time.perf_counter()
        seen = asyncio.run(all_visit(address, pairs))
        seconds = time.perf_counter() - began
    return judge(seen, pairs, arguments.model) | {
        "seconds": round(seconds, 1),
        "most before somebody": max(max(one.places, default=0) for one in seen),
        "longest wait for one who has gone, s": round(longest_gap(seen), 2),
        "longest opening of a photo, s": round(max(one.opening for one in seen), 2),
        "longest selecting or finding, s": round(max(one.finding for one in seen), 2),
        "memory when idle, MB": round(idle),
        "largest memory, MB": round(memory.largest),
    }


def scratch(path: Path) -> None:
    """Draw what can be found."""
    with Image.open(path) as image:
        photo = image.convert("RGB")
    ImageDraw.Draw(photo).line((9, 9, photo.width - 9, photo.height // 3), (250, 250, 250), 2)
    write_image(photo, path)


async def all_visit(address: str, pairs: list[tuple[Path, Path]]) -> list[Seen]:
    """Everybody at once."""
    visits = [visit(address, pair, _KINDS[index % len(_KINDS)]) for index, pair in enumerate(pairs)]
    return await asyncio.gather(*visits)


async def visit(address: str, pair: tuple[Path, Path], kind: str) -> Seen:
    """What a page does for one visitor."""
    seen = Seen(kind)
    began = time.perf_counter()
    try:
        async with httpx.AsyncClient(base_url=f"{address}page/", timeout=1800) as http:
            await fill(http, pair, seen)
    except Exception as error:
        seen.error = f"{type(error).__name__}: {error}"
    seen.seconds = time.perf_counter() - began
    return seen


async def fill(http: httpx.AsyncClient, pair: tuple[Path, Path], seen: Seen) -> None:
    """Send a photo, find something in it, fill it, and take the result; or leave."""
    visitor = (await http.post("visitors")).json()["visitor"]
    photo, mask = (path.read_bytes() for path in pair)
    headers = {"Content-Length": str(len(photo))}
    content = slowly(photo) if seen.kind == "slow" else photo
    began = time.perf_counter()
    answer = await http.post(f"{visitor}/photos?name=p.png", content=content, headers=headers)
    if seen.kind != "slow":
        seen.opening = time.perf_counter() - began
    picture = answer.json()["number"]
    if seen.kind in ("selecting", "finding", "greedy"):
        await find(http, visitor, f"{visitor}/pictures/{picture}", mask, seen)
    async with http.stream("POST", f"{visitor}/pictures/{picture}/fills", content=mask) as lines:
        async for line in lines.aiter_lines():
            told: dict[str, Any] = json.loads(line)
            if told["state"] == "running" and not seen.ran:
                seen.ran = time.perf_counter()
            seen.places.append(told.get("ahead", 0))
            if (seen.kind, bool(seen.ran)) == ("leaving", True):
                break
            if seen.kind == "giving up" and len(seen.places) > 8:
                break
            if seen.kind == "slow":
                await asyncio.sleep(0.5)
    if seen.kind in ("leaving", "giving up"):
        seen.left = time.perf_counter()
        return
    if told["state"] != "done":
        raise ValueError(told.get("error", told["state"]))
    number = told["picture"]["number"]
    seen.result = (await http.get(f"{visitor}/pictures/{number}/file")).content


async def find(
    http: httpx.AsyncClient, visitor: str, picture: str, mask: bytes, seen: Seen
) -> None:
    """Select what the mask goes over, or look for scratches, once or greedily."""
    began = time.perf_counter()
    if seen.kind == "selecting":
        asked = [http.post(f"{picture}/selections?grow={_GROW}", content=mask)]
    else:
        times = _GREED if seen.kind == "greedy" else 1
        asked = [http.post(f"{picture}/masks?rule=auto:scratches") for _ in range(times)]
    answers = await asyncio.gather(*asked)
    seen.finding = time.perf_counter() - began
    seen.refused = sum(answer.status_code == 429 for answer in answers)
    for number in [answer.json()["mask"] for answer in answers if answer.is_success]:
        seen.found = (await http.get(f"{visitor}/masks/{number}")).content


async def slowly(data: bytes) -> AsyncIterator[bytes]:
    """As through a thin line: 40 kB a second."""
    for start in range(0, len(data), _PIECE):
        yield data[start : start + _PIECE]
        await asyncio.sleep(0.1)


def longest_gap(seen: list[Seen]) -> float:
    """Seconds from when somebody left whose fill ran until the next fill began."""
    starts = sorted(one.ran for one in seen if one.ran)
    gaps = [0.0]
    for one in seen:
        if one.left and one.ran:
            gaps += [start - one.left for start in starts if start > one.ran][:1]
    return max(gaps)


def judge(seen: list[Seen], pairs: list[tuple[Path, Path]], model: str) -> dict[str, float]:
    """Compare every answer with the library's own."""
    inpainter = rn.Inpainter(model)
    right = wrong = found = 0
    for one, (photo, mask) in zip(seen, pairs, strict=True):
        if one.error:
            print(one.kind, one.error, file=sys.stderr)
        if one.result is not None:
            got = np.asarray(Image.open(io.BytesIO(one.result)))
            expected = np.asarray(inpainter(read_image(photo), read_mask(mask)))
            same = np.array_equal(got, expected)
            right, wrong = right + same, wrong + (not same)
        if one.found is not None:
            same = is_found(one, read_image(photo), read_mask(mask))
            found, wrong = found + same, wrong + (not same)
    left = sum(bool(one.left) for one in seen)
    return {
        "visitors": len(seen),
        "slow ones": sum(one.kind == "slow" for one in seen),
        "left before the end": left,
        "of those, while their fill ran": sum(bool(one.left and one.ran) for one in seen),
        "served": right,
        "selected or found": found,
        "asked for too much at once": sum(one.refused for one in seen),
        "failed": sum(bool(one.error) for one in seen),
        "mixed up or wrong": wrong,
    }


def is_found(one: Seen, photo: Image.Image, stroke: npt.NDArray[np.bool_]) -> bool:
    """Whether a mask that was found is what the library finds."""
    with Image.open(io.BytesIO(one.found or b"")) as image:
        got = np.asarray(image.convert("RGBA"))[..., 3] > 127
    if one.kind == "selecting":
        return np.array_equal(got, select_object(photo, stroke, grow=_GROW))
    return np.array_equal(got, find_scratches(np.asarray(photo)))


if __name__ == "__main__":
    sys.exit(main())
