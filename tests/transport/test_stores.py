from __future__ import annotations

import sys

import obstore
import pytest

from kling_async.errors import ConfigError, MissingExtra
from kling_async.transport.stores import Place, is_store_url, open_place, reason


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("s3://bucket/a/b c%20#1.png", "a/b c%20#1.png"),
        ("S3://bucket/folder/", "folder"),
        ("gs://bucket", ""),
        ("memory://name/a", "a"),
    ],
)
def test_a_url_names_a_bucket_and_a_path(url: str, path: str) -> None:
    """What stands after the bucket is the path as it is; no store is asked for anything."""
    place = open_place(url)

    assert place.path == path
    assert is_store_url(url)
    assert place == Place(url=place.url, path=path, store=place.store)


def test_memory_lasts_as_long_as_the_process() -> None:
    """What was put into a store in memory is there for whoever opens it by the same name, and nobody else."""
    first, again = open_place("memory://one/a"), open_place("memory://one/b")
    obstore.put(first.store, "a", b"123")

    assert bytes(obstore.get(again.store, "a").bytes()) == b"123"
    with pytest.raises(FileNotFoundError):
        obstore.get(open_place("memory://other/a").store, "a")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "scheme 'ftp'"),
        ("s3:///x", "bucket"),
        ("s3://key:secret@bucket/x", "environment"),
        ("out", "scheme 'out'"),
    ],
)
def test_urls_that_name_no_store_are_refused(url: str, words: str) -> None:
    """The error says what was expected and shows no credentials."""
    with pytest.raises(ConfigError, match=words) as caught:
        open_place(url, "out")

    assert "secret" not in str(caught.value)


def test_settings_that_lack_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure without an account says so in one line, and no repr shows or breaks anything."""
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)

    with pytest.raises(ConfigError, match="Account must be specified") as caught:
        open_place("az://container/x")
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "somebody")
    assert "somebody" not in repr(open_place("az://container/x"))


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without obstore the command that installs it is in the error."""
    monkeypatch.setitem(sys.modules, "obstore", None)

    with pytest.raises(MissingExtra, match=r"kling-async\[cloud\]") as caught:
        open_place("s3://bucket/x")
    assert caught.value.extra == "cloud"


def test_reasons_are_short() -> None:
    """Of pages of trouble the first line is told, and of none the kind."""
    assert reason(OSError("a\nb")) == "a"
    assert len(reason(OSError("x" * 1000))) == 198
    assert reason(OSError()) == "OSError"
