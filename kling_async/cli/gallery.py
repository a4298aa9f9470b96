"""`gallery`: a run as a page to look at; and the same page at the end of `run` and `demo`."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path

import click
from attrs import evolve

from kling_async.cli.earlier import Command, is_emulated, journal_of
from kling_async.cli.money import plural
from kling_async.cli.voice import Voice, speaks
from kling_async.errors import ConfigError, MissingExtra
from kling_async.report.gallery import GALLERY, MOST, Sources, Written, write_gallery

__all__ = ["gallery_command", "open_page", "sources_of", "write_at_the_end"]

_log = logging.getLogger("kling_async")

# Seconds that a run that is over may go on making thumbnails.
_A_MOMENT = 3.0


@click.command(
    name="gallery",
    epilog="""\b
Examples:
  kling-async gallery out
  kling-async gallery out --open
  kling-async gallery out --template mine.html --to mine/index.html
""",
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", type=click.Path(path_type=Path), help="Where to write.  [default: OUT/gallery.html]")
@click.option(
    "--template", type=click.Path(path_type=Path), help="A jinja2 template of your own; see docs/gallery.md."
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    help="The run's rows, if they have moved or were run from Python.",
)
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=MOST,
    show_default=True,
    help="Most results to show, the last ones.",
)
@click.option("--open", "opens", is_flag=True, help="Open it in a browser.")
@speaks
def gallery_command(
    *,
    out: Path,
    to: Path | None,
    template: Path | None,
    manifest: Path | None,
    most: int,
    opens: bool,
    voice: Voice,
) -> None:
    """
    Write the run in OUT as one HTML page that needs no network; also while it runs.

    Results beside the pictures they were made of, with prompt, time, units and errors; to filter, search and compare.
    """
    sources = sources_of(out)
    if manifest is not None:
        if not manifest.exists():
            raise ConfigError(f"--manifest: expected a file or a folder, found nothing at {manifest}")
        shared = sources.shared if manifest.is_dir() else {}
        sources = evolve(sources, manifest=manifest, shared=shared)
    found = write_gallery(sources, to=to, template=template, most=most, told=_Counter(voice).told)
    for note in found.notes:
        voice.warn(f"note: {note}")
    if voice.json:
        voice.emit({"file": str(found.page), "jobs": found.rows, "pictures": found.pictures})
    else:
        voice.data(str(found.page))
    voice.say(f"{plural(found.rows, 'job')}, {plural(found.pictures, 'picture')}")
    if opens:
        open_page(found.page, voice)


def open_page(page: Path, voice: Voice) -> None:
    """Open *page* in the person's browser; where there is none, say so."""
    if click.launch(page.absolute().as_uri()):
        voice.warn(f"expected a browser to open, found none; open it yourself: {page}")


def sources_of(out: Path) -> Sources:
    """Return where the run in the folder *out* is, as its command remembers."""
    command = Command.of(out)
    if command is None:
        return Sources(home=out, journal=journal_of(out))
    return Sources(
        home=out,
        journal=journal_of(out),
        manifest=Path(command.manifest),
        shared=command.shared,
        emulated=is_emulated(out),
    )


class _Counter:
    """Says on a terminal how many pictures are small by now."""

    def __init__(self, voice: Voice) -> None:
        self._shown = not voice.quiet and voice.progress in {"auto", "live"} and sys.stderr.isatty()

    def told(self, done: int, whole: int) -> None:
        """Take in how far it is."""
        if self._shown and (done % 25 == 0 or done == whole):
            click.echo(f"\rthumbnails {done:,} of {whole:,}", err=True, nl=done == whole)


def write_at_the_end(home: Path, ended: int, voice: Voice) -> Written | None:
    """
    Write the page of the run in *home*, of which *ended* jobs have ended; what goes wrong is told, and fails nothing.

    A run too large for one page has none until somebody asks for it.
    """
    again = f"kling-async gallery {shlex.quote(str(home))}"
    if not ended:
        return None
    if ended > MOST:
        voice.say(f"gallery   {again}  (shows the last {MOST:,} results)")
        return None
    try:
        written = write_gallery(sources_of(home), seconds=_A_MOMENT)
    except MissingExtra as error:
        voice.say(f"no gallery was written: {error}")
    except Exception as error:  # noqa: BLE001  # the pictures are paid for and saved; a page must not make that a failure
        _log.debug("no gallery was written", exc_info=True)
        voice.warn(f"no gallery was written: {error}; results are whole, try: {again}")
    else:
        # As the person wrote the folder, like everything else that is told of it.
        return evolve(written, page=home / GALLERY)
    return None
