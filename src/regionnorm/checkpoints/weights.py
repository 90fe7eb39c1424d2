"""Weights on disk: safetensors whose header says how to build the network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from regionnorm._extras import require
from regionnorm.checkpoints.onnx import load_onnx
from regionnorm.checkpoints.released import load_released
from regionnorm.checkpoints.shapes import shape_difference
from regionnorm.devices import pick_device, without_memory
from regionnorm.files.remote import Place, as_place, is_url, local_copy
from regionnorm.files.whole import atomic_path
from regionnorm.models import InpaintingModel, create_model

__all__ = [
    "convert_released",
    "download",
    "load_pretrained",
    "load_released",
    "load_weights",
    "packaged_weights",
    "read_metadata",
    "save_weights",
]

FORMAT = "regionnorm/1"
HEADER = "regionnorm"
HUB_FILE = "model.safetensors"


def save_weights(
    model: InpaintingModel,
    path: str | os.PathLike[str],
    *,
    half: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Save a network's weights with all that is needed to build it again.

    Args:
        model: A network made by :func:`regionnorm.create_model`.
        path: A ``.safetensors`` file; written under a temporary name first.
        half: Store floating tensors in half precision, but those that it has no room for (above
            65,504) as they are.
        metadata: More text for the header, such as the training step.

    Raises:
        ValueError: The network was not made by ``create_model``, or holds NaN or infinity.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile has compiled
    if not model.name:
        raise ValueError("only networks made by create_model can be saved: this one has no name")
    tensors = {}
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            if not torch.isfinite(value).all():
                raise ValueError(f"{key} holds NaN or infinity; these weights are not worth saving")
            value = _halved(value) if half else value
        # A dense copy: safetensors refuses tensors that share memory.
        tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    header = {**(metadata or {}), "format": FORMAT, "model": model.name, "options": model.options}
    with atomic_path(path) as temporary:
        # One entry, because safetensors writes several in random order, and equal weights should
        # be equal files; and bytes, because save_file makes files that only their owner can read.
        text = json.dumps(header, sort_keys=True)
        temporary.write_bytes(serialize(tensors, metadata={HEADER: text}))


def _halved(value: Tensor) -> Tensor:
    half = value.to(torch.float16)
    return half if torch.isfinite(half).all() else value


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the header of a weights file without its tensors.

    Returns:
        ``"model"`` (a name), ``"options"`` (its options), ``"format"``, and what was saved along.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a weights file of this package.
    """
    place = as_place(path)
    if not place.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    with local_copy(place) as local:
        return _read_header(local, place)


def _read_header(local: Path, path: Place) -> dict[str, Any]:
    """What :func:`read_metadata` does, with a copy on this machine; ``path`` is for messages."""
    try:
        with safe_open(str(local), framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER, "{}")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a safetensors file{_instead(path, local, error)}"
        ) from error
    try:
        metadata: dict[str, Any] = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} has a damaged header: {error}") from error
    if metadata.get("format") != FORMAT or not {"model", "options"} <= metadata.keys():
        raise ValueError(
            f"{path} has format {metadata.get('format')!r}; expected {FORMAT!r}, "
            "as written by regionnorm"
        )
    for key, kind, what in (("model", str, "a name"), ("options", dict, "names and values")):
        if not isinstance(metadata[key], kind):
            raise ValueError(
                f"{path} has a damaged header: {key} is {metadata[key]!r:.40}, not {what}"
            )
    return metadata


def _instead(path: Place, local: Path, error: Exception) -> str:
    """What to give in the place of a file that safetensors cannot read."""
    if path.name == "checkpoint.pt":
        return f"; give the run's folder, {path.parent}"
    with local.open("rb") as file:
        start = file.read(2)
    if start in (b"PK", b"\x80\x02"):  # torch.save's, today and before 2020
        return (
            " but PyTorch's own kind (.pth); for the paper's released weights run: "
            f"regionnorm convert {path} {path.with_suffix('.safetensors')}"
        )
    return f": {error}"


def load_weights(
    path: str | os.PathLike[str], *, device: str | torch.device | None = "cpu"
) -> InpaintingModel:
    """Build the network that a weights file describes and load it, in float32, for inference.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a weights file of this package, or does not fit its own header.
    """
    place = as_place(path)
    if not place.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    with local_copy(place) as local:
        return _load(local, place).to(pick_device(device)).eval()


def _load(local: Path, path: Place) -> InpaintingModel:
    metadata = _read_header(local, path)
    with safe_open(str(local), framework="pt") as file:
        # Before anything is made: a header may claim any width, and a network of zeros is as large.
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
        model = _described(path, metadata, shapes)
        expected = model.state_dict()
        # Tensors of another type, such as half precision, become what the network is made of.
        tensors = {key: file.get_tensor(key).to(expected[key].dtype) for key in shapes}
    model.load_state_dict(tensors, assign=True)
    return model


