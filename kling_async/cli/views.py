"""Ways to show a run: live on a terminal, in plain lines, as JSON lines, or not at all."""

from __future__ import annotations

import json
import os
import sys

import click

from kling_async.cli.board import Snapshot
from kling_async.cli.money import dollars, duration
from kling_async.cli.view import View
from kling_async.cli.voice import Voice

__all__ = ["JsonView", "NoView", "PlainView", "View", "choose_view"]

_STRAGGLERS = 3


class NoView:
    """Shows nothing."""

    every = 5.0

    def start(self) -> None:
        """Do nothing."""

    def show(self, shot: Snapshot) -> None:
        """Do nothing."""

    def note(self, key: str, text: str) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class PlainView:
    """A line every few seconds and one for each failure; for logs, pipes and CI."""

    def __init__(self, voice: Voice, *, emulated: bool, every: float = 5.0) -> None:
        self.every = every
        self._voice = voice
        self._emulated = emulated
        self._failed = 0
        self._noted: set[str] = set()

    def start(self) -> None:
        """Nothing to begin."""

    def show(self, shot: Snapshot) -> None:
        """Write one line, and one for each failure since the last."""
        fresh = min(shot.failed - self._failed, len(shot.failures))
        for failure in shot.failures[len(shot.failures) - fresh :] if fresh else ():
            self._voice.say(f"  failed {failure.key}: {failure.message}", colour="red")
        if shot.failed - self._failed > fresh:
            self._voice.say(
                f"  failed: {shot.failed - self._failed - fresh} more, see results.jsonl", colour="red"
            )
        self._failed = shot.failed
        if shot.done or shot.running or shot.seconds > 1:
            self._voice.say(plain_line(shot, emulated=self._emulated))

    def note(self, key: str, text: str) -> None:
        """Write what happened, the same thing of the same job once."""
        kind = f"{key} {text[:12]}"
        if kind not in self._noted and len(self._noted) < 1000:
            self._noted.add(kind)
            self._voice.say(f"  {key or 'account'}: {text}", colour="yellow")

    def stop(self) -> None:
        """Nothing to end."""


def plain_line(shot: Snapshot, *, emulated: bool) -> str:
    """Return *shot* in one line."""
    total = f"/{shot.total:,}" if shot.total is not None else ""
    parts = [
        f"{duration(shot.seconds):>7}",
        f"{shot.done:,}{total} done",
        f"{shot.failed:,} failed" if shot.failed else "",
        f"{shot.running:,} running" if shot.running else "",
        f"slots {shot.slots_held}/{shot.slots or '?'}",
        f"{shot.units:,.0f} units ≈ {dollars(shot.units)}{' emulated' if emulated else ''}",
        f"about {duration(round(shot.eta))} left" if shot.eta else "",
        _stragglers(shot),
    ]
    return "  ".join(part for part in parts if part)


def _stragglers(shot: Snapshot) -> str:
    """Name what the run waits for when nothing else is left to do."""
    if (
        shot.waiting
        or not shot.running
        or shot.total is None
        or shot.done + shot.running + shot.saving < shot.total
    ):
        return ""
    named = [f"{job.key} ({duration(job.age)})" for job in shot.jobs[:_STRAGGLERS]]
    return f"waiting for {', '.join(named)}" if named else ""


class JsonView:
    """JSON lines on stderr: `progress` every second, `note` and `failed` for a job."""

    every = 1.0

    def __init__(self) -> None:
        self._failed = 0

    def start(self) -> None:
        """Nothing to begin."""

    def show(self, shot: Snapshot) -> None:
        """Write the snapshot as one line."""
        fresh = min(shot.failed - self._failed, len(shot.failures))
        for failure in shot.failures[len(shot.failures) - fresh :] if fresh else ():
            self._write({"event": "failed", "key": failure.key, "message": failure.message})
        self._failed = shot.failed
        self._write({"event": "progress", **shot.as_json()})

    def note(self, key: str, text: str) -> None:
        """Write what happened to a job."""
        self._write({"event": "note", "key": key, "message": text})

    def stop(self) -> None:
        """Nothing to end."""

    def _write(self, value: dict[str, object]) -> None:
        click.echo(json.dumps(value, ensure_ascii=False), err=True)


def choose_view(voice: Voice, *, emulated: bool, every: float = 5.0) -> View:
    """
    Return the view that *voice* asks for; *every* is the pause between plain lines, in seconds.

    `auto` is live on a terminal that can move its cursor, outside CI, and plain lines elsewhere.
    """
    able = sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
    kind = voice.progress
    if kind == "auto":
        kind = "live" if able and not os.environ.get("CI") else "plain"
    if kind == "live" and able:
        from kling_async.cli.live import LiveView

        return LiveView(voice, emulated=emulated)
    if kind == "json":
        return JsonView()
    return NoView() if kind == "none" else PlainView(voice, emulated=emulated, every=every)
