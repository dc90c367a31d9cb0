"""Where ``medlora`` starts, and how every way of ending is said: an exit code and one clear message."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from typing import Any

from medlora.errors import MedloraError

# Exit codes: 0 done; 3 done, and the answer is no; 2 cannot be carried out; 1 unexpected; 130 Ctrl-C.
REFUSED, UNEXPECTED, INTERRUPTED = 2, 1, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: words after ``medlora``; none for those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = run(words)
    gc.freeze()  # or the interpreter's last collections look through all that was imported
    sys.exit(code)


def run(words: Sequence[str]) -> int:
    """Run one verb; the exit code."""
    import typer

    from medlora.cli.app import app

    # Newer versions of typer carry a click of their own, so its exceptions are found through typer.
    usage_error: Any
    click_error: Any
    usage_error, click_error = typer.BadParameter.__mro__[1:3]

    debug, as_json = "--debug" in words, "--json" in words
    try:
        code = app(list(words), standalone_mode=False, prog_name="medlora")
    except MedloraError as error:
        if debug:
            raise
        return _fail(error.what, error.fix, REFUSED, as_json)
    except typer.Abort:
        return _fail("stopped by Ctrl-C", None, INTERRUPTED, as_json)
    except KeyboardInterrupt:
        return _fail("stopped by Ctrl-C; what was half-written is marked or removed", None, INTERRUPTED, as_json)
    except usage_error as error:
        command = error.ctx.command_path if error.ctx is not None else "medlora"
        return _fail(error.format_message(), f"see {command} --help", REFUSED, as_json)
    except click_error as error:
        return _fail(error.format_message(), None, REFUSED, as_json)
    except BrokenPipeError:  # the reader of the output has gone (medlora … | head)
        sys.stderr.close()
        return 0
    except Exception as error:
        if debug:
            raise
        return _unexpected(error, as_json)
    return code if isinstance(code, int) else 0


def _fail(what: str, fix: str | None, code: int, as_json: bool) -> int:
    print(f"Error: {what}", file=sys.stderr)
    if fix:
        print(f"Fix: {fix}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": what, "fix": fix, "exit_code": code}, ensure_ascii=False))
    return code


def _unexpected(error: Exception, as_json: bool) -> int:
    """Keep the traceback in a file that only its owner can read, and say where it lies."""
    import os
    import tempfile
    import traceback

    handle, path = tempfile.mkstemp(prefix="medlora-error-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    what = f"an unexpected {type(error).__name__}, which is a defect of medlora; its log lies at {path}"
    fix = "look into the log for identifiers before you send it to anyone; --debug prints it instead"
    return _fail(what, fix, UNEXPECTED, as_json)
