"""`timeline`: a run as a picture."""

from __future__ import annotations

from pathlib import Path

import click
from attrs import asdict

from kling_async.cli.earlier import journal_of
from kling_async.cli.voice import Voice, speaks
from kling_async.errors import ConfigError
from kling_async.report.bars import figures, read_bars
from kling_async.report.timeline import draw

__all__ = ["timeline_command"]


@click.command(
    name="timeline",
    epilog="""\b
Examples:
  kling-async timeline out
  kling-async timeline out --slots 9 --to run.svg
  kling-async timeline out --json | jq .utilisation
""",
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", type=click.Path(path_type=Path), help="Where to write; by default OUT/timeline.svg.")
@click.option(
    "--slots", type=click.IntRange(min=1), help="Slots there were; by default as many as were held at once."
)
@speaks
def timeline_command(*, out: Path, to: Path | None, slots: int | None, voice: Voice) -> None:
    """Draw which task held which slot when in the run in OUT, as SVG; also while it runs."""
    journal = journal_of(out)
    if not journal.exists():
        raise ConfigError(f"expected a journal at {journal}, found none; name the folder of a run")
    bars = read_bars(journal)
    target = to or out / "timeline.svg"
    target.write_text(draw(bars, slots=slots, title=out.resolve().name), encoding="utf-8")
    if voice.json:
        voice.emit({"file": str(target), **asdict(figures(bars, slots=slots))})
        return
    voice.data(str(target))
