"""The command `kling-async`, also `python -m kling_async`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; without the extra it needs, say how to install it."""
    try:
        from kling_async.cli import cli
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "kling_async":
            raise
        sys.stderr.write(
            f"error: the command line: expected the extra 'cli', found no module {error.name!r}; "
            'install it: pip install "kling-async[cli]"\n'
        )
        raise SystemExit(3) from None
    cli(prog_name="kling-async")


if __name__ == "__main__":
    main()
