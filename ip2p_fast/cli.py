"""The command `ip2p-fast`: `edit` and `info` here, the other commands from the packages that bring them.

Exit status: 0 done, 1 a failure of ours, 2 bad input (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
from .edit_command import edit
from .errors import BadInput, Cancelled, MissingExtra
from .info import info

# The extra of pyproject.toml that brings what a command needs.
_EXTRAS = {
    "app": "app",
    "bench": "bench",
    "dataset": "train",
    "distill": "train",
    "evaluate": "train",
    "export": "export",
    "serve": "serve",
    "train": "train",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command line and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv  # taken out here, so that it may stand behind any command
    argv = [argument for argument in argv if argument != "--debug"]
    try:
        with _warnings_in_one_line():
            status = typer.main.get_command(app)(argv, prog_name="ip2p-fast", standalone_mode=False)
        if status == 130:
            raise KeyboardInterrupt  # how typer hands it on
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort, Cancelled):
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        message, status = _described(error, argv[0] if argv else "")
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        return status


class _Commands(TyperGroup):
    """The commands of this package and those of the entry points "ip2p_fast.commands", imported only when asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted({*super().list_commands(ctx), *_others()})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        return _other_command(cmd_name) if command is None and cmd_name in _others() else command


app = typer.Typer(cls=_Commands, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command("edit")(edit)
app.command("info")(info)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand behind any command.")] = False,
) -> None:
    """InstructPix2Pix: edit pictures by instruction."""
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@cache
def _others() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="ip2p_fast.commands")}


def _other_command(name: str) -> Any:
    """A command of another package; where that cannot be imported, one that says why, in --help and when it is run."""
    try:
        command = typer.main.get_command(_others()[name].load())
    except MissingExtra as error:
        command = _refusal(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ip2p_fast"):
            command = _refusal(f"this installation of ip2p-fast has no {name} (there is no module {error.name})")
        else:
            command = _refusal(_needs(name, error))
    except Exception as error:  # installed but broken: the cause is what helps
        command = _refusal(f"ip2p-fast {name} cannot start: {type(error).__name__}: {error}")
    command.name = name
    return command


def _needs(command: str, error: ModuleNotFoundError) -> str:
    return f'ip2p-fast {command} needs {error.name}: pip install "ip2p-fast[{_EXTRAS.get(command, command)}]"'


def _refusal(reason: str) -> Any:
    refusing = typer.Typer(add_completion=False, rich_markup_mode=None)

    @refusing.command(help=reason, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    def refuse() -> None:
        raise BadInput(reason)

    return typer.main.get_command(refusing)


def _described(error: Exception, command: str) -> tuple[str, int]:
    """What to say of an error of a command, and the exit status."""
    if isinstance(error, (BadInput, MissingExtra)):
        return str(error), 2
    if isinstance(error, ModuleNotFoundError) and command in _EXTRAS:
        return _needs(command, error), 2
    if hasattr(error, "format_message"):  # a usage error, of click or of typer's own copy of it
        path = getattr(getattr(error, "ctx", None), "command_path", "ip2p-fast")
        return f"{error.format_message()} (see {path} --help)", 2
    return f"{type(error).__name__}: {error} (--debug shows where)", 1


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


if __name__ == "__main__":
    sys.exit(main())
