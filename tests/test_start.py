"""What a start of the program does not wait for."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch._dynamo", "torch._inductor", "lightning", "cv2", "skimage", "gradio", "scipy")


def test_filling_a_photo_loads_nothing_heavy() -> None:
    code = (
        "import regionnorm.filling.inpainter, sys; "
        f"print(*(m for m in {HEAVY!r} if m in sys.modules))"
    )
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert loaded == []


def test_the_command_line_starts_without_torch() -> None:
    code = "import regionnorm.cli, sys; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"
