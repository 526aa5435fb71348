"""The command line: verbs. A leaf: nothing imports this.

Only click is imported here; a verb imports what it needs, so that `tunelab --help` is instant.
Exit codes: 0 done, 1 a trial failed, 2 the input cannot be used, 130 interrupted (143 by SIGTERM,
129 by SIGHUP).
"""

from __future__ import annotations

import atexit
import errno
import gc
import json
import sys
from contextlib import suppress

import click

from tunelab.cli import signals
from tunelab.cli.adapters import adapters
from tunelab.cli.answers import COMMANDS
from tunelab.cli.compare import compare_command, extend, train
from tunelab.cli.ensemble import ensemble_command
from tunelab.cli.evaluate import evaluate_command
from tunelab.cli.export import export_command
from tunelab.cli.inspect import inspect_group
from tunelab.cli.lines import complain
from tunelab.cli.predict import predict
from tunelab.cli.report import report
from tunelab.cli.serve import load_test_command, serve_command, ui_command
from tunelab.cli.streams import ReaderGoneError, close_output, echo, guard_streams
from tunelab.cli.studies import behaviour_, calibration_, runs, slices_
from tunelab.cli.suggest import suggest_command
from tunelab.core.errors import InputError, TunelabError
from tunelab.core.version import __version__

# How many more objects there may be than when garbage was last looked for.
_GARBAGE = 1_000_000


class _Verbs(click.Group):
    """Verbs in the order in which a user meets them, not by alphabet."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="tunelab")
def app() -> None:
    """Which way of fine-tuning is worth it for your labelled texts, at what cost, and how sure?

    \b
    tunelab compare reviews.csv              compare methods on any labelled file
    tunelab compare --data demo              ... on the bundled reviews
    tunelab train reviews.csv --method lora --output-dir out
    tunelab predict out "a quiet, wonderful film"
    """


@click.command(short_help="Print the JSON schema of a study file.")
def schema_command() -> None:
    """Print the JSON schema of a study file, for editors."""
    from tunelab.study import file

    echo(json.dumps(file.study_schema(), indent=2))


# In the order of --help.
for _verb in (
    compare_command,
    extend,
    train,
    predict,
    export_command,
    inspect_group,
    runs,
    slices_,
    calibration_,
    behaviour_,
    ensemble_command,
    suggest_command,
    adapters,
    report,
    *COMMANDS,
    evaluate_command,
    serve_command,
    ui_command,
    load_test_command,
    schema_command,
):
    app.add_command(_verb)


_CHECK = "Check that the file is there and may be read, or the folder written."
_AGAIN = "and run the same command again: what is done is kept."
_SYSTEM: dict[int | None, str] = {
    errno.ENOSPC: f"Make room on the disk {_AGAIN}",
    errno.EDQUOT: f"Your share of the disk is used up. Make room {_AGAIN}",
    errno.EFBIG: "The system allows no larger file; write to another disk.",
    errno.EIO: f"The disk, or the line to it, is at fault. Mend it {_AGAIN}",
    errno.EROFS: "The disk may only be read; write to another.",
    errno.EMFILE: "Too many files are open; raise the limit (ulimit -n).",
    errno.ENOMEM: "The memory is used up. Take fewer rows, or a smaller model.",
}


def main() -> None:
    """Run the command line in a process of its own."""
    # Libraries make a million objects while they are imported, none of them garbage; to look for it
    # all the time, and once more at the end, took a third of the time of labelling one text.
    gc.set_threshold(_GARBAGE)
    atexit.register(gc.freeze)
    signals.end_as_by_interrupt()
    guard_streams()
    run_command_line()


def run_command_line() -> None:
    """Run the command line; turn our errors into one line and an exit code."""
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        code = _code_of_verb()
        close_output()
    except (BrokenPipeError, ReaderGoneError):
        with suppress(OSError, ReaderGoneError):
            close_output()
        return 0
    except MemoryError:
        _say_fault("the memory is used up. Take fewer rows, shorter texts, or a smaller model.")
        return 1
    except OSError as e:
        # The system refused: a full disk, a folder that may not be written. Else it is our fault.
        if e.errno is None:
            raise
        with suppress(OSError):
            close_output()
        where = "" if e.filename is None else f"{e.filename}: "
        _say_fault(f"{where}{e.strerror}. {_SYSTEM.get(e.errno, _CHECK)}")
        return 1
    return code


def _code_of_verb() -> int:
    """Run what was asked for, and give the exit code of how it ended."""
    try:
        app(prog_name="tunelab", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as e:
        echo(e.ctx.get_help() if e.ctx else "")
    except click.ClickException as e:
        _say_fault(e.format_message())
        return 2
    except click.exceptions.Exit as e:
        return e.exit_code
    except (click.Abort, KeyboardInterrupt) as e:
        with suppress(OSError, ReaderGoneError):  # the terminal may be gone
            echo("Stopped.", err=True)
        return signals.exit_code(e)
    except InputError as e:
        _say_fault(str(e))
        return 2
    except TunelabError as e:
        _say_fault(str(e))
        return 1
    return 0


def _say_fault(message: str) -> None:
    """Say what is wrong on standard error, each line by itself; where that is closed, nowhere."""
    with suppress(OSError, ReaderGoneError):
        complain(message)


if __name__ == "__main__":
    main()
