"""The command `univg`. Arguments are parsed first; what a command needs is imported when it runs.

Exit codes: 0 done, 1 an unexpected error, 2 what the caller can put right (one line on stderr), 3 a budget that is
used up (construct), 130 Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import univg
from univg.cli.construct import construct
from univg.errors import UnivgError

DEBUG_VARIABLE = "UNIVG_DEBUG"

app = typer.Typer(
    name="univg",
    help="Ground language in images: several images and a question in, a chain of thought and a box out.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


# Typer does not export the class of its usage errors; BadParameter, which it does, is one of them.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"univg {univg.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("version")
def print_version() -> None:
    """Print the version."""
    typer.echo(f"univg {univg.__version__}")


app.command(epilog="Example: univg construct --teacher world --out thoughts")(construct)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; the only place where every exception ends."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name or a thought may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    # Pillow logs what it also raises; without a handler Python would print it beside our one line.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    try:
        code = app(args=arguments, prog_name="univg", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UnivgError as error:
        return _fail(error.exit_code, *str(error).splitlines())
    except _UsageError as error:
        return _fail(2, _usage(error))
    except typer.Abort as error:  # what some versions of Typer make of Ctrl-C, and all of them of an EOFError
        return _unexpected(error.__cause__) if isinstance(error.__cause__, EOFError) else 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, `univg … | head`: no news to anybody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001  (the process's edge)
        return _unexpected(error)


def _unexpected(error: BaseException) -> int:
    text = " ".join(str(error).split())[:300] or "no further words"
    return _fail(1, f"unexpected {type(error).__name__}: {text}: set {DEBUG_VARIABLE}=1 for the traceback")


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split()).rstrip(".")
    message = message.replace("Value error, ", "")  # pydantic's way of saying that a choice is none
    return f"{message}: see {context.command_path if context else 'univg'} --help"


def _fail(code: int, *lines: str) -> int:
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        traceback.print_exc()
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
