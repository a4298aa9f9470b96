"""What is wrong with bad rows is said with line, field, rule, value and remedy, and the other rows are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kling_async.batch import raws as raws_module
from kling_async.batch import tables as tables_module
from kling_async.batch.keys import KeyTable
from kling_async.batch.manifest import BadRow, Row, read_manifest
from kling_async.errors import ConfigError, InvalidJob
from kling_async.protocol.jobs import MultiImage

GOOD = {"key": "good", "subject_images": ["a.png"]}


def between(tmp_path: Path, line: bytes) -> BadRow:
    """Read *line* as the second of three, and return what became of it."""
    first, last = (json.dumps({**GOOD, "key": key}).encode() for key in ("first", "last"))
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"\n".join((first, line, last, b"")))

    before, bad, after = read_manifest(path)

    assert isinstance(before, Row)
    assert isinstance(after, Row)
    assert isinstance(bad, BadRow)
    assert bad.number == 2
    assert str(bad.error).startswith("line 2: ")
    assert bad.error.remedy
    return bad


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "expected JSON, found"),
        (b"nonsense", "expected JSON, found"),
        (b"[1, 2]", "expected a JSON object with the fields of a job, found [1, 2]"),
        (b'"text"', "expected a JSON object with the fields of a job, found 'text'"),
        (b"null", "expected a JSON object with the fields of a job, found null"),
        (b'{"prompt": "a\x00b"}', "found a NUL byte"),
        (b'{"prompt": "\xff"}', "expected UTF-8, found byte 0xff at 13"),
        (b'{"prompt": "x", "prompt": "y"}', "expected each name once, found 'prompt' twice"),
        (b'{"n": NaN}', "found NaN, which JSON does not have"),
        (b'{"prompt": "\\ud800"}', "half of a surrogate pair"),
        (b"[" * 100_000, "deep"),
        (b'{"n": ' + b"9" * 5000 + b"}", "expected JSON"),
    ],
)
def test_lines_that_are_no_rows(tmp_path: Path, line: bytes, told: str) -> None:
    """They are named by their line."""
    bad = between(tmp_path, line)

    assert bad.key == "line-2"
    assert bad.error.field == "row"
    assert told in str(bad.error)
    assert len(str(bad.error)) < 300


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"prompt": "x" * 2501}, "prompt", "2501"),
        ({"subject_images": ["a.png"] * 5}, "subject_images", "5"),
        ({"subject_images": []}, "subject_images", "none"),
        ({"subject_images": None}, "subject_images", "none"),
        ({"n": 0}, "n", "0"),
        ({"n": 10}, "n", "10"),
        ({"n": "2"}, "n", "'2'"),
        ({"n": True}, "n", "True"),
        ({"aspect_ratio": "5:4"}, "aspect_ratio", "'5:4'"),
        ({"external_task_id": ""}, "external_task_id", "''"),
        ({"external_task_id": "a/b"}, "external_task_id", "'a/b'"),
        ({"subject_images": ["data:image/png;base64,iVBO"]}, "subject_images[0]", "data:"),
        ({"promt": "x"}, "promt", "unknown"),
    ],
)
def test_rows_that_break_a_rule(tmp_path: Path, fields: dict[str, object], field: str, value: str) -> None:
    """They keep their own key, and the error has field and value."""
    bad = between(tmp_path, json.dumps({**GOOD, **fields}).encode())

    assert bad.key == "good"
    assert bad.error.field == field
    assert value in bad.error.value


def test_an_unknown_name_is_answered_with_the_nearest_known_one(tmp_path: Path) -> None:
    """A slip of the pen is told as one."""
    bad = between(tmp_path, json.dumps({**GOOD, "asspect_ratio": "1:1"}).encode())

    assert "did you mean 'aspect_ratio'?" in str(bad.error)


@pytest.mark.parametrize("key", [True, 1.5, ["x"], {}, "", "  ", "a\nb", "x" * 513])
def test_keys_that_cannot_name_a_row(tmp_path: Path, key: object) -> None:
    """The row is named by its line instead."""
    bad = between(tmp_path, json.dumps({**GOOD, "key": key}).encode())

    assert (bad.key, bad.error.field) == ("line-2", "key")


def test_key_and_id_must_agree(tmp_path: Path) -> None:
    """Nobody guesses which one is meant."""
    bad = between(tmp_path, json.dumps({**GOOD, "id": "other"}).encode())

    assert "'good' and 'other'" in str(bad.error)


def test_a_second_row_with_a_key_is_refused_by_the_line_of_the_first(tmp_path: Path) -> None:
    """It is named by its line, so that the results of the first keep their name to themselves."""
    bad = between(tmp_path, json.dumps({**GOOD, "key": "first"}).encode())

    assert bad.key == "line-2"
    assert "'first', as in line 1" in str(bad.error)


def test_the_same_row_twice_without_key_is_not_paid_twice(tmp_path: Path) -> None:
    """Whoever means it gives keys."""
    row = json.dumps({"subject_images": ["a.png"]})
    (tmp_path / "m.jsonl").write_text(f"{row}\n{row}\n")

    _, second = read_manifest(tmp_path / "m.jsonl")

    assert isinstance(second, BadRow)
    assert "the same row as in line 1" in str(second.error)


def test_an_over_long_line_is_skipped_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next line is read as if nothing had been, and no more than the bound was held."""
    monkeypatch.setattr(raws_module, "MAX_LINE_BYTES", 1000)

    bad = between(tmp_path, b'{"prompt": "' + b"x" * 5_000_000 + b'"}')

    assert "a longer one" in str(bad.error)


