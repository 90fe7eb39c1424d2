"""Run the program with the lowest versions that ``pyproject.toml`` allows, in an environment anew.

    python tests/lowest.py

Fills a photo, finds writing, writes behind a URL, evaluates two fillers, measures FID, trains two
steps, visualizes, exports and serves, each of which has to end well. The extras app and cluster are
left out: they bring newer versions of the others. Python 3.10 to 3.12: for newer ones some of the
oldest versions were never built.
pip installs with its own settings; PyTorch for CPUs alone is far smaller, where pip knows it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "fast eval train study lpips hub export text remote serve".split()
_REQUIREMENT = re.compile(r'"([A-Za-z][\w.-]*(?:\[[\w,]+\])?)>=([\w.]+)"')

# What runs there, with the repository's src on the path and a folder as its argument.
WORK = """
import sys
import threading
import time
import urllib.request
from pathlib import Path
import huggingface_hub
import numpy as np
import torch
import uvicorn
from PIL import Image, ImageDraw
from regionnorm import Inpainter
from regionnorm.cli import main
from regionnorm.measuring.perceptual import FrechetDistance
from regionnorm.serving import build_service

photos = Path(sys.argv[1], "photos")
photos.mkdir()
rng = np.random.default_rng(0)
down, across = np.mgrid[:96, :128]
for number in range(2):
    plane = np.stack([2 * across, 2 * down, down + across], 2) + rng.integers(0, 9, (96, 128, 3))
    Image.fromarray(plane.astype(np.uint8) // 2).save(photos / f"{number}.png")
mask = np.zeros((96, 128), np.uint8)
mask[30:50, 40:70] = 255
Image.fromarray(mask).save(photos.parent / "mask.png")
photo, mask, out = photos / "0.png", photos.parent / "mask.png", photos.parent
written = Image.open(photo).resize((512, 384))
ImageDraw.Draw(written).text((60, 300), "Where is it?", "white", font_size=40, stroke_width=1)
written.save(out / "written.png")
commands = {
    "fill": ["inpaint", photo, "-m", mask, "-o", out / "filled.png"],
    "text": ["inpaint", out / "written.png", "-m", "auto:text", "-o", out / "cleared.png"],
    "URL": ["inpaint", photo, "-m", mask, "-o", "memory://filled.png"],
    "evaluate": ["evaluate", "default", "ns", "biharmonic", "--data", photos, "--size", 64],
    "train": ["train", "default", "--data", photos, "--out", out / "run", "--set", "steps=2",
              "--set", "batch=1", "--set", "size=64", "--set", "losses.perceptual=0",
              "--set", "losses.style=0", "--set", "losses.feature_distance=0"],
    "visualize": ["visualize", photo, "-m", mask, "-o", out / "inside.png"],
    "export": ["export", "default", out / "model.onnx"],
}
for name, command in commands.items():
    if main([str(part) for part in command]) != 0:
        sys.exit(f"{name} failed")
    print(f"{name}: works", flush=True)


class Colours(torch.nn.Module):
    num_features = 3

    def forward(self, pictures):
        return pictures.double().mean(dim=(2, 3))


distance = FrechetDistance(Colours())
distance.update(torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32))
if not distance.compute() >= 0:
    sys.exit("FID failed")
print("FID: works")

server = uvicorn.Server(uvicorn.Config(build_service(Inpainter()), port=0, log_level="error"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.1)
body = b""
for name, path in (("photo", photo), ("mask", mask)):
    head = f'--x\\r\\nContent-Disposition: form-data; name="{name}"; filename="{path.name}"'
    body += head.encode() + b"\\r\\n\\r\\n" + path.read_bytes() + b"\\r\\n"
port = server.servers[0].sockets[0].getsockname()[1]
kind = {"Content-Type": "multipart/form-data; boundary=x"}
request = urllib.request.Request(f"http://127.0.0.1:{port}/fill", body + b"--x--\\r\\n", kind)
if urllib.request.urlopen(request).read()[:4] != b"\\x89PNG":
    sys.exit("serve failed")
print("serve: works")
"""


def lowest_versions(text: str, extras: Iterable[str] = EXTRAS) -> dict[str, str]:
    """The lowest version of each package that the program and these extras name.

    Args:
        text: Of ``pyproject.toml``, with a list of requirements for each extra.
        extras: Which; what an extra takes from others of this package is not followed.
    """
    lists = [re.search(r"^dependencies = \[(.*?)^\]", text, re.M | re.S)]
    lists += [re.search(rf"^{extra} = \[(.*?)\]$", text, re.M | re.S) for extra in extras]
    return {
        name: version
        for found in lists
        for name, version in _REQUIREMENT.findall(found[1] if found else "")
    }


def main() -> None:
    """Install and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / "out" / "lowest", help="made anew")
    place = parser.parse_args().venv
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        sys.exit("run it with Python 3.10 to 3.12: the oldest versions were built for no other")
    versions = lowest_versions((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins = [f"{name}=={version}" for name, version in versions.items()]
    print(" ".join(pins), flush=True)
    venv.create(place, clear=True, with_pip=True)
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *pins, "torchvision"], check=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([python, "-c", WORK, folder], env=environment, cwd=folder)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
