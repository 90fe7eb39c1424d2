"""Fills cases with PyPatchMatch; runs in the environment that has it, see fills.py.

Takes a JSON file of ``[input, hole, output]`` paths, and prints the seconds of each fill as a line.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from patchmatch import patch_match
from PIL import Image

PATCH_SIZE = 3  # radius; its own examples' value


def main() -> None:
    for source, hole_file, target in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        pixels, hole = np.asarray(Image.open(source)), np.asarray(Image.open(hole_file))
        start = time.perf_counter()
        filled = patch_match.inpaint(pixels, hole, patch_size=PATCH_SIZE)
        seconds = time.perf_counter() - start
        Image.fromarray(np.asarray(filled, dtype=np.uint8)).save(target)
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
