"""Ways to show a run: live on a terminal, in plain lines, as JSON lines, or not at all."""

from __future__ import annotations

import json
import os
import sys

from kling_async.cli.board import JobLine, Snapshot
from kling_async.cli.money import dollars, duration
from kling_async.cli.view import View, printable
from kling_async.cli.voice import Voice, tell

__all__ = ["JsonView", "NoView", "PlainView", "View", "choose_view"]

_STRAGGLERS = 3
_LONGEST_PAUSE = 60.0  # seconds
# Jupyter sets the second for its kernels.
_NOT_WATCHED = ("CI", "JPY_PARENT_PID")


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
    """A line now and then, every few seconds at first and every minute later, and one for each failure; for logs, pipes and CI."""

    def __init__(self, voice: Voice, *, emulated: bool, every: float = 5.0) -> None:
        self.every = self._first = every
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
            self._voice.say(f"  failed {failure.key}: {printable(failure.message)}", colour="red")
        if shot.failed - self._failed > fresh:
            self._voice.say(
                f"  failed: {shot.failed - self._failed - fresh} more, see results.jsonl", colour="red"
            )
        self._failed = shot.failed
        if shot.done or shot.running or shot.seconds > 1:
            self._voice.say(plain_line(shot, emulated=self._emulated))
        # A log of ten hours needs no line for every five seconds of them.
        self.every = max(self._first, min(_LONGEST_PAUSE, shot.seconds / 10))

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
        f"slots {shot.slots_held}/{shot.slots}" if shot.slots else "",
        f"{shot.units:,.0f} units ≈ {dollars(shot.units)}{' emulated' if emulated else ''}",
        f"about {duration(round(shot.eta))} left" if shot.eta else "",
        *shot.stopped,
        shot.trouble,
        _stragglers(shot),
    ]
    return "  ".join(part for part in parts if part)


def _stragglers(shot: Snapshot) -> str:
    """Name what the run waits for when nothing else is left to do."""
    under_way = shot.running + shot.saving
    if not under_way or shot.waiting or (shot.total or 0) > shot.done + under_way:
        return ""
    named = [f"{job.key} ({_how(job)})" for job in shot.jobs[:_STRAGGLERS]]
    more = f" and {under_way - len(named):,} more" if under_way > len(named) else ""
    return f"waiting for {', '.join(named)}{more}" if named else ""


def _how(job: JobLine) -> str:
    told = ", ".join(filter(None, (duration(job.age), printable(job.note))))
    return f"saving {told}" if job.status == "saving" else told


class JsonView:
    """JSON lines on stderr: `progress` every second, `note` and `failed` for a job; the voice adds what it says."""

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
        tell(json.dumps(value, ensure_ascii=False))


def choose_view(voice: Voice, *, emulated: bool, every: float = 5.0) -> View:
    """
    Return the view that *voice* asks for; *every* is the pause between plain lines, in seconds.

    `auto` is live on a terminal that can move its cursor, outside CI, and plain lines elsewhere. A notebook gives `!commands`
    a terminal, too, but one that writes each picture below the last.
    """
    able = sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
    kind = voice.progress
    if kind == "auto":
        kind = "live" if able and not any(map(os.environ.get, _NOT_WATCHED)) else "plain"
    if kind == "live" and able:
        from kling_async.cli.live import LiveView

        return LiveView(voice, emulated=emulated)
    if kind == "json":
        return JsonView()
    return NoView() if kind == "none" else PlainView(voice, emulated=emulated, every=every)
