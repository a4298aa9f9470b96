from __future__ import annotations

import unicodedata
from pathlib import PureWindowsPath

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from kling_async.errors import ConfigError
from kling_async.protocol.naming import LONGEST_STEM, check_template, file_stem, folded

TEMPLATE = "{key}_{index}"
keys = st.text() | st.sampled_from(
    ["con", "con.x", "..", "nul", "a/b", "a\\b", "x" * 300, "é", "COM¹.a", "aux. "]
)


@pytest.mark.parametrize(
    ("key", "stem"),
    [("demo-0007", "demo-0007_0"), ("Zug 4.b", "Zug 4.b_0"), ("日本", "日本_0"), ("_", "__0")],
)
def test_plain_keys_stay(key: str, stem: str) -> None:
    """A key that every file system takes is kept letter for letter."""
    assert file_stem(TEMPLATE, key, 0) == stem


def test_the_index_can_be_padded() -> None:
    """The template decides order, padding and the text around."""
    assert file_stem("run 3 {index:03}-{key}.v2", "a", 7) == "run 3 007-a.v2"


@given(keys, st.integers(0, 9))
@example("\u202egnp.exe", 0)
@example("a\nb", 0)
def test_names_fit_every_file_system(key: str, index: int) -> None:
    """A name is never empty, too long, reserved, hidden, or more than one component."""
    stem = file_stem(TEMPLATE, key, index)

    assert 0 < len(stem.encode()) <= LONGEST_STEM
    assert not set(stem) & set('<>:"/\\|?*')
    assert not any(unicodedata.category(char).startswith("C") for char in stem)
    assert stem[0] not in ". "
    assert stem[-1] not in ". "
    assert PureWindowsPath(f"{stem}.png").name == f"{stem}.png"
    assert stem.partition(".")[0].rstrip(" ").upper() not in {
        "CON",
        "PRN",
        "AUX",
        "NUL",
        "COM1",
        "COM¹",
        "LPT9",
        "CONIN$",
    }
    assert unicodedata.is_normalized("NFC", stem)
    assert file_stem(TEMPLATE, key, index) == stem


@given(st.sampled_from([TEMPLATE, "{index}-{key}"]), keys, keys, st.integers(0, 20), st.integers(0, 20))
@example(TEMPLATE, "a/b", "a\\b", 0, 0)
@example(TEMPLATE, "a", " a", 0, 0)
@example(TEMPLATE, "e\u0301", "\u00e9", 0, 0)
@example(TEMPLATE, "x" * 300, "x" * 301, 0, 0)
@example(TEMPLATE, "con.x", "_con.x", 0, 0)
@example(TEMPLATE, "", "_", 0, 0)
@example(TEMPLATE, "a_1", "a", 0, 1)
def test_two_pictures_never_share_a_name(
    template: str, one: str, other: str, first: int, second: int
) -> None:
    """Different keys or indexes give different names, also after cutting and cleaning."""
    assume((one, first) != (other, second))

    assert file_stem(template, one, first) != file_stem(template, other, second)


def test_a_key_cannot_imitate_a_changed_one() -> None:
    """A key that looks like the name of a changed key is changed itself."""
    imitation = file_stem(TEMPLATE, "a/b", 0).removesuffix("_0")

    assert file_stem(TEMPLATE, imitation, 0) != file_stem(TEMPLATE, "a/b", 0)


@pytest.mark.parametrize(
    "template",
    ["", "{key}", "{index}", "{key}{index}", "{key}7{index}", "{key}_{key}", "{key}_{index}_{index}", "{key!r}_{index}", "{key.x}_{index}",
     "{other}_{key}_{index}", "{key}/{index}", "../{key}_{index}", "{key}_{index", "{key:9}_{index}", "{key}_{index:x}", ".{key}_{index}",
     "nul.{key}_{index}", "a:{key}_{index}", "x" * 101 + "{key}_{index}"],
)  # fmt: skip
def test_bad_templates_are_refused(template: str) -> None:
    """A template that cannot tell pictures apart, or could leave the folder, is refused at once."""
    with pytest.raises(ConfigError, match="template"):
        file_stem(template, "a", 0)


@given(keys, st.integers(0, 9), st.integers(120, LONGEST_STEM))
def test_names_keep_to_the_room_there_is(key: str, index: int, longest: int) -> None:
    """Where paths are long, stems are shorter, and still tell keys apart."""
    stem = file_stem(TEMPLATE, key, index, longest=longest)

    assert len(stem.encode()) <= longest
    assert stem != file_stem(TEMPLATE, f"{key}x", index, longest=longest)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Dress", "dress"), ("STRASSE", "straße"), ("\u00c9", "e\u0301"), ("a" * 400, "A" * 400)],
)
def test_twins_are_known_and_told_apart(one: str, other: str) -> None:
    """Keys that differ only in case are equal when folded, and the one that comes second carries its hash."""
    first, second = file_stem(TEMPLATE, one, 0), file_stem(TEMPLATE, other, 0, twin=True)

    assert folded(one) == folded(other)
    assert first.casefold() != second.casefold()


def test_a_template_can_be_checked_beforehand() -> None:
    """A bad template is an error before there is any key."""
    check_template("{index:03}-{key}")

    with pytest.raises(ConfigError, match="template"):
        check_template("{key}")