def test_a_large_json_file_is_refused_with_the_way_to_jsonl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole file is never parsed beyond a bound."""
    monkeypatch.setattr(raws_module, "MAX_JSON_BYTES", 10)
    (tmp_path / "m.json").write_text(json.dumps([GOOD]))

    with pytest.raises(ConfigError, match=r"jq -c"):
        read_manifest(tmp_path / "m.json")


HEADER = b"key,subject_images,n\n"


def in_table(tmp_path: Path, record: bytes) -> BadRow:
    """Read *record* as the second of three of a CSV file."""
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + b"first,a.png,1\n" + record + b"\nlast,a.png,1\n")

    before, bad, after = read_manifest(path)

    assert isinstance(before, Row)
    assert isinstance(after, Row), after
    assert isinstance(bad, BadRow)
    assert bad.number == 3
    return bad


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (b"x,a.png", "expected 3 cells as in the header, found 2"),
        (b"x,a.png,1,", "expected 3 cells as in the header, found 4"),
        (b'x,"a"b,1', "expected CSV"),
        (b"x,a\x00.png,1", "expected UTF-8 text"),
        (b"x,\xff.png,1", "expected UTF-8 text"),
        (b"x,a.png,two", "n: expected a whole number from 1 to 9, found 'two'"),
        (b"x,a.png,2.0", "n: expected a whole number"),
        (b"x,a.png,10", "n: expected 1 to 9, found 10"),
        (b"x,,1", "subject_images: expected 1 to 4 pictures, found none"),
    ],
)
def test_bad_records_of_a_table(tmp_path: Path, record: bytes, told: str) -> None:
    """Each spoils itself only."""
    assert told in str(in_table(tmp_path, record).error)


@pytest.mark.parametrize(
    ("record", "key"),
    [
        (b"x,a.png,1,more", "x"),
        (b"x,a\xff.png,1", "x"),
        (b"first,a.png", "line-3"),
        (b'x,"a"b,1', "line-3"),
        (b",a.png", "line-3"),
        (b"\xff,a.png,1", "line-3"),
    ],
)
def test_a_bad_record_has_its_key(tmp_path: Path, record: bytes, key: str) -> None:
    """Where it can be told, and no other row has it; else its line is its name."""
    assert in_table(tmp_path, record).key == key


def test_a_bad_line_has_its_key(tmp_path: Path) -> None:
    """What is wrong elsewhere in a line does not take its name away."""
    assert between(tmp_path, b'{"key": "x", "n": NaN}').key == "x"
    assert between(tmp_path, b'{"key": "first", "n": NaN}').key == "line-2"


def test_unknown_fields_hide_nothing(tmp_path: Path) -> None:
    """Each has its error, and what is wrong besides is told too; the first error is the one that a run shows."""
    bad = between(tmp_path, b'{"key": "x", "promt": "y", "scen": "z", "subject_images": ["a.png"], "n": 10}')
    lone = between(tmp_path, b'{"key": "x", "promt": "y", "subject_images": ["a.png"]}')

    assert [error.field for error in bad.unknown] == ["promt", "scen"]
    assert str(bad.error) == str(bad.unknown[0])
    assert isinstance(bad.rest, InvalidJob)
    assert str(bad.rest).startswith("line 2: n: expected 1 to 9, found 10")
    assert isinstance(lone.rest, MultiImage)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("dress.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF", r"found a picture \(.*\); name the folder"),
        ("dress.png", b"\x89PNG\r\n\x1a\n", "found a picture"),
        ("dress.webp", b"RIFF\x24\0\0\0WEBP", "found a picture"),
    ],
)
def test_a_picture_is_no_manifest(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    """It is told in one error instead of one for each of its lines."""
    (tmp_path / name).write_bytes(content + b"\n\0\n\0\n")

    with pytest.raises(ConfigError, match=told):
        read_manifest(tmp_path / name)


def test_stdin_is_no_manifest() -> None:
    """A manifest is read twice."""
    with pytest.raises(
        ConfigError, match=r"since it is read twice, found - \(stdin\); save it to a file first"
    ):
        read_manifest(Path("-"))


def test_an_over_long_line_of_a_table_is_skipped_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded there too."""
    monkeypatch.setattr(tables_module, "MAX_LINE_BYTES", 1000)

    assert "a line of more than" in str(in_table(tmp_path, b"x," + b"y" * 10_000 + b",1").error)


