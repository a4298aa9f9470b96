"""
Base64 of pictures that several jobs use, kept under a budget of bytes.

A picture is encoded once while it is kept: whoever needs the next bytes first makes them, for all. So a slow body holds
up no other, and nobody reads what is there already. Pictures that one job has used so far are kept only if they are
small, since most of them are never used again; of each kind the one unused for longest goes first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Hashable

from attrs import define, field

from kling_async.protocol.bodies import base64_length
from kling_async.protocol.pictures import Picture
from kling_async.transport.pieces import LARGEST_PIECE, PIECE, Reader
from kling_async.transport.turns import Step

__all__ = ["Larder"]

# Encoded bytes of pictures that only one job has used: of all together, and of one. To keep what is not used again costs a
# tenth more CPU than to send it straight from its file.
_ONCE = 4_000_000
_SMALL = 1_000_000
# Pictures whose uses are counted.
_COUNTED = 65_536
# Encoded bytes sent at once of what lies in memory anyway: a socket that takes a megabyte is asked once for it.
_LEAST, _MOST = 64 * 1024, 1 << 20


@define(eq=False)
class _Kept:
    """One picture as base64 in *text*, of which the first *ready* bytes are there; *readers* are sending it."""

    picture: Picture
    reader: Reader
    text: bytearray = field(repr=False)
    ready: int = field(default=0, init=False)
    readers: int = field(default=0, init=False)
    _lock: asyncio.Lock = field(factory=asyncio.Lock, init=False, repr=False)

    @property
    def whole(self) -> bool:
        """Whether all of it is there."""
        return self.ready == len(self.text)

    async def make_more(self) -> int:
        """Encode some more, unless somebody else just has; returns how many bytes were read for it."""
        before = self.ready
        async with self._lock:
            if self.ready > before:
                return 0
            start = self.ready // 4 * 3
            length = min(LARGEST_PIECE, self.picture.size - start)
            made = self.reader.at_once(start, length) or await self.reader.encoded(start, length)
            self.text[self.ready : self.ready + len(made)] = made
            self.ready += len(made)
        if self.whole:
            await self.reader.aclose()
        return length


@define(eq=False)
class _Shelf:
    """Pictures of at most *room* bytes in all, the one unused for longest first."""

    room: int
    taken: int = field(default=0, init=False)
    _kept: OrderedDict[Hashable, _Kept] = field(factory=OrderedDict, init=False, repr=False)

    def get(self, key: Hashable) -> _Kept | None:
        """Return the picture under *key*, which is used now."""
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def make_room(self, size: int) -> bool:
        """Let go what is not being sent until *size* bytes fit; False, and nothing goes, if they never will."""
        idle = [key for key, kept in self._kept.items() if not kept.readers]
        if self.taken - sum(len(self._kept[key].text) for key in idle) + size > self.room:
            return False
        while self.taken + size > self.room:
            self.remove(idle.pop(0))
        return True

    def put(self, key: Hashable, kept: _Kept) -> None:
        """Take *kept* in, for which there is room."""
        self._kept[key] = kept
        self.taken += len(kept.text)

    def remove(self, key: Hashable) -> _Kept | None:
        """Take the picture under *key* out, if it is here."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.taken -= len(kept.text)
        return kept


@define(eq=False)
class Larder:
    """Hands out pictures as base64, from what is kept within *budget* bytes or straight from their files."""

    budget: int = 64_000_000
    # How many bytes were encoded, for whoever wants to see that the larder does what it is for.
    encoded: int = field(default=0, init=False)
    _once: _Shelf = field(init=False, repr=False)
    _often: _Shelf = field(init=False, repr=False)
    _uses: OrderedDict[Hashable, int] = field(factory=OrderedDict, init=False, repr=False)
    _scratch: bytearray = field(factory=lambda: bytearray(LARGEST_PIECE), init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        once = min(_ONCE, self.budget // 4)
        self._once, self._often = _Shelf(once), _Shelf(self.budget - once)

    @property
    def held(self) -> int:
        """How many bytes are kept."""
        return self._once.taken + self._often.taken

    def expect(self, picture: Picture) -> None:
        """Note that one more job is going to send *picture*."""
        key = _key(picture)
        self._uses[key] = self._uses.pop(key, 0) + 1
        if len(self._uses) > _COUNTED:
            self._uses.popitem(last=False)

    def pieces(self, picture: Picture, step: Step) -> AsyncGenerator[bytes | memoryview, None]:
        """
        Yield the base64 text of *picture*, from the start each time; *step* says how much at once.

        Raises InvalidJob as soon as its file is seen to be another than was checked, always before the last piece. Close
        it when leaving early.
        """
        key = _key(picture)
        kept = self._find(key, picture)
        return self._read(picture, step) if kept is None else self._hand_out(key, kept, step)

    async def _read(self, picture: Picture, step: Step) -> AsyncGenerator[bytes | memoryview, None]:
        step.bound(PIECE, LARGEST_PIECE)
        reader = Reader(picture, self._scratch)
        start = 0
        try:
            while start < picture.size:
                length = min(step.now, picture.size - start)
                self.encoded += length
                yield reader.at_once(start, length) or await reader.encoded(start, length)
                start += length
        finally:
            await reader.aclose()

    async def _hand_out(
        self, key: Hashable, kept: _Kept, step: Step
    ) -> AsyncGenerator[bytes | memoryview, None]:
        step.bound(_LEAST, _MOST)
        text, start = memoryview(kept.text), 0
        kept.readers += 1
        try:
            while start < len(text):
                end = min(start + step.now, len(text))
                while kept.ready < end:
                    read = await kept.make_more()
                    self.encoded += read  # not in one, since others add to it while this one waits
                yield text[start:end]
                start = end
        finally:
            kept.readers -= 1
            if not kept.readers and not kept.whole:
                # Nobody goes on with it, or it is no longer the picture that was checked.
                for shelf in (self._once, self._often):
                    if shelf.get(key) is kept:
                        shelf.remove(key)
                await kept.reader.aclose()

    def _find(self, key: Hashable, picture: Picture) -> _Kept | None:
        """Return *picture* as it is kept, or is to be kept from now on; None if it is not."""
        kept = self._often.get(key)
        if kept is not None:
            return kept
        size = base64_length(picture.size)
        is_shared = self._uses.get(key, 0) > 1 and self._often.make_room(size)
        kept = self._once.get(key)
        if kept is None:
            if not is_shared and (size > _SMALL or not self._once.make_room(size)):
                return None
            kept = _Kept(picture, Reader(picture, self._scratch), bytearray(size))
            (self._often if is_shared else self._once).put(key, kept)
        elif is_shared:
            self._once.remove(key)
            self._often.put(key, kept)
        return kept


def _key(picture: Picture) -> Hashable:
    """Know a picture by its content: a file by what tells it from a later one, bytes by being the same object."""
    source = picture.source
    # Whoever holds the picture holds its bytes, so no others can have their place meanwhile.
    return id(source.data) if source.data is not None else (source.path, picture.stamp)
