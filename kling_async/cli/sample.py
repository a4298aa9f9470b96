"""The demo's folder: reference pictures, a manifest and a script, made for whoever runs it to keep and change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from kling_async.errors import ConfigError, MissingExtra

__all__ = ["MARK", "PLANNED_REFUSAL", "make_folder", "sample_jobs"]

ABOUT = "about.txt"
MARK = "Made by kling-async demo"
REFERENCES = "references"
# The emulator refuses what carries this mark, as the content filter of the service would.
PLANNED_REFUSAL = "[[refuse]]"
_REFUSED = 15

_ABOUT_TEXT = f"""{MARK}. Everything here is yours: change it, run it again, delete it.

references/    ten pictures drawn on this machine; they belong to nobody else
jobs.jsonl     24 jobs of two images each; the one with {PLANNED_REFUSAL} is there to be refused
run.py         the same in Python
images/        what came out
gallery.html   all of it to look at, in a browser
results.jsonl  a line for each job that ended
journal.db     the state of every job; with it, the same command continues
"""

_SUBJECTS = {
    "robot": "The little robot",
    "jug": "The blue jug with the daisy",
    "dress": "The red summer dress",
    "bird": "The orange bird",
}
_SCENES = {
    "meadow": "on the path through a flowering meadow",
    "harbour": "at the harbour after sunset",
    "study": "on the round rug of a quiet study",
}
_STYLES = {
    "watercolour": "as a pale watercolour",
    "woodcut": "as a three-coloured woodcut",
    "poster": "as a neon travel poster",
}
_COMPANIONS = {"robot": "bird", "jug": "robot", "dress": "jug", "bird": "dress"}
_RATIOS = ("16:9", "1:1", "4:3", "3:2", "9:16", "21:9")

SCRIPT = '''\
"""The jobs of this folder in Python, on the emulator. For the real service: `async with Kling() as kling`, and a key."""

import asyncio
from pathlib import Path

from kling_async import Failed, Kling, Succeeded, read_manifest
from kling_async.emulator import Emulator

HERE = Path(__file__).parent


async def main() -> None:
    async with (
        Emulator(slots=9, speed=60) as local,
        Kling(base_url=local.url, api_key=local.api_key) as kling,
        kling.batch(read_manifest(HERE / "jobs.jsonl"), out=HERE / "from-python") as batch,
    ):
        async for outcome in batch:
            match outcome:
                case Succeeded(key=key, files=files, units=units):
                    print(key, *(file.name for file in files), units)
                case Failed(key=key, error=error):
                    print(key, error)


if __name__ == "__main__":
    asyncio.run(main())
'''


def sample_jobs() -> Iterator[dict[str, object]]:
    """Yield the 24 rows of the manifest: each subject in each scene, in two of the three styles."""
    styles = list(_STYLES)
    pairs = [(place, scene, turn) for place, scene in enumerate(_SCENES) for turn in (0, 1)]
    for number, ((place, scene, turn), subject) in enumerate(product(pairs, _SUBJECTS), start=1):
        style = styles[(place + turn + number) % len(styles)]
        alone = number % 3 != 0
        names = [subject] if alone else [subject, _COMPANIONS[subject]]
        company = "" if alone else f" with {_SUBJECTS[names[1]].lower()}"
        mark = f" {PLANNED_REFUSAL}" if number == _REFUSED else ""
        yield {
            "key": f"demo-{number:04d}",
            "subject_images": [f"{REFERENCES}/{name}.png" for name in names],
            "scene_image": f"{REFERENCES}/{scene}.png",
            "style_image": f"{REFERENCES}/{style}.png",
            "prompt": f"{_SUBJECTS[subject]}{company} {_SCENES[scene]}, {_STYLES[style]}.{mark}",
            "n": 2,
            "aspect_ratio": _RATIOS[number % len(_RATIOS)],
        }


def make_folder(root: Path) -> list[Path]:
    """
    Make the demo's folder at *root*, or what is missing of it, and return the files made.

    Files that are there are never written to, so that changes stay. Raises ConfigError for a folder that holds
    something else, and `MissingExtra` without Pillow.
    """
    try:
        _refuse_foreign(root)
        (root / REFERENCES).mkdir(parents=True, exist_ok=True)
        made = [path for path, write in _files(root) if _make(path, write)]
    except OSError as error:
        raise ConfigError(
            f"demo: expected a folder that can be written to, found {root} ({error.strerror or error}); "
            "choose another: kling-async demo FOLDER"
        ) from error
    return made


def _refuse_foreign(root: Path) -> None:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    about = root / ABOUT
    ours = (
        root.is_dir()
        and about.is_file()
        and about.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    )
    if not ours:
        raise ConfigError(
            f"demo: expected a new or empty folder or one of an earlier demo, found {root} with other things in it; "
            "choose another: kling-async demo FOLDER"
        )


def _files(root: Path) -> Iterator[tuple[Path, Callable[[Path], object]]]:
    try:
        from kling_async.cli.drawings import PICTURES
    except ModuleNotFoundError:
        raise MissingExtra(
            'demo: expected Pillow to draw with, found no such module; install it: pip install "kling-async[cli]"',
            "cli",
        ) from None
    # The mark comes first: a folder that was begun and interrupted is known as ours.
    yield root / ABOUT, _writer(_ABOUT_TEXT)
    for name in PICTURES:
        yield root / REFERENCES / name, _painter(name)
    rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in sample_jobs())
    yield root / "jobs.jsonl", _writer("".join(rows))
    yield root / "run.py", _writer(SCRIPT)


def _painter(name: str) -> Callable[[Path], object]:
    from kling_async.cli.drawings import draw_picture

    return lambda path: draw_picture(name).save(path, "PNG")


def _writer(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, encoding="utf-8")


def _make(path: Path, write: Callable[[Path], object]) -> bool:
    """Make *path* unless it is there; under another name first, so that it is never there by half."""
    if path.exists() or path.is_symlink():
        return False
    part = path.with_name(f"{path.name}.part")
    write(part)
    part.replace(path)
    return True
