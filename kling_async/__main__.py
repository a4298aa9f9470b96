"""The command `kling-async`, also `python -m kling_async`."""

from __future__ import annotations

import os
import sys

__all__ = ["COMPLETES", "main"]

# Set by the shell when it asks what may come next (see `kling-async completion`).
COMPLETES = "_KLING_ASYNC_COMPLETE"


def main() -> None:
    """Run the command line; without the extra it needs, say how to install it."""
    if len(sys.argv) == 2 and COMPLETES not in os.environ and _answered(sys.argv[1]):
        return
    try:
        from kling_async.cli.root import cli
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "kling_async":
            raise
        sys.stderr.write(
            f"error: the command line: expected the extra 'cli', found no module {error.name!r}; "
            'install it: pip install "kling-async[cli]"\n'
        )
        raise SystemExit(3) from None
    cli(prog_name="kling-async", complete_var=COMPLETES)


def _answered(word: str) -> bool:
    """Answer *word* if it asks for what is known without loading anything, and tell whether it did."""
    if word in {"-h", "--help"}:
        from kling_async.cli import help_text

        answer = help_text()
    elif word == "--version":
        from kling_async._version import __version__

        answer = f"kling-async {__version__}\n"
    else:
        return False
    try:
        sys.stdout.write(answer)
        sys.stdout.flush()
    except OSError:
        return False  # click knows what to do when nobody listens
    return True


if __name__ == "__main__":
    main()
