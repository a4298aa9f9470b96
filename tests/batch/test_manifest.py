"""What the rows of good manifests become, in each format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from kling_async.batch.manifest import BadRow, Manifest, Passed, Row, digest_of, read_manifest
from kling_async.errors import ConfigError

ROW = {"key": "a", "subject_images": ["dress.png"], "prompt": "x", "n": 2}
SEED_ROW = {
    "model_name": "kling-v2-1",
    "prompt": "Wearing a flowing red dress on the grassland, in Ghibli style.",
    "negative_prompt": "",
    "subject_image_list": [
        {"subject_image": "https://v1-kling.klingai.com/kcdn/multi-1.png"},
        {"subject_image": "https://v1-kling.klingai.com/kcdn/multi-2.png"},
    ],
    "scene_image": "https://v1-kling.klingai.com/kcdn/background.jpeg",
    "style_image": "https://v1-kling.klingai.com/kcdn/16x9_jipuli.png",
    "n": 2,
    "aspect_ratio": "9:16",
}


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def good(path: Path) -> list[Row]:
    rows = list(read_manifest(path))
    assert all(isinstance(row, Row) for row in rows), rows
    return [row for row in rows if isinstance(row, Row)]


def test_each_line_of_jsonl_is_a_row_with_its_line_number(tmp_path: Path) -> None:
    """Blank lines are no rows but count as lines."""
    path = write(tmp_path / "m.jsonl", f"{json.dumps(ROW)}\n\n  \n{json.dumps({**ROW, 'key': 'b'})}\n")

    rows = good(path)

    assert [(row.number, row.key, row.job.n) for row in rows] == [(1, "a", 2), (4, "b", 2)]


def test_byte_order_mark_crlf_and_a_missing_last_newline_change_nothing(tmp_path: Path) -> None:
    """A file saved on Windows reads like any other."""
    text = b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n" + json.dumps({**ROW, "key": "b"}).encode()

    rows = good(write(tmp_path / "m.jsonl", text))

    assert [row.key for row in rows] == ["a", "b"]


def test_the_seeds_own_example_is_a_row_as_it_stands(tmp_path: Path) -> None:
    """The vendor's JSON needs no rewriting, whether on one line or as a file of its own."""
    line = good(write(tmp_path / "m.jsonl", json.dumps(SEED_ROW)))
    file = good(write(tmp_path / "m.json", json.dumps(SEED_ROW, indent=2)))

    assert len(line[0].job.subject_images) == 2
    assert line[0].job == file[0].job
    assert line[0].key == file[0].key


def test_relative_pictures_are_relative_to_the_manifest(tmp_path: Path) -> None:
    """Where the command is called from does not matter."""
    (row,) = good(write(tmp_path / "m.jsonl", json.dumps(ROW)))

    assert row.job.subject_images[0].path == tmp_path / "dress.png"


def test_a_job_is_the_same_one_wherever_the_manifest_is_read_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calling the command from another folder must not make it another job, which would be paid for again."""
    path = write(tmp_path / "m.jsonl", json.dumps(ROW))
    monkeypatch.chdir(tmp_path)

    assert good(path)[0].job.fingerprint() == good(Path("m.jsonl"))[0].job.fingerprint()


def test_rows_without_key_are_known_by_their_content(tmp_path: Path) -> None:
    """The same row has the same key in any order of its names, and another row another one."""
    turned = dict(reversed(list(SEED_ROW.items())))
    other = {**SEED_ROW, "n": 3}

    first, second, third = (
        good(write(tmp_path / f"{number}.jsonl", json.dumps(row)))[0].key
        for number, row in enumerate((SEED_ROW, turned, other))
    )

    assert first == second != third


def test_id_and_numbers_do_for_keys(tmp_path: Path) -> None:
    """`id` is another name of `key`, and numbered rows need no quotation marks."""
    rows = good(
        write(
            tmp_path / "m.jsonl",
            json.dumps({**ROW, "key": 7}) + "\n" + json.dumps({**ROW, "key": None, "id": "x"}),
        )
    )

    assert [row.key for row in rows] == ["7", "x"]


def test_the_key_goes_into_the_job(tmp_path: Path) -> None:
    """Outcomes of a job tell the caller's own name for it."""
    (row,) = good(write(tmp_path / "m.jsonl", json.dumps(ROW)))

    assert row.job.key == "a"


