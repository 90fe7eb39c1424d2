"""A U-Net of another package (MONAI) before and after ``convert_region_norm``.

Both sides start from the same weights, see the same batches in turns and train equally long by
their own clocks; then both fill the same holes of photos that neither has seen. Prints the layers
that were converted and a table, and saves ``out/bench/convert_unet.json`` and ``.md``.

    python benchmarks/convert_unet.py                                       # quick
    python benchmarks/convert_unet.py --data train/ --val val/ --minutes 10
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import skimage.data
import torch
from monai.networks.nets import UNet
from PIL import Image
from torch import Tensor, nn

import regionnorm as rn
from regionnorm.data import InpaintingDataset, open_source
from regionnorm.files.whole import atomic_path
from regionnorm.imaging import composite
from regionnorm.losses import reconstruction_loss
from regionnorm.masks import GeneratedMasks
from regionnorm.measuring.evaluate import evaluate
from regionnorm.nn import ConvertedNetwork

TURN = 10  # steps of one side before the other's turn
TRAIN_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
VAL_PHOTOS = ("hubble_deep_field", "immunohistochemistry", "retina")


@dataclass
class Side:
    """A network in training, with its own clock and its own place in the data."""

    network: nn.Module
    seconds: float = 0.0
    steps: int = 0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, betas=(0.5, 0.9))

    def predict(self, image: Tensor, mask: Tensor) -> Tensor:
        """Both sides get the mask as a channel; only the converted one's norms use it too."""
        given = torch.cat([image * (1 - mask) + mask, mask], dim=1)
        converted = isinstance(self.network, ConvertedNetwork)
        output: Tensor = self.network(given, mask) if converted else self.network(given)
        return output

    def step(self, image: Tensor, mask: Tensor) -> None:
        """Take one step and let the clock run meanwhile."""
        begin = time.perf_counter()
        loss = reconstruction_loss(composite(image, self.predict(image, mask), mask), image, mask)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())
        self.seconds += time.perf_counter() - begin
        self.steps += 1

    @torch.no_grad()
    def fill(self, image: Tensor, mask: Tensor) -> Tensor:
        """As :data:`regionnorm.measuring.evaluate.Filler`."""
        self.network.eval()
        output = self.predict(image, mask).clamp(0, 1)
        self.network.train()
        return output


def make_sides(norm: str, width: int, seed: int) -> dict[str, Side]:
    """The network as MONAI makes it, and the same one converted."""
    torch.manual_seed(seed)
    unet = UNet(
        spatial_dims=2,
        in_channels=4,
        out_channels=3,
        channels=[width * 2**level for level in range(5)],
        strides=[2] * 4,
        num_res_units=2,
        norm=(norm, {"affine": True}),
    )
    # The lowest level ends the encoder: what comes after it is on the way up.
    converted = rn.convert_region_norm(unet, encoder="model.1.submodule.1.submodule.1.submodule.1")
    print(converted.summary())
    return {f"{norm} norm": Side(unet), "converted": Side(converted)}


def batches(dataset: InpaintingDataset, batch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from a step on: which photos depends on the step alone."""
    while True:
        samples = [dataset[start * batch + i] for i in range(batch)]
        image = torch.stack([sample["image"] for sample in samples]).float() / 255
        yield image, torch.stack([sample["mask"] for sample in samples])
        start += 1


def train(sides: dict[str, Side], dataset: InpaintingDataset, batch: int, minutes: float) -> None:
    """Train in turns until each side's clock has run for so long."""
    report = time.monotonic()
    while open_sides := [side for side in sides.values() if side.seconds < 60 * minutes]:
        for side in open_sides:
            source = batches(dataset, batch, side.steps)
            for _ in range(TURN):
                side.step(*next(source))
        if time.monotonic() - report > 60:
            report = time.monotonic()
            print(*(f"{n}: step {s.steps}, {s.seconds:.0f} s;" for n, s in sides.items()))


def bundled(folder: Path, names: tuple[str, ...]) -> Path:
    """Photos that scikit-image brings along, as files."""
    folder.mkdir()
    for name in names:
        photo = Image.fromarray(getattr(skimage.data, name)())
        photo.thumbnail((320, 320))
        photo.save(folder / f"{name}.png")
    return folder


def to_markdown(rows: list[dict[str, float | str]], about: str) -> str:
    """A table with one row for each side."""
    lines = [about, "", "| | steps | last losses | PSNR, dB | SSIM | l1, % |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    lines += [
        "| {name} | {steps} | {loss:.4f} | {psnr:.2f} | {ssim:.3f} | {l1:.2f} |".format(**row)
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def measure(
    sides: dict[str, Side], val: list[str | Path], size: int
) -> list[dict[str, float | str]]:
    """Fill the validation photos with both sides; all intervals of hole area together."""
    models: dict[str, Callable[[Tensor, Tensor], Tensor]] = {n: s.fill for n, s in sides.items()}
    result = evaluate(models, open_source(val), size=size, difference_to=next(iter(sides)))
    rows: list[dict[str, float | str]] = []
    for row in result.rows:
        if row.interval is None:
            side = sides[row.model]
            recent = side.losses[-100:]
            loss = sum(recent) / len(recent)
            scores = {"psnr": row.psnr.mean, "ssim": row.ssim.mean, "l1": row.l1.mean}
            rows.append({"name": row.model, "steps": side.steps, "loss": loss, **scores})
    return rows


def main() -> None:
    """Train both sides, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", help="photos to train on; default: a few bundled ones")
    parser.add_argument("--val", nargs="+", help="photos to judge by")
    parser.add_argument("--minutes", type=float, default=0.1, help="for each side")
    parser.add_argument("--norm", choices=("instance", "batch"), default="instance")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    given = parser.parse_args()
    sides = make_sides(given.norm, given.width, given.seed)
    with tempfile.TemporaryDirectory() as name:
        data = given.data or [bundled(Path(name, "train"), TRAIN_PHOTOS)]
        val = given.val or [bundled(Path(name, "val"), VAL_PHOTOS)]
        masks = GeneratedMasks(0.6)
        dataset = InpaintingDataset(open_source(data), masks, size=given.size, seed=given.seed)
        train(sides, dataset, given.batch, given.minutes)
        rows = measure(sides, val, given.size)
    about = (
        f"MONAI U-Net, {given.norm} norm, {given.minutes:g} minutes a side, {given.size} px, "
        f"batch {given.batch}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    )
    table = to_markdown(rows, about)
    print(table)
    converted = sides["converted"].network
    layers = converted.converted if isinstance(converted, ConvertedNetwork) else {}
    record = {"about": about, "rows": rows, "converted": layers}
    with atomic_path(given.out / "convert_unet.json") as path:
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    with atomic_path(given.out / "convert_unet.md") as path:
        path.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
