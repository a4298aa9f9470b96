"""Results decoded to see that every pixel is there (`verify="full"`), with Pillow (extra `images`)."""

from __future__ import annotations

from typing import BinaryIO

from kling_async.protocol.headers import UnreadablePicture

__all__ = ["decode"]


def decode(file: BinaryIO) -> None:
    """
    Decode the picture in *file* from where it stands; raises UnreadablePicture if not all of it can be.

    The number of its pixels is the caller's to check before.
    """
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG", "JPEG", "WEBP")) as image:
            image.load()
    except Exception as error:
        # Pillow's decoders raise what they like: OSError, SyntaxError, struct.error …
        found = f"a picture that cannot be decoded ({error})"
        raise UnreadablePicture(found, "save the picture again", cut_off="truncated" in str(error)) from error