def test_csv_cells_become_numbers_booleans_and_lists(tmp_path: Path) -> None:
    """Text is converted where the field is no text, empty cells are not given, quotes hold commas and line ends."""
    text = (
        'key,subject_images,prompt,n,watermark,scene_image\r\na,one.png|two.png,"red, and\nblue",3,TRUE,\r\n'
    )

    (row,) = good(write(tmp_path / "m.csv", text))

    assert [source.path for source in row.job.subject_images] == [tmp_path / "one.png", tmp_path / "two.png"]
    assert (row.job.prompt, row.job.n, row.job.watermark, row.job.scene_image) == (
        "red, and\nblue",
        3,
        True,
        None,
    )


def test_csv_takes_numbered_subject_columns_in_their_order(tmp_path: Path) -> None:
    """Spreadsheets have one picture a cell; the columns' order does not matter, their numbers do."""
    (row,) = good(
        write(tmp_path / "m.csv", "subject_image_2,subject_image_1,subject_image_3\nb.png,a.png,\n")
    )

    assert [source.describe() for source in row.job.subject_images] == ["a.png", "b.png"]


@pytest.mark.parametrize(("name", "mark"), [("m.csv", ";"), ("m.tsv", "\t"), ("m.csv", "\t")])
def test_other_delimiters_are_known_from_the_header(tmp_path: Path, name: str, mark: str) -> None:
    """Spreadsheets of some countries write semicolons."""
    (row,) = good(
        write(tmp_path / name, mark.join(("key", "subject_images")) + "\n" + mark.join(("a", "x.png")))
    )

    assert row.key == "a"


def test_seed_names_in_csv_hold_json(tmp_path: Path) -> None:
    """Structures that CSV has no form for stand as JSON in their cell."""
    text = 'subject_image_list,watermark_info\n"[{""subject_image"": ""a.png""}]","{""enabled"": true}"\n'

    (row,) = good(write(tmp_path / "m.csv", text))

    assert row.job.watermark is True


def test_a_record_over_several_lines_has_the_number_of_its_first(tmp_path: Path) -> None:
    """Line numbers of later rows stay right after a line end inside a cell."""
    rows = good(write(tmp_path / "m.csv", 'key,subject_images,prompt\na,a.png,"1\n2\n3"\nb,a.png,x\n'))

    assert [row.number for row in rows] == [2, 5]


def test_json_arrays_are_rows_by_their_place(tmp_path: Path) -> None:
    """A `.json` file may hold an array; numbers count its elements."""
    rows = good(write(tmp_path / "m.json", json.dumps([ROW, {**ROW, "key": "b"}])))

    assert [(row.number, row.key) for row in rows] == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv", "m.tsv", "m.json", "m.txt"])
