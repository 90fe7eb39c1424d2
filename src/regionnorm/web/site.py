"""A static page that fills photos wholly in the visitor's browser.

The page is a folder of files: the network as ONNX, ONNX Runtime's WebAssembly, the brush of the
app, and the photo pipeline in JavaScript. Any file server hands it out; nothing is installed, and
no photo leaves the browser.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from importlib.resources import files
from pathlib import Path

from regionnorm.exporting.onnx import Exported, export
from regionnorm.files.whole import atomic_path
from regionnorm.models import InpaintingModel

__all__ = ["RUNTIME", "fetch_runtime", "write_site"]

RUNTIME = "1.30.0"
"""Version of onnxruntime-web."""

_SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
_PACKAGE = "onnxruntime-web"
_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
_REGISTRY = "https://registry.npmjs.org/"  # where npm looks unless it is told otherwise
_SECONDS = 300  # that a download may take
_STATIC = ("editor.js", "start.js", "page.js", "worker.js", "fill.js", "service.js")


def write_site(
    folder: str | os.PathLike[str],
    model: InpaintingModel | str | os.PathLike[str] = "default",
    *,
    runtime: str | os.PathLike[str] | None = None,
) -> Exported:
    """Write the page; open it through any file server, such as ``python -m http.server``.

    Args:
        folder: Made if it is not there; files of the page that are there are replaced.
        model: As for :func:`regionnorm.export`; its weights are stored in half precision.
        runtime: onnxruntime-web from disk: the package's ``.tgz`` or its unpacked folder. None
            fetches the ``.tgz`` from the npm registry, through npm where it is installed.

    Returns:
        How far the exported network's pictures are from its own.

    Raises:
        ValueError: The runtime cannot be fetched, is not the version that the page was made for,
            or the network cannot be exported.
        OSError: A place cannot be read or written.
        ImportError: onnx or onnxruntime is missing.
    """
    folder = Path(folder)
    parts = _runtime_files(fetch_runtime() if runtime is None else Path(runtime))
    exported = export(model, folder / "model.onnx", half=True)
    static = files("regionnorm") / "web" / "static"
    html = (static / "index.html").read_text(encoding="utf-8")
    editor = (static / "editor.html").read_text(encoding="utf-8")
    css = "".join(
        part.read_text(encoding="utf-8") for part in (static / "editor.css", static / "page.css")
    )
    texts = {
        "index.html": html.replace("<!-- editor -->\n", editor),
        "page.css": css,
        **{name: (static / name).read_text(encoding="utf-8") for name in _STATIC},
    }
    contents = {name: text.encode() for name, text in texts.items()}
    contents |= {f"ort/{name}": content for name, content in parts.items()}
    for name, content in contents.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    return exported


def fetch_runtime(*, offline: bool = False) -> bytes:
    """The ``.tgz`` of onnxruntime-web, checked against the sum of the version wanted.

    Args:
        offline: Only look into npm's own store, and fetch nothing.

    Raises:
        ValueError: It cannot be had, or is another file.
    """
    npm = shutil.which("npm")
    if npm is None and offline:
        raise ValueError("npm is not installed, which would keep packages on this computer")
    content = _plain_download() if npm is None else _packed_by(npm, offline)
    _check(content, f"{_PACKAGE} {RUNTIME} of the registry")
    return content


def _packed_by(npm: str, offline: bool) -> bytes:
    """Through npm, which knows this machine's registry, proxy and certificates."""
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{_PACKAGE}@{RUNTIME}", "--pack-destination", folder, "--silent"]
        command += ["--offline"] if offline else ["--prefer-offline"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ValueError(_cannot_fetch(str(error))) from error
        packed = list(Path(folder).glob("*.tgz"))
        if done.returncode or not packed:
            raise ValueError(_cannot_fetch(done.stderr.strip().splitlines()[-1:] or "npm failed"))
        return packed[0].read_bytes()


def _plain_download() -> bytes:
    told = (v for k, v in os.environ.items() if k.lower() == "npm_config_registry" and v)
    registry = next(told, _REGISTRY)
    address = f"{registry.rstrip('/')}/{_PACKAGE}/-/{_PACKAGE}-{RUNTIME}.tgz"
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer:
            content: bytes = answer.read()
    except OSError as error:
        raise ValueError(_cannot_fetch(f"{address}: {error}")) from error
    return content


def _cannot_fetch(reason: object) -> str:
    return (
        f"could not fetch {_PACKAGE} {RUNTIME} from the npm registry ({reason}); fetch it by "
        f"hand, `npm pack {_PACKAGE}@{RUNTIME}`, and give the file as runtime"
    )


def _check(content: bytes, what: str) -> None:
    if hashlib.sha512(content).hexdigest() != _SHA512:
        raise ValueError(
            f"{what} is not the {_PACKAGE} {RUNTIME} that this page was made for: "
            "its sha512 differs"
        )


def _runtime_files(runtime: bytes | Path) -> dict[str, bytes]:
    """The files that the page needs, of a package or its unpacked folder."""
    if isinstance(runtime, Path) and runtime.is_dir():
        places = [runtime / "dist", runtime / "package" / "dist", runtime]
        folder = next((p for p in places if (p / _FILES[0]).is_file()), None)
        if folder is None:
            raise ValueError(f"{runtime} holds no {_FILES[0]}; give {_PACKAGE}'s unpacked folder")
        return {name: (folder / name).read_bytes() for name in _FILES}
    if isinstance(runtime, Path):
        content, what = runtime.read_bytes(), str(runtime)
        _check(content, what)
        runtime = content
    with tarfile.open(fileobj=io.BytesIO(runtime)) as package:
        found = {}
        for name in _FILES:
            member = package.extractfile(f"package/dist/{name}")
            assert member is not None  # the sum says so
            found[name] = member.read()
    return found
