"""
Result pictures as objects of a store: whole or not at all, and made once.

A picture is gathered in memory, or beyond some megabytes in a nameless file, checked, and only then sent: in one request
that the store refuses if the name is taken, or in parts if it is large. What blocks here belongs in a worker thread.
"""

from __future__ import annotations

import errno
import hashlib
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from attrs import Factory, define, field, frozen

from kling_async.transport.pictures import scan_file
from kling_async.transport.shelves import EXTENSIONS, Check, OtherFileExists, SavedFile
from kling_async.transport.stores import Place, reason

__all__ = [
    "ObjectPart", "ObjectShelf", "create", "first_below", "move", "present", "read", "translated",
]  # fmt: skip

# Up to so many bytes a picture is held in memory and sent in one request; beyond, in parts of this size.
_PIECE = 8 << 20


@frozen
class ObjectShelf:
    """Keeps pictures under *folder* of a place."""

    place: Place
    folder: str

    def part(self, stem: str) -> ObjectPart:
        """Begin the object of *stem*."""
        return ObjectPart(self, stem)

    def path(self, name: str) -> str:
        """Return the path of the object *name* in its bucket."""
        return "/".join(part for part in (self.place.path, self.folder, name) if part)

    def url(self, name: str) -> str:
        """Return the URL of the object *name*."""
        return f"{self.place.url}/{self.folder}/{name}"

    def __str__(self) -> str:
        return f"{self.place.url}/{self.folder}"


@define(eq=False)
class ObjectPart:
    """
    An object in the making, for *stem* on *shelf*.

    A cancelled wait leaves its thread running, so every step holds *_lock*, and after *discard()* none has any effect.
    """

    _shelf: ObjectShelf
    _stem: str
    _file: IO[bytes] = field(init=False)
    _digest: hashlib._Hash = Factory(hashlib.sha256)
    _size: int = 0
    _ended: bool = False
    _lock: threading.Lock = Factory(threading.Lock)

    def __attrs_post_init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_PIECE)  # noqa: SIM115  # closed by finish() or discard()

    @property
    def ended(self) -> bool:
        """Tell whether nothing is left to be taken away."""
        return self._ended

    def write(self, blocks: Iterable[bytes]) -> None:
        """Append *blocks*."""
        with self._lock:
            if not self._ended:
                self._append(blocks)

    def finish(self, blocks: Iterable[bytes], check: Check) -> SavedFile | None:
        """Append the last *blocks*, check the picture and send it to the store; see `Part.finish()`."""
        with self._lock:
            if self._ended:
                return None
            self._append(blocks)
            header = scan_file(self._file, self._size, webp=True)  # type: ignore[arg-type]  # it reads and seeks
            check(header, self._file)  # type: ignore[arg-type]  # it reads and seeks
            name = f"{self._stem}.{EXTENSIONS[header.format]}"
            digest = self._digest.hexdigest()
            self._send(name, f"image/{header.format}", digest)
            self._end()
            return SavedFile(
                location=self._shelf.url(name), size=self._size, sha256=digest, format=header.format
            )

    def discard(self) -> None:
        """Let go of what was gathered; does nothing to a picture that was sent."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._file.close()

    def _append(self, blocks: Iterable[bytes]) -> None:
        for block in blocks:
            self._file.write(block)
            self._digest.update(block)
            self._size += len(block)

    def _send(self, name: str, kind: str, digest: str) -> None:
        place, path, url = self._shelf.place, self._shelf.path(name), self._shelf.url(name)
        self._file.seek(0)
        with translated(url):
            large = self._size > _PIECE
            content = self._file if large else self._file.read()
            if not create(place, path, content, kind=kind, large=large) and _sha256(place, path) != digest:
                raise OtherFileExists(errno.EEXIST, "another object has this name", url)


def create(place: Place, path: str, content: bytes | IO[bytes], *, kind: str, large: bool = False) -> bool:
    """
    Make the object *path* of *content*, whole; False if there is one already, which stays as it is.

    A *large* one is sent in parts, which no store can refuse for their name; for those, and for stores that cannot refuse at
    all, it is asked for before. Raises what obstore raises.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError, NotSupportedError

    options: dict[str, Any] = {"attributes": {"Content-Type": kind}}
    if not large:
        try:
            obstore.put(place.store, path, content, mode="create", use_multipart=False, **options)
        except AlreadyExistsError:
            return False
        except (NotSupportedError, NotImplementedError):
            pass  # asked for below
        else:
            return True
    if present(place, path):
        return False
    obstore.put(place.store, path, content, use_multipart=large, chunk_size=_PIECE, **options)
    return True


def present(place: Place, path: str) -> bool:
    """Tell whether there is an object at *path*; raises what obstore raises."""
    import obstore
    from obstore.exceptions import NotFoundError

    try:
        obstore.head(place.store, path)
    except (FileNotFoundError, NotFoundError):
        return False
    return True


def read(place: Place, path: str) -> bytes:
    """Return the content of a small object; raises what obstore raises."""
    import obstore

    return obstore.get(place.store, path).bytes().to_bytes()


def first_below(place: Place, path: str) -> str | None:
    """Return the path of some object below *path*; None where there is none. Raises what obstore raises."""
    import obstore

    for batch in obstore.list(place.store, path, chunk_size=1):
        for found in batch:
            return str(found["path"])
    return None


def move(place: Place, old: str, new: str) -> None:
    """Give the object at *old* the path *new*; raises what obstore raises."""
    import obstore

    obstore.rename(place.store, old, new)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what obstore raises into an OSError about *url*, in one line."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise OSError(errno.EIO, reason(error), url) from error


def _sha256(place: Place, path: str) -> str:
    import obstore

    digest = hashlib.sha256()
    for block in obstore.get(place.store, path):
        digest.update(block)
    return digest.hexdigest()
