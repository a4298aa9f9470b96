"""Write docs/images/live-view.svg and the text in docs/live-view.md: the live view of the demo, in the middle of a run."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import anyio

from kling_async.batch.manifest import read_manifest
from kling_async.cli.board import Board, Snapshot
from kling_async.cli.demo import BUDGET, POLL_INTERVAL, SLOTS, emulated_service
from kling_async.cli.driver import Orders, drive, monotonic
from kling_async.cli.live import as_svg, as_text
from kling_async.cli.sample import make_folder
from kling_async.cli.views import NoView
from kling_async.cli.voice import Voice
from kling_async.client.kling import Kling

PICTURE = Path(__file__).parent / "images" / "live-view.svg"
PAGE = Path(__file__).parent / "live-view.md"
_TEXT = re.compile(r"(?<=^```text\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
# rich names fonts of a foreign host.
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class Camera(NoView):
    """A view that keeps one snapshot: the last one in which most is going on."""

    every = 0.1
    best: Snapshot | None = None

    def show(self, shot: Snapshot) -> None:
        """Keep *shot* if it shows more than the one before."""
        if self.best is None or _worth(shot) >= _worth(self.best):
            self.best = shot


def _worth(shot: Snapshot) -> tuple[bool, bool, int]:
    recovering = any(line.status == "recovered" for line in shot.jobs)
    return bool(shot.failures), recovering, min(len(shot.jobs), 8)


async def photograph(folder: Path) -> Snapshot:
    """Run the demo in *folder* and return its best moment."""
    make_folder(folder)
    rows = list(read_manifest(folder / "jobs.jsonl"))
    board, camera = Board(monotonic, len(rows), len(rows)), Camera()
    async with (
        emulated_service() as emulator,
        Kling(
            base_url=emulator.url,
            api_key=emulator.api_key,
            slots=SLOTS,
            min_poll_interval=POLL_INTERVAL,
            trust_env=False,
            on_event=board.see,
        ) as kling,
    ):
        orders = Orders(rows=iter(rows), out=folder, resume="", budget=BUDGET)
        await drive(kling, orders, board, camera, Voice(quiet=True))
    assert camera.best is not None
    return camera.best


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        shot = anyio.run(photograph, Path(made))
    PICTURE.write_text(_FONTS.sub("", as_svg(shot, title="kling-async demo")), encoding="utf-8")
    shown = as_text(shot)
    PAGE.write_text(_TEXT.sub(lambda _: shown, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
