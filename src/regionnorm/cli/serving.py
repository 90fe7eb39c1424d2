"""``serve``: fill the photos that programs send."""

from __future__ import annotations

from typing import Annotated

import typer

from regionnorm.cli.console import Device, Method, Precision, Weights, quick_imports

__all__ = ["serve"]


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 to be reached from the network.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 8000,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Photos filled at once.")] = 1,
    max_queue: Annotated[
        int, typer.Option(metavar="N", min=0, help="Photos that may wait; more are sent away.")
    ] = 16,
    max_open: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests open at once, slow ones included.")
    ] = 64,
    max_megapixels: Annotated[
        float, typer.Option(metavar="N", min=0.001, help="Refuse larger photos.")
    ] = 40,
    patience: Annotated[
        float,
        typer.Option(metavar="S", min=0.1, help="Seconds that a client may take to send a photo."),
    ] = 60,
    method: Method = "auto",
    model: Weights = "default",
    device: Device = None,
    precision: Precision = None,
) -> None:
    """Fill the photos that programs send: a service without a page.

    POST /fill takes a form with the files photo and mask and answers with the filled photo;
    /healthz, /readyz and /metrics (Prometheus) are for what watches it. SIGTERM and Ctrl-C stop it
    after what it has taken on.

    \b
    Example:
      regionnorm serve --host 0.0.0.0 --jobs 2
      curl -F photo=@photo.jpg -F mask=@mask.png http://127.0.0.1:8000/fill -o filled.jpg
    """
    with quick_imports():
        from regionnorm import serving
        from regionnorm.filling.inpainter import Inpainter

    options = serving.ServiceOptions(jobs, max_queue, max_open, max_megapixels, patience)
    inpainter = Inpainter(model, device=device, precision=precision, method=method)
    serving.serve(
        inpainter,
        options,
        host=host,
        port=port,
        on_start=lambda url: typer.echo(f"{url}/fill takes photos (Ctrl-C stops it)"),
    )
