"""What a start of the program does not wait for."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "torch._dynamo",
    "torch._inductor",
    "lightning",
    "cv2",
    "skimage",
    "gradio",
    "scipy.linalg",
    "onnx",
    "onnxruntime",
    "huggingface_hub",
)


def test_filling_a_photo_loads_nothing_heavy() -> None:
    """From the import to the first fill with the shipped weights, compiled kernels included."""
    code = (
        "import sys; import numpy as np; from regionnorm.filling.inpainter import Inpainter; "
        "photo, hole = np.zeros((40, 40, 3), np.uint8), np.eye(40, dtype=bool); "
        "Inpainter(device='cpu')(photo, hole); "
        f"print(*(m for m in {HEAVY!r} if m in sys.modules))"
    )
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert loaded == []


def test_a_command_imports_without_a_search_for_garbage_and_ends_without_one() -> None:
    code = (
        "import gc, os, sys\n"
        "from regionnorm.cli import console\n"
        "from regionnorm.cli import main\n"
        "sys.argv = ['regionnorm', '--version']\n"
        "before = [s['collections'] for s in gc.get_stats()]\n"
        "with console.quick_imports():\n"
        "    import torch\n"
        "print(before == [s['collections'] for s in gc.get_stats()], gc.isenabled(), "
        "os.environ['OMP_WAIT_POLICY'])\n"
        "gc.unfreeze()\n"
        "main()\n"
        "print(gc.get_freeze_count() > 100_000)\n"
    )
    command = [sys.executable, "-c", code]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    assert lines[0] == "True True PASSIVE" and lines[2] == "True"


def test_the_command_line_starts_without_torch() -> None:
    code = "import regionnorm.cli, sys; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"
