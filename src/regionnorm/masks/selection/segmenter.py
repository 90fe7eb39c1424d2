"""A network that finds the object in a picture, where the person has one: U²-Net as ONNX."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regionnorm._extras import require
from regionnorm.checkpoints.sessions import kept_session

__all__ = ["find_segmenter", "saliency"]

_NAME = "u2netp.onnx"
_SIDE = 320
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def find_segmenter() -> Path | None:
    """Return the file of a U²-Net on this computer, or None.

    Looked for in turn: the file that ``REGIONNORM_SEGMENTER`` names (empty: none is used), one in
    an installed package ``rembg``, and where rembg keeps those it has fetched: ``U2NET_HOME``,
    by default ``~/.u2net``.

    Raises:
        ValueError: ``REGIONNORM_SEGMENTER`` names no file.
    """
    named = os.environ.get("REGIONNORM_SEGMENTER")
    if named == "":
        return None
    if named is not None:
        if not Path(named).is_file():
            raise ValueError(f"REGIONNORM_SEGMENTER is {named}, which is no file")
        return Path(named)
    if find_spec("onnxruntime") is None:  # nothing could run it
        return None
    package = find_spec("rembg")
    homes = list(package.submodule_search_locations or ()) if package else []
    homes.append(os.environ.get("U2NET_HOME") or os.path.join(os.path.expanduser("~"), ".u2net"))
    return next((Path(home, _NAME) for home in homes if Path(home, _NAME).is_file()), None)


def saliency(picture: npt.NDArray[np.uint8], network: Path) -> npt.NDArray[np.float32]:
    """How much each pixel looks like part of a picture's object.

    Args:
        picture: RGB uint8 ``[H, W, 3]``.
        network: The ONNX file: one image ``[1, 3, 320, 320]`` in, the saliency first out.

    Returns:
        float32 ``[H, W]`` in [0, 1].

    Raises:
        ImportError: onnxruntime is missing.
        ValueError: The file is no such network.
    """
    cv2 = require("cv2", extra="eval")
    small = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    small /= max(1.0, float(small.max()))
    mean, spread = np.array([_MEAN, _SPREAD], np.float32)
    planes = ((small - mean) / spread).transpose(2, 0, 1)[None]
    try:
        session = kept_session(network, extra="export")
        found = session.run(None, {session.get_inputs()[0].name: planes})[0][0, 0]
    except ImportError:
        raise
    except Exception as error:  # of many kinds, as onnxruntime has them
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{network} is no U²-Net that finds objects: {reason}") from error
    found = (found - found.min()) / (found.max() - found.min() + 1e-6)
    height, width = picture.shape[:2]
    seen: npt.NDArray[np.float32] = cv2.resize(found, (width, height))
    return seen