def _described(
    path: Place, metadata: Mapping[str, Any], shapes: Mapping[str, list[int]]
) -> InpaintingModel:
    """The network of a header, without memory for its tensors, which ``shapes`` have to fit.

    Raises:
        ValueError: There is no such network, or the file's tensors are not its.
    """
    name, options = metadata["model"], metadata["options"]
    # Widths are sides of tensors, and layers have tensors: a number above both is of no such file.
    most = max([len(shapes), *(side for shape in shapes.values() for side in shape)])
    for key, value in options.items():
        if isinstance(value, (int, float)) and not value <= most:
            raise ValueError(
                f"{path} does not fit its own header: {key} is {value:.6g}, "
                f"but its {len(shapes)} tensors have sides of at most {most}"
            )
    try:
        with without_memory():
            model = create_model(name, **options)
    except Exception as error:  # options of any type and value raise nearly anything
        raise ValueError(f"{path} describes no network: {error}") from error
    if difference := shape_difference(model, shapes):
        raise ValueError(f"{path} does not fit a {name!r} network: {difference}")
    return model


def convert_released(
    source: str | os.PathLike[str], target: str | os.PathLike[str]
) -> InpaintingModel:
    """Turn a checkpoint of the paper's authors into a weights file of this package.

    Args:
        source: The released ``.pth`` file.
        target: A ``.safetensors`` file, replaced if it is there.

    Returns:
        The network that was written.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not the released generator, or ``target`` has another suffix.
    """
    if as_place(target).suffix != ".safetensors":
        raise ValueError(f"{target} should end in .safetensors")
    model = load_released(source)
    save_weights(model, target, metadata={"source": as_place(source).name})
    return model


def packaged_weights() -> dict[str, Path]:
    """Weights that come with the package: name -> file."""
    folder = Path(str(files("regionnorm"))) / "weights"
    return {file.stem: file for file in sorted(folder.glob("*.safetensors"))}


def load_pretrained(
    name_or_path: str | os.PathLike[str] | None = None, *, device: str | torch.device | None = "cpu"
) -> nn.Module:
    """Load trained weights, ready to fill holes: ``model(image, mask) -> image``.

    Args:
        name_or_path: None or ``"default"``: the weights that come with the package, without any
            network access. Another packaged name, a weights file, an exported ``.onnx`` file or a
            training run's folder (each of them by path or URL, such as ``s3://bucket/run``), or a
            repository on the Hugging Face Hub as ``"owner/name"``.
        device: Where the network goes; None picks the best device.

    Raises:
        ValueError: Nothing by that name.
        ImportError: A hub repository was asked for without the ``hub`` extra, or an ``.onnx`` file
            without ``export``.
    """
    packaged = packaged_weights()
    name = "default" if name_or_path is None else os.fspath(name_or_path)
    path = as_place(name)
    if name in packaged:
        path = packaged[name]
    elif path.is_dir():
        path = _run_weights(path)
    elif not path.is_file() and path.suffix.lower() != ".onnx" and not is_url(name):
        if name.count("/") != 1 or path.suffix:
            choices = ", ".join(packaged) or "none"
            raise ValueError(
                f"no weights called {name!r}: expected a weights file, a training run's folder, "
                f"a hub repository owner/name, or packaged weights ({choices})"
            )
        path = download(name)
    if path.suffix.lower() == ".onnx":
        if is_url(path) and not path.is_file():
            raise FileNotFoundError(f"weights file {path} does not exist")
        with local_copy(path) as local:
            return load_onnx(local, device=pick_device(device))
    return load_weights(path, device=device)


def _run_weights(folder: Place) -> Place:
    """The best weights of a training run, else its latest; or those of a folder for the hub."""
    for name in ("best.safetensors", "weights.safetensors", HUB_FILE):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder} holds no best.safetensors or weights.safetensors")


def download(repository: str, **options: Any) -> Path:
    """Fetch the weights of a hub repository; options are ``hf_hub_download``'s.

    Raises:
        ValueError: They cannot be fetched.
        ImportError: huggingface_hub is missing.
    """
    hub = require("huggingface_hub", extra="hub")
    try:
        return Path(hub.hf_hub_download(repository, HUB_FILE, **options))
    except Exception as error:
        # The hub client raises many kinds of errors; a user needs one line.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ValueError(f"could not fetch {HUB_FILE} of {repository!r}: {reason}") from error