@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"\xef\xbb\xbf"])
def test_an_empty_manifest_has_no_rows(tmp_path: Path, name: str, content: bytes) -> None:
    """Nothing to do is no error."""
    assert list(read_manifest(write(tmp_path / name, content))) == []


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("m.parquet", b"PAR1", "expected JSONL, CSV or TSV"),
        ("m.jsonl", "{}".encode("utf-16"), "found UTF-16"),
        ("m.csv", b"key,key\n1,2\n", "'key' twice"),
        ("m.csv", b'key,"open\n', "header"),
        ("m.json", b"{", "expected JSON"),
    ],
)
def test_files_of_the_wrong_kind_are_errors_at_once(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    """Before the first row is asked for, so that nothing has begun."""
    with pytest.raises(ConfigError, match=told):
        read_manifest(write(tmp_path / name, content))


def test_missing_files_folders_and_pipes_are_errors_at_once(tmp_path: Path) -> None:
    """Each is named with what to do."""
    with pytest.raises(ConfigError, match="found nothing at"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="found none"):
        read_manifest(tmp_path)
    with pytest.raises(ConfigError, match="regular file"):
        read_manifest(Path("/dev/null"))


def test_reading_is_lazy(tmp_path: Path) -> None:
    """A bad row at the end is not seen before it is reached."""
    path = write(tmp_path / "m.jsonl", f"{json.dumps(ROW)}\n" * 1 + "nonsense\n")

    rows = read_manifest(path)

    assert isinstance(next(rows), Row)
    assert isinstance(next(rows), BadRow)


# What is done already.


def undone(path: Path, done: dict[str, int]) -> list[tuple[str, ...] | str]:
    """Return what is left of the rows at *path*: keys, and those of rows that were passed over together."""
    rows = read_manifest(path)
    assert isinstance(rows, Manifest)
    left = rows.unless(lambda keys: {key: done[key] for key in keys if key in done})
    return [row.keys if isinstance(row, Passed) else row.key for row in left]


KINDS = {
    "m.jsonl": "\n".join(json.dumps({**ROW, "key": key}) for key in "abcd"),
    "m.csv": "key,subject_images,prompt,n\n" + "\n".join(f"{key},dress.png,x,2" for key in "abcd"),
    "m.json": json.dumps([{**ROW, "key": key} for key in "abcd"]),
}


@pytest.mark.parametrize("name", KINDS)
def test_rows_that_are_done_are_passed_over_together(tmp_path: Path, name: str) -> None:
    """A row that is done and has not changed since comes as its key alone; all others come as they are."""
    path = write(tmp_path / name, KINDS[name])
    digests = {row.key: row.digest for row in good(path)}

    assert len(set(digests.values()) - {0}) == 4
    assert undone(path, {}) == ["a", "b", "c", "d"]
    assert undone(path, digests) == [("a", "b", "c", "d")]
    assert undone(path, digests | {"c": 17}) == [("a", "b"), "c", ("d",)]


def test_rows_without_a_key_of_their_own_are_passed_over_too(tmp_path: Path) -> None:
    """What names a row by its content names it again; numbers are keys as well."""
    rows = [
        {**ROW, "key": None},
        {**ROW, "key": 17},
        {"id": "x", **{name: ROW[name] for name in ROW if name != "key"}},
    ]
    path = write(tmp_path / "m.jsonl", "\n".join(json.dumps(row) for row in rows))
    digests = {row.key: row.digest for row in good(path)}

    assert undone(path, digests) == [tuple(digests)]
    assert list(digests)[1:] == ["17", "x"]


def test_a_changed_row_is_read_closely_and_white_space_at_its_ends_is_no_change(tmp_path: Path) -> None:
    """Only the bytes of the row itself count."""
    line = json.dumps({**ROW, "key": "a"})
    digests = {"a": digest_of(line.encode())}

    assert undone(write(tmp_path / "m.jsonl", f"  {line} \r\n"), digests) == [("a",)]
    assert undone(write(tmp_path / "m.jsonl", line.replace("dress", "coat")), digests) == ["a"]


def test_what_is_wrong_with_a_manifest_is_found_among_rows_that_are_done(tmp_path: Path) -> None:
    """A key that comes twice, a broken line and a bad row are told, whatever was done before."""
    line = json.dumps({**ROW, "key": "a"})
    bad = json.dumps({**ROW, "key": "b", "n": 10})
    path = write(tmp_path / "m.jsonl", f"{line}\n{line}\nrubbish\n[1]\n{bad}\n")

    assert undone(path, {"a": digest_of(line.encode())}) == [("a",), "line-2", "line-3", "line-4", "b"]


def test_many_rows_are_looked_up_some_at_a_time(tmp_path: Path) -> None:
    """What is held at once is bounded, in rows and in bytes."""
    path = write(
        tmp_path / "m.jsonl", "\n".join(json.dumps({**ROW, "key": f"{number}"}) for number in range(1000))
    )
    big = "\n".join(
        json.dumps({**ROW, "key": f"{number}", "extra": {"x": "y" * 1_000_000}}) for number in range(20)
    )
    asked: list[int] = []

    def ask(keys: Sequence[str]) -> dict[str, int]:
        asked.append(len(keys))
        return {}

    for each in (path, write(tmp_path / "big.jsonl", big)):
        rows = read_manifest(each)
        assert isinstance(rows, Manifest)
        list(rows.unless(ask))

    assert asked[:4] == [256, 256, 256, 232]
    assert max(asked[4:]) <= 5
