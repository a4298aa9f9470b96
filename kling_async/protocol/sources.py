"""
Where a picture comes from, as a value: nothing is opened or read here.

A bare string is a URL or a path. It is never guessed to be base64: a short base64 text and a path look the same
(`/9j/4AAQ` is both), and a wrong guess would send rubbish or name a file that is none.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from attrs import evolve, field, frozen

from kling_async.errors import InvalidJob

__all__ = ["ImageSource", "looks_like_base64", "megabytes"]

_SUPPORTED = (
    "a path, an http or https URL, an object store's URL, bytes, an open file, a PIL image or an ImageSource"
)
_STORES = frozenset({"s3", "gs", "az", "memory"})
# More than any picture that can be made to fit; a stream that never ends must end here.
_LARGEST_FILE = 200_000_000
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # two letters at least: `C://` is a Windows drive
_DATA_PREFIX = re.compile(r"data:image/[\w.+-]+(?:;[\w.=+-]+)*;base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_BASE64_STARTS = ("iVBORw0KGgo", "/9j/")  # how every PNG and nearly every JPEG begins
# What nearly every URL looks like, seen at once; whatever does not is looked at closely.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]*[A-Za-z0-9](?::[0-9]{1,4})?(?:/[!-~]*)?")
_LONGEST_PATH = 4096  # PATH_MAX of Linux; other systems allow less
_LONGEST_SHOWN = 60
_USE_FROM_BASE64 = "for base64 text use ImageSource.from_base64(text)"


@frozen(kw_only=True, repr=False)
class ImageSource:
    """
    Where a picture comes from: exactly one of *url*, *path*, *data*, *image* and *stored* is set.

    *stored* is the URL of an object in a store; with *presign* the service gets a signed URL of it and fetches it itself.
    *written* is a path as it stands in a manifest, when *path* is where that leads to. Two sources are equal when they
    name the same place; PIL images are compared by identity, since they can change.
    """

    url: str | None = None
    path: Path | None = None
    data: bytes | None = None
    image: object | None = field(default=None, eq=id)
    stored: str | None = None
    presign: bool = False
    written: Path | None = field(default=None, eq=False)
    _hash: str = field(default="", init=False, eq=False)

    @classmethod
    def of(cls, value: object, field: str = "image") -> ImageSource:
        """
        Make a source of whatever a caller may pass for a picture.

        Raises InvalidJob, naming *field*, for anything that is no picture. Whether a file exists and what is in
        it is not looked at.
        """
        if isinstance(value, ImageSource):
            return value
        if isinstance(value, str):
            return cls(url=value) if _PLAIN_URL.fullmatch(value) else cls._of_text(value, field)
        if isinstance(value, bytes | bytearray | memoryview):
            return cls.from_bytes(value, field)
        if hasattr(value, "__fspath__"):
            return cls.from_path(value, field)
        if all(hasattr(value, name) for name in ("save", "size", "mode")):
            return cls.from_pil(value)
        if hasattr(value, "read"):
            return cls.from_file(value, field)
        kind = type(value).__name__
        raise InvalidJob.because(field, _SUPPORTED, f"a value of type {kind}", "pass one of those")

    @classmethod
    def from_url(cls, url: str, field: str = "image") -> ImageSource:
        """Name a picture that the service itself fetches; *url* is passed on as it is and never read here."""
        rule = "an http or https URL with a host and without blanks"
        # Of all blanks only the plain one counts as printable.
        if " " in url or not url.isprintable():
            raise InvalidJob.because(
                field, rule, "blanks or control characters in it", "write them as %20 and so on"
            )
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise InvalidJob.because(
                field, rule, f"a URL that cannot be read ({error})", "correct it"
            ) from error
        if parts.scheme not in {"http", "https"} or not host:
            raise InvalidJob.because(
                field, rule, repr(_shorten(url.partition("?")[0])), "write the whole address"
            )
        return cls(url=url)

    @classmethod
    def from_path(cls, path: object, field: str = "image") -> ImageSource:
        """Name a picture in a file: a string or anything with `__fspath__`."""
        try:
            made = Path(path)  # type: ignore[arg-type]  # what does not fit raises TypeError
        except TypeError as error:
            kind = type(path).__name__
            raise InvalidJob.because(
                field, "the path of a file", f"a value of type {kind}", "pass a str or a Path"
            ) from error
        text = str(made)
        if "\0" in text:
            raise InvalidJob.because(
                field, "the path of a file", "a path with a NUL character", "correct the path"
            )
        if len(text) > _LONGEST_PATH:
            remedy = _USE_FROM_BASE64 if looks_like_base64(text) else "shorten it"
            raise InvalidJob.because(field, "a path or a URL", f"a text of {len(text):,} characters", remedy)
        return cls(path=made)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, field: str = "image") -> ImageSource:
        """Hold the bytes of a PNG or JPEG file; a mutable buffer is copied."""
        if not len(data):
            raise InvalidJob.because(field, "the bytes of a picture file", "no bytes", "pass the whole file")
        return cls(data=bytes(data))

    @classmethod
    def from_file(cls, file: object, field: str = "image") -> ImageSource:
        """
        Hold what an open binary *file* has from where it stands to its end; it need not be able to seek.

        It is read now, by the one who made it, and can be closed afterwards: a job is sent again when it must be, and
        is known by its content, for which a stream that can be read once is of no use.
        """
        rule = "a file opened for reading bytes"
        data = file.read(_LARGEST_FILE + 1)  # type: ignore[attr-defined]  # looked for by whoever calls
        if isinstance(data, str):
            raise InvalidJob.because(field, rule, "one opened for text", "open it with mode 'rb'")
        if not isinstance(data, bytes | bytearray | memoryview):
            if hasattr(data, "close"):
                data.close()  # a coroutine nobody awaits would warn
            raise InvalidJob.because(
                field, rule, f"one that reads a {type(data).__name__}", "await its read() and pass the bytes"
            )
        if len(data) > _LARGEST_FILE:
            found = f"more than {megabytes(_LARGEST_FILE)}"
            raise InvalidJob.because(field, "a picture file", found, "pass a smaller picture")
        return cls.from_bytes(data, field)

    @classmethod
    def from_store(cls, url: str, field: str = "image", *, presign: bool = False) -> ImageSource:
        """
        Name a picture in an object store: `s3://bucket/key`, `gs://` or `az://`. It needs the extra `cloud`.

        It is read by this program and sent, or, with *presign*, signed into a URL for an hour that the service fetches
        itself: nothing passes through this machine then, and nothing is checked.
        """
        scheme, _, rest = url.strip().partition("://")
        bucket, _, key = rest.partition("/")
        if scheme.lower() not in _STORES or not bucket or not key.strip("/") or "@" in bucket:
            found = repr(_shorten(f"{scheme}://{rest.rpartition('@')[2]}"))
            raise InvalidJob.because(
                field,
                "the URL of an object, such as s3://bucket/key",
                found,
                "write bucket and key, nothing else",
            )
        return cls(stored=url.strip(), presign=presign)

    @classmethod
    def from_pil(cls, image: object) -> ImageSource:
        """Hold a PIL image, which is encoded when it is sent and must not be changed until then."""
        return cls(image=image)

    @classmethod
    def from_base64(cls, text: str, field: str = "image") -> ImageSource:
        """
        Decode the base64 text of a picture file; a `data:image/...;base64,` prefix is taken off.

        Raises InvalidJob for line breaks, blanks, the url-safe alphabet and wrong padding: the service takes one
        unbroken text of the standard alphabet, and a text that was changed on its way may not be whole.
        """
        rule = "unbroken base64 text of the standard alphabet"
        if not isinstance(text, str):
            raise InvalidJob.because(
                field, rule, f"a value of type {type(text).__name__}", "pass a str, or the bytes themselves"
            )
        prefix = _DATA_PREFIX.match(text)
        if prefix is None and text[:5].lower() == "data:":
            found = repr(_shorten(text.partition(",")[0]))
            raise InvalidJob.because(field, "base64 text of a picture", found, "pass only the base64 text")
        body = text[prefix.end() :] if prefix else text
        fault = _base64_fault(body)
        if not fault:
            try:
                return cls(data=binascii.a2b_base64(body, strict_mode=True))
            except ValueError as error:
                fault = f"a text that cannot be decoded ({error})", "encode the file again"
        del text, body  # a traceback may show local variables
        raise InvalidJob.because(field, rule, *fault)

    @classmethod
    def _of_text(cls, text: str, field: str) -> ImageSource:
        start = text.lstrip()
        if not start:
            raise InvalidJob.because(
                field, "a path or a URL", "an empty text", "name a picture or leave the field out"
            )
        if start[:5].lower() == "data:":
            raise InvalidJob.because(field, "a path or a URL", "a data: URL", _USE_FROM_BASE64)
        match = _SCHEME.match(start)
        scheme = match[1].lower() if match else ""
        if scheme in {"http", "https"}:
            return cls.from_url(text, field)
        if scheme == "file":
            return cls._of_file_url(text, field)
        if scheme in _STORES:
            return cls.from_store(text, field)
        if scheme:
            rule = "a path or an http, https, file, s3, gs or az URL"
            remedy = "download it first or give an http(s) URL"
            raise InvalidJob.because(field, rule, f"a {scheme}:// URL", remedy)
        return cls.from_path(text, field)

    @classmethod
    def _of_file_url(cls, text: str, field: str) -> ImageSource:
        host, slash, rest = text.strip()[len("file://") :].partition("/")
        if host.lower() not in {"", "localhost"} or not rest:
            raise InvalidJob.because(
                field, "a file:///path URL of this machine", repr(_shorten(text)), "pass the path itself"
            )
        path = unquote(slash + rest)
        # `file:///C:/x.png` names `C:/x.png`.
        return cls.from_path(path[1:] if re.match(r"/[A-Za-z]:/", path) else path, field)

    @property
    def base(self) -> Path | None:
        """The folder in which *path* is what is *written*; None where nothing is."""
        if self.path is None or self.written is None:
            return None
        return self.path.parents[len(self.written.parts) - 1]

    def behind(self, base: Path, field: str = "image") -> ImageSource:
        """Return the source that a relative path means in the folder *base*; any other source is what it was."""
        if self.path is None or self.path.is_absolute():
            return self
        return evolve(self.from_path(base / self.path, field), written=self.path)

    def describe(self) -> str:
        """Say which picture this is, for messages and logs; never its bytes nor the query of its URL."""
        if self.url is not None:
            parts = urlsplit(self.url)
            host = parts.netloc.rpartition("@")[2]
            return _shorten(f"{parts.scheme}://{host}{parts.path}")
        if self.path is not None:
            return _shorten(self.path.name or str(self.path))
        if self.stored is not None:
            return _shorten(self.stored)
        if self.data is not None:
            return f"bytes ({megabytes(len(self.data))})"
        width, height = getattr(self.image, "size", None) or ("?", "?")
        return f"PIL image {width}x{height}"

    def identity(self) -> str:
        """
        Return a text that is the same for the same picture on every machine, for the fingerprint of a job.

        Files count by their path, in a manifest by that which stands there, so that its folder can be moved; stored
        objects by their URL, bytes and PIL images by their content, hashed once.
        """
        if self.url is not None or self.stored is not None:
            return self.url or self.stored or ""
        if self.path is not None:
            return (self.written or self.path).as_posix()
        if not self._hash:
            # What is remembered changes nothing that can be seen of a frozen value.
            object.__setattr__(self, "_hash", self._hashed())
        return self._hash

    def _hashed(self) -> str:
        if self.data is not None:
            return hashlib.sha256(self.data).hexdigest()
        pixels: bytes = self.image.tobytes()  # type: ignore[attr-defined]  # a PIL image, which the core never imports
        return f"{self.describe()} {hashlib.sha256(pixels).hexdigest()}"

    def __repr__(self) -> str:
        return f"<ImageSource {self.describe()}>"


def looks_like_base64(text: str) -> bool:
    """Tell whether *text*, given as a path, is probably base64 text; only ever used to word a remedy."""
    # Not only at the start: a manifest's folder comes before what stands in its rows.
    known = any(start in text for start in _BASE64_STARTS)
    return known or (len(text) > 255 and _BASE64.fullmatch(text) is not None)


def megabytes(size: int) -> str:
    """Write *size* in bytes the way people read it."""
    if size < 1_000:
        return f"{size} bytes"
    return f"{size / 1e3:.1f} kB" if size < 100_000 else f"{size / 1e6:.1f} MB"


def _base64_fault(body: str) -> tuple[str, str] | None:
    """Name what is wrong with *body* and what to do about it, if anything is."""
    if not body:
        return "an empty text", "pass the base64 text of a whole file"
    if any(char in body for char in " \t\r\n\v\f"):
        return "line breaks or blanks in it", "take them out, or encode with base64.b64encode"
    if "-" in body or "_" in body:
        return "the url-safe alphabet (- or _)", "encode with base64.b64encode, not urlsafe_b64encode"
    if len(body) % 4:
        return (
            f"{len(body):,} characters, no multiple of four",
            "keep the = padding, and check that nothing was cut off",
        )
    return None


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:40]}…{text[-19:]}"
