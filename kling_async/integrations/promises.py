"""Accepted jobs as files: whole or not there, and everything here blocks."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

from kling_async._disk import make_folder, sync_folder, write_whole
from kling_async.batch.sinks import RESULTS
from kling_async.errors import InvalidJob, JournalError
from kling_async.protocol.jobs import MultiImage
from kling_async.protocol.pictures import Picture
from kling_async.protocol.sources import ImageSource

__all__ = ["Promises"]

_log = logging.getLogger("kling_async")

_JOB, _REPORT = "job.json", "report.json"
_PLAIN = ("prompt", "negative_prompt", "model_name", "n", "aspect_ratio", "watermark", "callback_url")


@define(eq=False)
class Promises:
    """The jobs that were accepted into *folder*: in `open/`, and in `ended/` with a report."""

    folder: Path
    _open: Path = field(init=False)
    _ended: Path = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._open, self._ended = self.folder / "open", self.folder / "ended"

    def prepare(self) -> None:
        """Make the folders."""
        make_folder(self._open)
        make_folder(self._ended)

    def keep(self, job_id: str, job: MultiImage, pictures: Mapping[str, Picture | ImageSource]) -> bool:
        """
        Write *job* with copies of its *pictures*; sources, which the service fetches, are kept as they are.

        False if there is such a job already. Raises `JournalError` if the disk does not take it.
        """
        if self.find(job_id) is not None:
            return False
        # Seen by nobody before it is whole and has its name.
        new = self.folder / f"{job_id}.{os.urandom(4).hex()}.new"
        try:
            new.mkdir()
            try:
                named = {name: _copy(picture, name, new) for name, picture in pictures.items()}
                fields = {name: getattr(job, name) for name in _PLAIN} | {"extra": dict(job.extra)}
                text = json.dumps({"fields": fields, "pictures": named}, ensure_ascii=False)
                write_whole(new / _JOB, text.encode())
                new.rename(self._open / job_id)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            sync_folder(self._open)
        except OSError as error:
            if self.find(job_id) is not None:
                return False  # somebody else was quicker
            raise JournalError(
                f"the job could not be written to {self.folder} ({error.strerror}); check the folder and the disk"
            ) from error
        return True

    def find(self, job_id: str) -> dict[str, Any] | None:
        """Return the report of a job, empty while it has none; None if there is no such job."""
        # Twice, because it may end in between.
        for _ in range(2):
            try:
                report: dict[str, Any] = json.loads((self._ended / job_id / _REPORT).read_bytes())
            except FileNotFoundError:
                if (self._open / job_id).is_dir():
                    return {}
            else:
                return report
        return None

    def open(self) -> list[str]:
        """Return the jobs that have not ended, those first that were accepted first."""
        with os.scandir(self._open) as found:
            return [name for _, name in sorted((entry.stat().st_mtime_ns, entry.name) for entry in found)]

    def job(self, job_id: str) -> MultiImage | None:
        """Read a job that has not ended; None if it has, or if it cannot be read, which is logged."""
        folder = self._open / job_id
        try:
            kept = json.loads((folder / _JOB).read_bytes())
            places = {name: _source(place, folder) for name, place in kept["pictures"].items()}
            scene, style = places.pop("scene_image", None), places.pop("style_image", None)
            subjects = [places[f"subject_images[{number}]"] for number in range(len(places))]
            return MultiImage(
                subject_images=subjects,
                scene_image=scene,
                style_image=style,
                key=job_id,
                external_task_id=job_id,
                **kept["fields"],
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, InvalidJob) as error:
            _log.error("the accepted job in %s cannot be read: %s", folder, error)  # it is no defect
            return None

    def end(self, job_id: str, report: Mapping[str, Any] | None) -> None:
        """Write the *report* of a job and move it to those that have ended."""
        folder = self._open / job_id
        text = json.dumps(dict(report or {"status": "failed", "error": _GONE}), ensure_ascii=False)
        write_whole(folder / _REPORT, text.encode())
        folder.rename(self._ended / job_id)
        sync_folder(self._ended)

    def earlier(self, job_id: str) -> dict[str, Any] | None:
        """Return what the results say of a job; only needed after a crash between two files."""
        found: dict[str, Any] | None = None
        with (self.folder / RESULTS).open(encoding="utf-8") as lines:
            for line in lines:
                if job_id in line and (row := json.loads(line))["key"] == job_id:
                    found = {name: row[name] for name in ("status", "task_id", "files", "error")}
        return found


_GONE = {
    "type": "JournalError",
    "code": None,
    "message": "the job ended in an earlier run and left no result; submit it again",
    "request_id": None,
}


def _source(place: str | dict[str, Any], folder: Path) -> ImageSource:
    return ImageSource(**place) if isinstance(place, dict) else ImageSource(path=folder / place)


def _copy(picture: Picture | ImageSource, name: str, folder: Path) -> str | dict[str, Any]:
    if isinstance(picture, ImageSource):
        return {"url": picture.url, "stored": picture.stored, "presign": picture.presign}
    place = f"{name.replace('[', '_').replace(']', '')}.{picture.header.format}"
    with (folder / place).open("wb") as target:
        if picture.source.data is not None:
            target.write(picture.source.data)
        else:
            assert picture.source.path is not None, "what was checked is bytes or a file"
            with picture.source.path.open("rb") as source:
                shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    return place
