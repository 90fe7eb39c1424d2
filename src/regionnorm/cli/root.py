"""The program: its commands in the order of its help, its exit codes, its errors."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, cast

import typer

from regionnorm import __version__
from regionnorm.cli.console import offer_flags, print_error
from regionnorm.cli.exporting import export
from regionnorm.cli.filling import inpaint, serve_app
from regionnorm.cli.making import convert, masks, models
from regionnorm.cli.measuring import evaluate, visualize
from regionnorm.cli.selecting import select
from regionnorm.cli.serving import serve
from regionnorm.cli.training import study, train

__all__ = ["app", "main"]

app = typer.Typer(
    help="Fill holes in photos with Region Normalization; train and evaluate networks that do.",
    epilog="Exit codes: 0 done, 1 some inputs failed, 2 wrong usage. "
    "REGIONNORM_TRACEBACK=1 shows where an error comes from.",
    # Plain help: rich's panels would reflow the examples.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Help lists them in this order.
_COMMANDS: dict[str, Callable[..., int | None]] = {
    "inpaint": inpaint,
    "train": train,
    "evaluate": evaluate,
    "study": study,
    "visualize": visualize,
    "masks": masks,
    "select": select,
    "app": serve_app,
    "serve": serve,
    "models": models,
    "convert": convert,
    "export": export,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)

# BadParameter, UsageError, ClickException: click's own up to typer 0.28, since then typer's copy.
_ParseError: type[Exception] = typer.BadParameter.__mro__[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments without the program's name; by default those of the process.

    Returns:
        The exit code: 0 done, 1 some inputs failed, 2 wrong usage, 130 interrupted.
    """
    if argv is not None:
        return _run(list(argv))
    try:
        return _run(None)
    finally:
        gc.freeze()  # the process ends: nobody needs its garbage collected


def _run(arguments: list[str] | None) -> int:
    _print_whatever_comes()
    try:
        status = app(args=arguments, prog_name="regionnorm", standalone_mode=False)
    except _ParseError as error:
        return _fail(_usage_message(error))
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("REGIONNORM_TRACEBACK"):
            raise
        return _fail(_message(error))
    except RuntimeError as error:  # torch has no other type for it on every device
        if not any(words in str(error) for words in ("out of memory", "allocate memory")):
            raise
        return _fail("there is not enough memory; make photos, size or batch smaller")
    return status if isinstance(status, int) else 0


def _print_whatever_comes() -> None:
    """Names that the output cannot show are no reason to fail what has been done."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # not where it was replaced, or is closed
        sys.stdout.reconfigure(errors="backslashreplace")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"regionnorm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return
    command = cast(Any, context.command).get_command(context, context.invoked_subcommand)
    offer_flags(flag for option in command.params for flag in option.opts)


def _fail(message: str) -> int:
    print_error(message)
    return 2


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _usage_message(error: Any) -> str:
    text = " ".join(str(error.format_message()).split())
    command = error.ctx.command_path if getattr(error, "ctx", None) else "regionnorm"
    return f"{text} (see: {command} --help)"
