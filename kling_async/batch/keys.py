"""Keys seen so far, in little memory."""

from __future__ import annotations

from array import array

__all__ = ["KeyTable"]


def _digest(key: str) -> int:
    # Zero marks a free place.
    return hash(key) & 0xFFFF_FFFF_FFFF_FFFF or 1


class KeyTable:
    """
    Keys and the lines they stand on, in 12 bytes for each place of a table that is at most half full.

    A hash table over two flat arrays, since a set or dict of a million keys would take 100 MB. Two different keys are
    taken for one with a chance of 3 in 100 million at a million rows.
    """

    def __init__(self) -> None:
        self._count = 0
        self._digests = array("Q", bytes(8 * 1024))
        self._lines = array("L", bytes(array("L").itemsize * 1024))

    def __contains__(self, key: str) -> bool:
        return bool(self._digests[self._place(_digest(key))])

    def __len__(self) -> int:
        return self._count

    def add(self, key: str, line: int) -> int:
        """Note *key* of *line* (above zero); returns the line that had it before, or zero."""
        digest = _digest(key)
        place = self._place(digest)
        if self._digests[place]:
            return self._lines[place]
        self._digests[place], self._lines[place] = digest, line
        self._count += 1
        if self._count * 2 > len(self._digests):
            self._grow()
        return 0

    def _place(self, digest: int) -> int:
        """Return where *digest* is or would be; linear probing ends since half the places are empty."""
        mask = len(self._digests) - 1
        place = digest & mask
        while self._digests[place] not in {0, digest}:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        old = zip(self._digests, self._lines, strict=True)
        size = len(self._digests) * 2
        self._digests = array("Q", bytes(8 * size))
        self._lines = array("L", bytes(array("L").itemsize * size))
        for digest, line in old:
            if digest:
                place = self._place(digest)
                self._digests[place], self._lines[place] = digest, line