def test_two_ways_to_name_subjects_are_one_too_many(tmp_path: Path) -> None:
    """Nobody guesses which one is meant."""
    (tmp_path / "m.csv").write_text("subject_images,subject_image_1\na.png,b.png\n")

    (bad,) = read_manifest(tmp_path / "m.csv")

    assert isinstance(bad, BadRow)
    assert bad.error.field == "subject_images"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b"mine,a.png,1,too many", "mine"),
        (b"mine,a.png", "mine"),
        (b"mine,\xff.png,1", "mine"),
        (b",\xff.png,1", "line-3"),
        (b"good,\xff.png,1", "line-3"),  # another row's
        (b'mine,"never closed,1', "line-3"),  # it may be anything
    ],
)
def test_a_spoiled_csv_record_keeps_its_key(tmp_path: Path, line: bytes, key: str) -> None:
    """Where it is sure which cell holds it, so that results name the row as its writer does."""
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + b"good,a.png,1\n" + line + b"\n")

    _, bad = read_manifest(path)

    assert isinstance(bad, BadRow)
    assert bad.key == key


def test_a_key_behind_a_wrong_number_of_cells_is_not_believed(tmp_path: Path) -> None:
    """A cell too many before it would make another cell the key."""
    path = tmp_path / "m.csv"
    path.write_bytes(b"subject_images,key\na, b.png,mine\n")

    (bad,) = read_manifest(path)

    assert bad.key == "line-2"


def test_the_table_of_keys_finds_all_and_only_what_was_added() -> None:
    """Also after it has grown many times."""
    table = KeyTable()

    first = [table.add(f"key-{number}", number) for number in range(1, 20_001)]
    again = [table.add(f"key-{number}", 0) for number in range(1, 20_001)]

    assert not any(first)
    assert again == list(range(1, 20_001))
    assert len(table) == 20_000
    assert "key-20000" in table
    assert "key-20001" not in table
