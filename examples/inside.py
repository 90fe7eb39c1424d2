"""Draw the inside of the network for three of scikit-image's photos.

    python examples/inside.py --out out/inside

writes ``visualize-astronaut.webp`` and so on: a row of panels for each of the layers that
``regionnorm visualize`` shows by default. It prints how each RN-L layer's region lies to the hole.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

import regionnorm as rn
from regionnorm.files.whole import atomic_path
from regionnorm.imaging import image_to_tensor, mask_to_tensor
from regionnorm.inspecting.layers import LayerRecord, visit_layers
from regionnorm.inspecting.look import draw_inside, look_inside
from regionnorm.masks import box_mask, ellipse_mask, free_form_mask

LONG_SIDE = 384
CASES = {
    "astronaut": (free_form_mask, (0.15, 0.2)),
    "chelsea": (ellipse_mask, (0.08, 0.1)),
    "coffee": (box_mask, (0.2, 0.25)),
}


def main() -> None:
    """Write the pictures and print the regions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default", help="weights file; by default the package's")
    parser.add_argument("--out", type=Path, default=Path("out/inside"))
    arguments = parser.parse_args()

    model = rn.load_pretrained(arguments.model)
    for seed, (name, (make_mask, area)) in enumerate(CASES.items()):
        photo = Image.fromarray(getattr(skimage.data, name)())
        photo.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
        hole = make_mask(photo.height, photo.width, np.random.default_rng(seed), area=area)
        image, mask = image_to_tensor(photo), mask_to_tensor(hole)
        figure = draw_inside(look_inside(model, image, mask), title=f"{name}, default weights")
        path = arguments.out / f"visualize-{name}.webp"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="webp", dpi=74, pil_kwargs={"quality": 65})
        print(path)
        visit_layers(model, image, mask, tell)


def tell(record: LayerRecord) -> None:
    """Print how much of the hole and of the known pixels lies in an RN-L layer's region."""
    if record.kind == "rn-l" and record.region is not None:
        of_hole, of_known = (
            float(record.region[where].float().mean()) for where in (record.mask, ~record.mask)
        )
        layer = record.layer.removesuffix(".layer")
        print(f"  {layer:<24} {of_hole:4.0%} of the hole, {of_known:4.0%} of the known pixels")


if __name__ == "__main__":
    main()
