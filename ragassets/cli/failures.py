"""How a command ends: one clear line on standard error and one of four exit codes."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import typer
from typer.core import TyperGroup

from ragassets.errors import ConfigurationError, RagAssetsError

DONE, NEEDS_ATTENTION, WRONG_USE, OUT_OF_REACH = 0, 1, 2, 3
INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""

DEBUG_VARIABLE = "RAGASSETS_DEBUG"
"""Set to 1 it shows the stack trace of an unexpected error."""


@runtime_checkable
class _UsageProblem(Protocol):
    """What the parser raises: Typer carries a copy of Click, so the classes have no one name."""

    exit_code: int

    def format_message(self) -> str: ...


class CommandGroup(TyperGroup):
    """A group of commands; at the top of the tree every error of every command passes here."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The options of the group, flags without a value to give."""
        return _with_plain_flags(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, its flags without a value to give."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _with_plain_flags(command.get_params(ctx))
        return command

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002 - either way the process ends here
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command, and end the process with its exit code."""
        _make_streams_robust()
        with warnings.catch_warnings():
            if not _is_debugging():
                # Libraries warn their developers; people who run a command cannot act on it.
                warnings.simplefilter("ignore")
            code = _exit_code_of(
                lambda: super(CommandGroup, self).main(
                    args,
                    prog_name or "ragassets",
                    complete_var,
                    standalone_mode=False,
                    windows_expand_args=windows_expand_args,
                    **extra,
                )
            )
        sys.exit(code)


def _with_plain_flags(parameters: list[Any]) -> list[Any]:
    """Show `--json`, not `--json <bool>`, in a help text: a flag takes no value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


def _is_debugging() -> bool:
    return os.environ.get(DEBUG_VARIABLE) == "1"


def _exit_code_of(command: Callable[[], object]) -> int:
    """Run the command; a reader that goes away (`| head`) has what it wanted."""
    try:
        code = _run(command)
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_broken_pipe()
        return DONE
    except SystemExit as ending:
        # Typer's own answer to the same.
        if isinstance(ending.__context__, BrokenPipeError):
            _leave_broken_pipe()
            return DONE
        raise
    return code


def _run(command: Callable[[], object]) -> int:
    """Run the command; what it raises becomes a line and an exit code."""
    try:
        result = command()
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, typer.Abort):
        print_error("interrupted; what was finished is kept, run it again to go on")
        return INTERRUPTED
    except RagAssetsError as error:
        print_error(str(error))
        return exit_code(error)
    except Exception as error:  # a stack trace would bury the one line that helps
        if isinstance(error, _UsageProblem):
            return _report_usage(error)
        if _is_debugging():
            raise
        print_error(
            f"unexpected {type(error).__name__}: this is a bug; set {DEBUG_VARIABLE}=1 to see where"
        )
        return NEEDS_ATTENTION
    # Typer returns the code of an `Exit` instead of raising it.
    return result if isinstance(result, int) else DONE


def exit_code(error: RagAssetsError) -> int:
    """The exit code that an error leads to."""
    if isinstance(error, ConfigurationError):
        return WRONG_USE
    return OUT_OF_REACH if error.is_transient else NEEDS_ATTENTION


def print_error(message: str) -> None:
    """One line on standard error."""
    line = " ".join(message.split())
    with contextlib.suppress(BrokenPipeError):
        typer.echo(f"ragassets: {line}", err=True)


def _report_usage(error: _UsageProblem) -> int:
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message, err=True)
        return WRONG_USE
    path = cast("str", context.command_path) if context is not None else "ragassets"
    # Pydantic's word for what a validator of Typer's refused.
    message = message.replace(": Value error, ", ": ", 1)
    print_error(f"{message.rstrip('.')}. See `{path} --help`")
    return WRONG_USE


def _make_streams_robust() -> None:
    """Let no character that a terminal cannot show end a command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _leave_broken_pipe() -> None:
    """Let the interpreter's last flush write to nowhere. Source: Python's docs on SIGPIPE."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def wrong_use(*, option: str, problem: str) -> typer.BadParameter:
    """The error for an option or argument that cannot be meant."""
    return typer.BadParameter(problem, param_hint=option)
