"""The service as an ASGI app: what it answers at which address."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from regionnorm import __version__
from regionnorm._extras import require
from regionnorm.files.formats import IMAGE_SUFFIXES
from regionnorm.files.whole import check_pixels
from regionnorm.filling.inpainter import METHODS, Inpainter, inpaint_path
from regionnorm.masks.check import MaskOptions, is_mask_rule
from regionnorm.photo import Photo
from regionnorm.serving.limits import FOLDER, Desk, Limits
from regionnorm.serving.metrics import Metrics
from regionnorm.stopping import Stopped, waited_for

__all__ = ["FILL", "ServiceOptions", "build_service"]

FILL = "/fill"
"""Where photos are sent."""

_FIELDS = ("rule", "method", "variant", "dilate", "invert_mask", "fit_mask", "hard_mask", "quality")
_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff"}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class ServiceOptions:
    """Limits of the service.

    Attributes:
        jobs: Photos filled at once, each in its own memory.
        max_queue: Further photos that may wait; those beyond are told to come back (429).
        max_open: Requests open at once, those included that are still being sent.
        max_megapixels: Larger photos are refused; a request may carry eight bytes a pixel.
        patience: Seconds that a client may take to send its request, and to take each piece of
            the answer.
    """

    jobs: int = 1
    max_queue: int = 16
    max_open: int = 64
    max_megapixels: float = 40
    patience: float = 60

    def __post_init__(self) -> None:
        for name in ("jobs", "max_open"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.max_queue < 0:
            raise ValueError(f"max_queue is {self.max_queue}; give 0 or more")
        for name in ("max_megapixels", "patience"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name):g}; give more than 0")

    @property
    def max_body(self) -> int:
        """Bytes that a request may carry: 16-bit RGBA without compression, and a little more."""
        return int(8e6 * self.max_megapixels) + 2**20


@dataclass(frozen=True)
class _Order:
    """What a request asks for."""

    photo: Path
    mask: str
    method: str | None
    variant: int | None
    options: MaskOptions
    quality: int | None


def build_service(inpainter: Inpainter, options: ServiceOptions | None = None) -> Any:
    """Make the ASGI app.

    ``POST /fill`` takes a form with the files ``photo`` and ``mask`` (white = hole; or the field
    ``rule``, such as ``auto:scratches``) and the fields ``method``, ``variant``, ``dilate``,
    ``invert_mask``, ``fit_mask``, ``hard_mask`` and ``quality``, and answers with the filled photo
    in its own format. ``GET /healthz``, ``/readyz`` and ``/metrics`` are for what watches it.
    Errors are ``{"error": "one line"}``: 400 for what cannot be filled, 408 for clients that are
    too slow, 413 for what is too large, 429 with Retry-After where too many wait, 503 when it
    stops.

    Args:
        inpainter: What fills the holes.
        options: Limits.

    Returns:
        A ``fastapi.FastAPI``; its ``state.desk`` counts requests.

    Raises:
        ImportError: FastAPI is not installed; the message is the command that installs it.
    """
    fastapi = require("fastapi", extra="serve")
    require("python_multipart", extra="serve")
    options = options or ServiceOptions()
    app = fastapi.FastAPI(title="regionnorm", version=__version__, docs_url=None, redoc_url=None)
    desk = Desk(options.jobs, options.max_queue, options.max_open)
    metrics = Metrics(
        {
            ("open", "Requests that are open."): lambda: desk.open,
            ("waiting", "Photos that wait."): lambda: desk.waiting,
            ("running", "Photos that are being filled."): lambda: desk.running,
        }
    )
    app.state.desk = desk
    service = _Service(fastapi, inpainter, options, desk, metrics)
    app.add_middleware(
        Limits,
        path=FILL,
        desk=desk,
        metrics=metrics,
        max_body=options.max_body,
        patience=options.patience,
    )
    app.add_exception_handler(
        require("starlette.exceptions", extra="serve").HTTPException, service.explain
    )
    for path, answer in (
        ("/healthz", service.health),
        ("/readyz", service.ready),
        ("/metrics", service.count),
    ):
        app.add_route(path, answer, methods=["GET"])
    app.add_route(FILL, service.fill, methods=["POST"])
    return app


class _Service:
    """The answers."""

    def __init__(
        self,
        fastapi: Any,
        inpainter: Inpainter,
        options: ServiceOptions,
        desk: Desk,
        metrics: Metrics,
    ) -> None:
        self.http, self.error = fastapi.responses, fastapi.HTTPException
        self.gone = require("starlette.requests", extra="serve").ClientDisconnect
        self.inpainter, self.options, self.desk, self.metrics = inpainter, options, desk, metrics
        self.pool = ThreadPoolExecutor(options.jobs, thread_name_prefix="fill")

    async def explain(self, request: Any, error: Any) -> Any:
        headers = getattr(error, "headers", None)
        return self.http.JSONResponse({"error": str(error.detail)}, error.status_code, headers)

    async def health(self, request: Any) -> Any:
        return self.http.JSONResponse({"status": "ok", "version": __version__})

    async def ready(self, request: Any) -> Any:
        if self.desk.draining:
            return self.http.JSONResponse({"status": "stopping"}, 503)
        return self.http.JSONResponse({"status": "ready"})

    async def count(self, request: Any) -> Any:
        text, kind = self.metrics.text()
        return self.http.Response(text, media_type=kind)

    async def fill(self, request: Any) -> Any:
        """Take a photo, wait for a turn, and give the result back."""
        loop, folder = asyncio.get_running_loop(), Path(request.scope[FOLDER])
        kind = request.headers.get("content-type", "")
        if not kind.lower().startswith("multipart/form-data"):
            raise self.error(
                400, f"the request is {kind[:40] or 'of no type'}; send a form, multipart/form-data"
            )
        limits = {"max_files": 2, "max_fields": len(_FIELDS), "max_part_size": 1024}
        try:
            async with request.form(**limits) as form:
                order = await loop.run_in_executor(None, _read_order, form, folder)
        except ValueError as error:
            raise self.error(400, str(error)) from error
        except self.gone as error:
            raise self.error(499, "the client has gone") from error
        if self.desk.full:  # others came while this one was sent
            pause = {"Retry-After": str(self.desk.retry_after)}
            raise self.error(429, "too many photos are waiting; try again later", pause)

        async def work() -> tuple[Path, list[str]]:
            stops = copy_context().run  # the thread, too, is told when the client goes
            result: tuple[Path, list[str]] = await loop.run_in_executor(
                self.pool, stops, self._work, order, folder
            )
            return result

        try:
            async with waited_for(request) as left:
                result, warnings = await self.desk.turn(work, left)
        except Stopped:
            raise self.error(499, "the client has gone") from None
        except (ValueError, OSError) as error:
            raise self.error(400, _without_folder(str(error), folder)) from error
        return self._answer(result, warnings)

    def _work(self, order: _Order, folder: Path) -> tuple[Path, list[str]]:
        start = time.perf_counter()
        for path in (order.photo, *([] if is_mask_rule(order.mask) else [Path(order.mask)])):
            check_pixels(path, self.options.max_megapixels)
        report = inpaint_path(
            _Chosen(self.inpainter, order.method, order.variant),
            order.photo,
            order.mask,
            folder / "result",
            mask_options=order.options,
            quality=order.quality,
        )
        for _, reason in report.failed:
            raise ValueError(reason)
        self.metrics.filled(time.perf_counter() - start)
        return Path(report.done[0]), [line for _, line in report.warnings]

    def _answer(self, result: Path, warnings: list[str]) -> Any:
        with Image.open(result) as image:
            kind = _TYPES.get(image.format or "", Image.MIME.get(image.format or ""))
        lines = "; ".join(warnings).encode("ascii", "backslashreplace").decode("ascii")
        return self.http.FileResponse(
            result,
            media_type=kind or "application/octet-stream",
            filename=f"filled{result.suffix}",
            headers={"X-Warnings": lines} if lines else {},
        )


@dataclass(frozen=True)
class _Chosen:
    """An inpainter with the choices of one request; others may ask for their own meanwhile."""

    inpainter: Inpainter
    method: str | None
    variant: int | None

    def __call__(self, image: Any, hole: Any) -> Image.Image:
        return self.inpainter(image, hole, method=self.method, variant=self.variant)

    def fill_photo(self, photo: Photo, hole: Any, *, opaque: bool, cover: Any = None) -> Photo:
        return self.inpainter.fill_photo(
            photo, hole, opaque=opaque, cover=cover, method=self.method, variant=self.variant
        )


def _read_order(form: Any, folder: Path) -> _Order:
    fields = {key: value for key, value in form.multi_items() if isinstance(value, str)}
    files = {key: value for key, value in form.multi_items() if not isinstance(value, str)}
    unknown = sorted({*fields, *files} - {*_FIELDS, "photo", "mask"})
    if unknown:
        known = ", ".join(("photo", "mask", *_FIELDS))
        raise ValueError(f"the form has {unknown[0][:40]!r}; known are {known}")
    if "photo" not in files:
        raise ValueError("the form has no file 'photo'; send one")
    rule = fields.get("rule", "")
    if ("mask" in files) == bool(rule):
        raise ValueError("send either a file 'mask' or a field 'rule', such as auto:scratches")
    if rule and not is_mask_rule(rule):
        known = "alpha, auto:scratches, auto:text or color:..."
        raise ValueError(f"rule {rule[:40]!r} is not known; use {known}")
    method = fields.get("method") or None
    if method is not None and method not in METHODS:
        raise ValueError(f"method {method[:40]!r} is not known; use {', '.join(METHODS)}")
    return _Order(
        _keep(files["photo"], folder, "photo"),
        rule or str(_keep(files["mask"], folder, "mask")),
        method,
        _number(fields, "variant"),
        MaskOptions(
            _choice(fields, "invert_mask"),
            _number(fields, "dilate") or 0,
            _choice(fields, "fit_mask"),
            _choice(fields, "hard_mask"),
        ),
        _number(fields, "quality"),
    )


def _keep(upload: Any, folder: Path, name: str) -> Path:
    """Put an upload into the folder; of its name only a known ending is kept."""
    suffix = PurePosixPath(upload.filename or "").suffix.lower()
    path = folder / f"{name}{suffix if suffix in IMAGE_SUFFIXES else '.png'}"
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file)
    return path


def _number(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError(f"{name} is {text[:40]!r}; give a whole number, 0 or more")
    return int(text) if text else None


def _choice(fields: Mapping[str, str], name: str) -> bool:
    text = fields.get(name, "").lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValueError(f"{name} is {text[:40]!r}; give true or false")
    return text in _TRUE


def _without_folder(text: str, folder: Path) -> str:
    """A message without where this server keeps files."""
    return text.replace(f"{folder / 'result'}/", "").replace(f"{folder}/", "")
