"""Which folder the relative pictures of a run belong to, so that it can be moved and is not taken for another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import define, evolve, field

from kling_async.protocol.jobs import MultiImage

__all__ = ["Origin"]


@define(eq=False)
class Origin:
    """
    How the files of a manifest's rows are known in one run.

    As the manifest writes them, so that the same job is known again after its folder was moved. But where the *folder*
    of the earlier run is still there and is another one, the same words mean other pictures, so these are known by
    where they lie. That is also how a run of an earlier version knows them, which has None; "" is a run that has had no
    such row. *note* is told of the folder when it changes.
    """

    folder: str | None
    _note: Callable[[str], None]
    _known: dict[Path, bool] = field(factory=dict, init=False)

    def covers(self, base: Path) -> bool:
        """Tell whether the files of a manifest in *base* are known as it writes them."""
        if base not in self._known:
            self._known[base] = self._looks_like(base)
        return self._known[base]

    def _looks_like(self, base: Path) -> bool:
        if self.folder is None or (self.folder not in {"", str(base)} and Path(self.folder).is_dir()):
            return False
        if self.folder != str(base):
            self.folder = str(base)
            self._note(self.folder)
        return True

    def name(self, job: MultiImage) -> MultiImage:
        """Return *job* with its files known as they are to be."""
        bases = (source.base for _, source in job.pictures() if source.written is not None)
        return job if all(base is None or self.covers(base) for base in bases) else _placed(job)


def _placed(job: MultiImage) -> MultiImage:
    return evolve(
        job,
        subject_images=tuple(evolve(source, written=None) for source in job.subject_images),
        scene_image=job.scene_image and evolve(job.scene_image, written=None),
        style_image=job.style_image and evolve(job.style_image, written=None),
    )
