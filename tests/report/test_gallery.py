"""The gallery without a browser: what its data say, what its text can hold, its thumbnails, its command."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_kit import call, environment, manifest, picture
from gallery_kit import BEGAN, asked, failed, folder, line, record
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kling_async import MultiImage
from kling_async.errors import ConfigError, JournalError, TaskFailed
from kling_async.protocol.lifecycle import JobState
from kling_async.protocol.parts import part_key
from kling_async.protocol.sources import ImageSource
from kling_async.protocol.tasks import Task, TaskStatus
from kling_async.report.asked import Asked, asked_of, without_query
from kling_async.report.gallery import Sources, write_gallery
from kling_async.report.page import as_script, digest
from kling_async.report.places import href_of, places_of
from kling_async.report.rows import rows_of, totals_of
from kling_async.report.thumbnails import make_thumbnails

ASSETS = Path(sys.modules["kling_async.report.page"].__file__ or "").parent / "assets"


def data_of(page: Path) -> Any:
    """Return the data that stand in *page*."""
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>',
        page.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert found
    return json.loads(found[1])


def wish(number: int, digest: int = 0, **job: Any) -> Asked:
    """What row *number* asked for."""
    return Asked(number=number, digest=digest, job={"subject_images": ["a.png"], **job}, files={})


# Rows


def test_rows_come_as_they_were_asked_for() -> None:
    """The order is the manifest's, whatever ended first; what it does not know comes last."""
    lines = {key: line(key) for key in ("stray", "c", "a", "b")}

    rows = rows_of(lines, {}, {key: wish(number) for number, key in enumerate("abc", 1)})

    assert [row["key"] for row in rows] == ["a", "b", "c", "stray"]


def test_a_row_has_what_is_known_and_nothing_empty() -> None:
    """Prompt, files, units, seconds and ids are there; what has no value has no field."""
    (row,) = rows_of({"a": line("a")}, {"a": record("a", seconds=7.5)}, {"a": wish(1, prompt="P")})

    assert row["job"]["prompt"] == "P"
    assert (row["seconds"], row["units"], row["model"]) == (7.5, 16.0, "kling-v2-1")
    assert (row["started"], row["finished"]) == (BEGAN, BEGAN + 7.5)
    assert not {"error", "warnings", "watermarked", "changed", "urls"} & set(row)


def test_without_a_journal_the_lines_tell_the_time() -> None:
    """From the creation of the task to the end that was written down."""
    (row,) = rows_of({"a": line("a")}, {}, {})

    assert row["seconds"] == 24.0


@pytest.mark.parametrize(
    ("state", "known", "status"),
    [
        (JobState.DONE, True, "succeeded"),
        (JobState.SUBMITTED, True, "running"),
        (JobState.UNKNOWN, False, "running"),
        (JobState.PENDING, True, "waiting"),
    ],
)
def test_the_journal_knows_where_a_job_stands(state: JobState, *, known: bool, status: str) -> None:
    """A job that is tried again is under way, whatever its last line says."""
    lines = {"a": line("a")} if known else {}

    (row,) = rows_of(lines, {"a": record("a", state=state)}, {})

    assert row["status"] == status


def test_parts_and_jobs_not_begun_are_no_rows() -> None:
    """A job in parts is one row, and one that nothing was sent of is none."""
    records = {
        "a": record("a", state=JobState.SUBMITTED, task_id=""),
        part_key("a", 1, 2): record(part_key("a", 1, 2)),
        "b": record("b", state=JobState.PENDING, task_id=""),
    }

    rows = rows_of({}, records, {})

    assert [row["key"] for row in rows] == ["a"]


def test_a_line_that_is_missing_is_taken_from_the_journal() -> None:
    """A run that was killed between the two still shows its pictures."""
    (row,) = rows_of({}, {"a": record("a", result=line("a"))}, {})

    assert (row["status"], row["files"]) == ("succeeded", ["images/a_0.png"])


def test_a_row_that_changed_since_says_so() -> None:
    """The prompt shown may not be the one that was run."""
    lines, records = {"a": line("a")}, {"a": record("a", row=5)}

    assert rows_of(lines, records, {"a": wish(1, digest=6)})[0]["changed"]
    assert "changed" not in rows_of(lines, records, {"a": wish(1, digest=5)})[0]


def test_an_error_is_taken_apart() -> None:
    """Message, remedy and request id stand by themselves, each once."""
    row, plain = rows_of(
        {
            "a": failed("a"),
            "b": failed("b", type="TaskFailed", code=None, message="task 1 failed: face", request_id=None),
        },
        {},
        {},
    )

    assert row["error"] == {
        "type": "ContentRefusal",
        "code": 1301,
        "message": "Refused by the content security policy",
        "remedy": "change the prompt or the pictures (not charged)",
        "request_id": "req-7",
    }
    assert plain["error"]["message"] == "task 1 failed: face"
    assert "retry" in plain["error"]["remedy"]


def test_a_remedy_of_its_own_is_told_once() -> None:
    """What an error says to do goes before what its code or its class says, and is taken off its message."""
    refused = "model is not supported (code 1201); the job asks for model_name 'x': give it another"
    checked = Task(task_id="1", status=TaskStatus.FAILED, status_message="no; risk control")
    with pytest.raises(TaskFailed) as caught:
        checked.unwrap()
    failure = failed("b", type="TaskFailed", code=None, message=str(caught.value), request_id=None)

    model, task = rows_of(
        {"a": failed("a", type="BadRequest", code=1201, message=refused, request_id=None), "b": failure},
        {},
        {},
    )

    assert model["error"]["message"] == "model is not supported"
    assert model["error"]["remedy"] == "the job asks for model_name 'x': give it another"
    assert task["error"]["message"] == "task 1 failed: no; risk control"
    assert task["error"]["remedy"] == caught.value.remedy


def test_totals_add_up() -> None:
    """Jobs by status, pictures, units and their price, the time from the first start to the last end."""
    lines = {"a": line("a"), "b": line("b", units=32.0, files=["x.png", "y.png"]), "c": failed("c")}
    records = {
        "a": record("a", 0, 10),
        "b": record("b", 5, 20),
        "d": record("d", 1, state=JobState.SUBMITTED),
    }

    totals = totals_of(rows_of(lines, records, {}))

    assert (totals["jobs"], totals["succeeded"], totals["failed"], totals["running"]) == (4, 2, 1, 1)
    assert (totals["pictures"], totals["units"], totals["dollars"]) == (3, 48.0, 0.17)
    assert (totals["seconds"], totals["typical_seconds"]) == (25.0, 15.0)
    assert totals_of([])["seconds"] is None


# What must not be shown


def test_secrets_stay_out() -> None:
    """Signed queries, users of addresses, callback addresses and the bytes of pictures are not on the page."""
    job = MultiImage(
        subject_images=[
            "https://me:word@cdn.example/a.png?X-Amz-Signature=sig#part",
            ImageSource.from_base64("iVBORw0KGgo="),
            ImageSource.from_store("s3://bucket/key.png", presign=True),
        ],
        callback_url="https://shop.example/hook/unguessable",
        prompt="P",
    )

    found = asked_of(1, 0, job)

    assert found.job["subject_images"] == [
        "https://cdn.example/a.png?…",
        "<base64 of 8 bytes>",
        "s3://bucket/key.png",
    ]
    assert not {"sig", "word", "unguessable"} & set(re.split(r"\W+", json.dumps(found.job)))


def test_plain_addresses_stay_as_they_are() -> None:
    """Only what may be signed is left out."""
    assert without_query("https://cdn.example/a%20b.png") == "https://cdn.example/a%20b.png"


# Where pictures lie


@pytest.mark.parametrize(
    ("path", "href"),
    [
        ("/run/out/images/a_0.png", "images/a_0.png"),
        ("/run/refs/50% #1?.png", "../refs/50%25%20%231%3F.png"),
        ("/run/out/bä.png", "b%C3%A4.png"),
        ("/run/out/a:b.png", "a%3Ab.png"),
        (os.fsdecode(b"/run/out/\xff.png"), "%FF.png"),
    ],
)
def test_addresses_are_relative_and_encoded(path: str, href: str) -> None:
    """So that run and pictures can be moved together, and no name is taken for something else."""
    assert href_of(Path(path), Path("/run/out")) == href


def test_every_picture_is_named_once() -> None:
    """Results first; what is an address, or was given as bytes, has no file."""
    job = MultiImage(
        subject_images=["/x/a.png", "https://cdn.example/b.png"],
        scene_image=ImageSource.from_base64("iVBORw0KGgo="),
    )
    wishes = {key: asked_of(1, 0, job) for key in ("k", "l")}
    rows = rows_of({"k": line("k"), "l": line("l", files=["s3://b/l.png"])}, {}, wishes)

    places = places_of(rows, wishes, Path("/out"))

    assert list(places.results) == ["images/k_0.png", "s3://b/l.png"]
    assert list(places.references) == ["/x/a.png", "https://cdn.example/b.png", "<base64 of 8 bytes>"]
    assert places.files() == [Path("/out/images/k_0.png"), Path("/x/a.png")]


def test_a_result_and_a_reference_may_have_one_name(tmp_path: Path) -> None:
    """Results fed back in are named as results are, and are other files: each is shown where it belongs."""
    out = folder(
        tmp_path, [line("k", files=["images/k_0.png"])], rows=[asked("k", subject_images=["images/k_0.png"])]
    )
    for place, colour in ((tmp_path / "images", "red"), (out / "images", "blue")):
        place.mkdir(exist_ok=True)
        Image.new("RGB", (400, 400), colour).save(place / "k_0.png")

    data = data_of(write_gallery(Sources(home=out, manifest=tmp_path / "jobs.jsonl")).page)

    assert data["pictures"]["images/k_0.png"]["href"] == "images/k_0.png"
    assert data["references"]["images/k_0.png"]["href"] == "../images/k_0.png"


def test_addresses_in_further_fields_lose_their_queries() -> None:
    """However deep they stand; other texts stay as they are."""
    extra = {
        "reference": "https://x.example/a.png?sign=secret",
        "deep": [{"at": "s3://b/k?secret"}],
        "q": "why? so",
    }

    found = asked_of(1, 0, MultiImage(subject_images=["/x/a.png"], extra=extra)).job["extra"]

    assert found == {"reference": "https://x.example/a.png?…", "deep": [{"at": "s3://b/k?…"}], "q": "why? so"}


def test_results_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    """It names the folder and what was found."""
    (tmp_path / "results.jsonl").mkdir()

    with pytest.raises(ConfigError, match=r"expected results that can be read in .*found Is a directory"):
        write_gallery(Sources(home=tmp_path))


# The page


@given(text=st.text())
def test_any_text_can_stand_in_a_script(text: str) -> None:
    """It comes back as it was, and nothing in it ends the script or a line of it."""
    found = as_script({"prompt": text})

    assert json.loads(found) == {"prompt": text}
    assert not set("<>&\u2028\u2029") & set(found)


NASTY = "</script><script>alert(1)</script><!-- \u2028 & \" ' <img src=x onerror=alert(2)> \U0001f600"


def test_texts_of_others_stay_texts(tmp_path: Path) -> None:
    """A prompt, a message and a folder full of HTML add no element to the page and are in its data as they were."""
    rows = [asked("a", prompt=NASTY), asked("b")]
    out = folder(tmp_path / "<b>&x", [line("a"), failed("b", message=NASTY)], rows=rows)

    found = write_gallery(Sources(home=out, manifest=tmp_path / "<b>&x/jobs.jsonl"))

    text = found.page.read_text(encoding="utf-8")
    assert data_of(found.page)["rows"][0]["job"]["prompt"] == NASTY
    assert "onerror" not in text.replace(as_script(NASTY)[1:-1], "")
    assert text.count("</script>") == 2
    assert "<b>" not in text


def test_the_policy_lets_nothing_else_in(tmp_path: Path) -> None:
    """No address but files and data, and of styles and scripts only those of the page, by their hashes."""
    out = folder(tmp_path, [line("a")])

    text = write_gallery(Sources(home=out)).page.read_text(encoding="utf-8")

    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert policy
    assert style
    assert script
    said = dict(part.strip().split(" ", 1) for part in html.unescape(policy[1]).split(";"))
    assert said["default-src"] == "'none'"
    assert said["img-src"] == "'self' file: data:"
    assert said["style-src"] == digest(style[1])
    assert said["script-src"] == digest(script[1])
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", text)


def test_own_templates_get_everything_and_escape(tmp_path: Path) -> None:
    """A template of one's own may be a page, or take ours and change a part of it."""
    out = folder(tmp_path, [line("a")], rows=[asked("a", prompt="<b>")])
    sources = Sources(home=out, manifest=tmp_path / "jobs.jsonl")
    own, part = tmp_path / "own.html", tmp_path / "part.html"
    own.write_text(
        "{% for row in rows %}{{ row.key }} {{ row.job.prompt }} {{ pictures[row.files[0]].missing }}{% endfor %} "
        "{{ run.name }} {{ totals.units | number }}",
        encoding="utf-8",
    )
    part.write_text(
        '{% extends "kling/gallery.html" %}{% block own_style %}h1 { color: red }{% endblock %}'
        "{% block footer %}Ours{% endblock %}",
        encoding="utf-8",
    )

    page = write_gallery(sources, template=own, to=tmp_path / "own/index.html").page
    derived = write_gallery(sources, template=part).page.read_text(encoding="utf-8").replace("&#39;", "'")

    assert page.read_text(encoding="utf-8") == "a &lt;b&gt; True out 16"
    style = re.search(r"<style>(.*?)</style>", derived, re.DOTALL)
    assert style
    assert "h1 { color: red }" in style[1]
    assert digest(style[1]) in derived
    assert re.search(r"<footer[^>]*>\s*Ours\s*</footer>", derived)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{% if %}", "in line 1"),
        ("{{ nothing_like_it }}", "'nothing_like_it' is undefined"),
        (None, "no file"),
    ],
)
def test_a_template_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, found: str) -> None:
    """With the file and what is wrong with it, and the old page stays."""
    out = folder(tmp_path, [line("a")])
    before = write_gallery(Sources(home=out)).page.read_bytes()
    template = tmp_path / "mine.html"
    if text is not None:
        template.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=f"mine.html.*{re.escape(found)}"):
        write_gallery(Sources(home=out), template=template)

    assert (out / "gallery.html").read_bytes() == before


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("name", ["text", "quiet", "good", "bad", "busy", "focus"])
def test_colours_of_texts_stand_out(name: str, theme: int) -> None:
    """On every ground of the page, with a contrast of at least 4.5, in the light theme and in the dark one."""
    style = (ASSETS / "gallery.css").read_text(encoding="utf-8")
    colours = {
        found[1]: found.groups()[1:]
        for found in re.finditer(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    }

    for ground in ("page", "card", "sunk", "bad-ground"):
        one, other = sorted((luminance(colours[name][theme]), luminance(colours[ground][theme])))
        assert (other + 0.05) / (one + 0.05) >= 4.5, (name, ground)


# Thumbnails


def test_thumbnails_are_made_once_and_follow_their_pictures(tmp_path: Path) -> None:
    """Small, upright and whole; made again when the picture changes, and gone when nobody needs them."""
    from PIL import Image

    one, two = picture(tmp_path / "one.png", (1200, 600)), picture(tmp_path / "two.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG and nothing more")
    small = tmp_path / "thumbnails"
    first = make_thumbnails([one, two, broken, tmp_path / "none.png"], small)
    (small / "notes.txt").write_text("mine")
    inode = (small / first.names[one]).stat().st_ino
    picture(two, (400, 400))

    second = make_thumbnails([one, two], small)

    with Image.open(small / first.names[one]) as image:
        assert (image.format, image.size) == ("JPEG", (480, 240))
    assert set(first.names) == set(second.names) == {one, two}
    assert (small / second.names[one]).stat().st_ino == inode
    assert first.names[two] != second.names[two]
    assert {file.name for file in small.iterdir()} == {*second.names.values(), "notes.txt"}


def test_thumbnails_turn_as_the_camera_was_held_and_lose_their_holes(tmp_path: Path) -> None:
    """A picture that lies on its side stands up, and what is see-through becomes white."""
    from PIL import Image

    lying, holes = tmp_path / "lying.jpg", tmp_path / "holes.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (800, 400), "teal").save(lying, exif=exif)
    Image.new("RGBA", (400, 400), (0, 0, 0, 0)).save(holes)

    found = make_thumbnails([lying, holes], tmp_path / "small")

    with Image.open(tmp_path / "small" / found.names[lying]) as image:
        assert image.size == (240, 480)
    with Image.open(tmp_path / "small" / found.names[holes]) as image:
        assert image.getpixel((9, 9)) == (255, 255, 255)


def test_thumbnails_know_when_to_stop(tmp_path: Path) -> None:
    """When the time is over the rest is left, those that are there count, and nothing is swept away."""
    pictures = [picture(tmp_path / f"{number}.png") for number in range(3)]
    small = tmp_path / "small"
    make_thumbnails(pictures[:1], small)

    found = make_thumbnails(pictures[1:], small, seconds=-1)

    assert (found.names, found.left) == ({}, 2)
    assert len(list(small.iterdir())) == 1


# The command


def test_the_command_writes_a_page(tmp_path: Path) -> None:
    """From the folder alone; data go to stdout, and what is there afterwards is one page and its thumbnails."""
    rows = [asked(f"r{number}") for number in range(3)]
    lines = [line("r0"), failed("r1"), line("r1", task_id="again")]
    out = folder(tmp_path, lines, rows=rows, records=[record("r2", state=JobState.SUBMITTED)], emulated=True)
    picture(out / "images/r0_0.png")

    said = call("gallery", out, "--json", cwd=tmp_path)

    page = Path(said.json()["file"])
    data = data_of(page)
    assert (said.code, said.json()["jobs"], said.json()["pictures"]) == (0, 3, 2)
    assert page.samefile(out / "gallery.html")
    assert [row["status"] for row in data["rows"]] == ["succeeded", "succeeded", "running"]
    assert data["run"]["emulated"] is True
    assert data["pictures"]["images/r0_0.png"]["thumbnail"].startswith("thumbnails/")
    assert data["references"]["refs/dress.png"]["href"] == "../refs/dress.png"
    assert data["pictures"]["images/r1_0.png"] == {"missing": True}
    assert 'class="timeline"' in page.read_text(encoding="utf-8")


def test_the_last_results_are_shown_if_there_are_too_many(tmp_path: Path) -> None:
    """The page, and the command, say how many are left out; the running ones are always there."""
    out = folder(
        tmp_path,
        [line(f"r{number}") for number in range(5)],
        records=[record("r0", result=line("r0")), record("live", state=JobState.SUBMITTED)],
    )

    said = call("gallery", out, "--most", "2", "--manifest", tmp_path / "refs", cwd=tmp_path)

    assert [row["key"] for row in data_of(out / "gallery.html")["rows"]] == ["r3", "r4", "live"]
    assert "The last 2 of 5 results are shown" in said.err
    assert "The last 2 of 5 results are shown" in (out / "gallery.html").read_text(encoding="utf-8")


def test_a_lost_manifest_is_told(tmp_path: Path) -> None:
    """The results are shown without their prompts, and the page says why; --manifest names the rows."""
    out = folder(tmp_path, [line("a")], rows=[asked("a")])
    moved = (tmp_path / "jobs.jsonl").rename(tmp_path / "moved.jsonl")

    without = call("gallery", out, cwd=tmp_path)
    notes = data_of(out / "gallery.html")["run"]["notes"]
    named = call("gallery", out, "--manifest", moved, cwd=tmp_path)

    assert (without.code, named.code, named.err.count("note")) == (0, 0, 0)
    assert "Prompts and reference pictures are not known here" in notes[0]
    assert data_of(out / "gallery.html")["rows"][0]["job"]["prompt"] == "A dress for a"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["empty"], "expected results of a run"),
        (["out", "--to", "refs/dress.png/x.html"], "expected to write"),
        (["out", "--manifest", "none.jsonl"], "found nothing at none.jsonl"),
        (["out", "--template", "none.html"], "expected a jinja2 template"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, words: list[str], found: str) -> None:
    """Exit 3, with one line that says what was expected."""
    folder(tmp_path, [line("a")])
    (tmp_path / "empty").mkdir()

    said = call("gallery", *words, cwd=tmp_path)

    assert (said.code, said.err.count("\n")) == (3, 1)
    assert found in said.err


def test_a_folder_that_takes_no_thumbnails_still_has_a_page(tmp_path: Path) -> None:
    """What stands in the way is noted, and pictures are shown whole."""
    out = folder(tmp_path, [line("a")])
    picture(out / "images/a_0.png")
    (out / "thumbnails").write_text("in the way")

    found = write_gallery(Sources(home=out), to=tmp_path / "elsewhere.html")

    assert any("There are no thumbnails" in note for note in found.notes)
    assert data_of(found.page)["pictures"]["images/a_0.png"] == {"href": "out/images/a_0.png"}


def test_a_damaged_journal_is_told(tmp_path: Path) -> None:
    """It is left as it is."""
    out = folder(tmp_path, [line("a")])
    (out / "journal.db").write_text("rubbish")

    with pytest.raises(JournalError, match="damaged"):
        write_gallery(Sources(home=out, journal=out / "journal.db"))


def test_lines_that_are_no_results_are_passed_over(tmp_path: Path) -> None:
    """Half a line that is being written, and what somebody typed, do not stop the page."""
    out = folder(tmp_path, [line("a")])
    with (out / "results.jsonl").open("a") as file:
        file.write('[1]\n\n{"status": "succeeded"}\n{"key": "b", "sta')

    found = write_gallery(Sources(home=out))

    assert found.rows == 1


def without(module: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a Python that lacks *module*."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; from kling_async.__main__ import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_jinja2_the_extra_is_named(tmp_path: Path) -> None:
    """The command says what to install and ends with 3."""
    folder(tmp_path, [line("a")])

    said = without("jinja2", "gallery", "out", cwd=tmp_path)

    assert said.returncode == 3
    assert 'pip install "kling-async[cli]"' in said.stderr


def test_without_pillow_pictures_are_shown_whole(tmp_path: Path) -> None:
    """There are no thumbnails then, and nothing else changes."""
    out = folder(tmp_path, [line("a")])
    (out / "images").mkdir()
    (out / "images/a_0.png").write_bytes(b"picture")

    said = without("PIL", "gallery", "out", cwd=tmp_path)

    assert said.returncode == 0, said.stderr
    assert data_of(out / "gallery.html")["pictures"]["images/a_0.png"] == {"href": "images/a_0.png"}
    assert not (out / "thumbnails").exists()


# At the end of a run


def test_a_run_ends_with_its_page(tmp_path: Path) -> None:
    """`run` writes it and names it; JSON has its path."""
    picture(tmp_path / "a.png")
    manifest(
        tmp_path / "jobs.jsonl", [{"key": "k", "subject_images": ["a.png"], "prompt": "x"}, {"key": "bad"}]
    )

    said = call("run", "jobs.jsonl", "-o", "out", "--emulator", "--json", "--progress", "none", cwd=tmp_path)

    data = data_of(tmp_path / "out/gallery.html")
    assert said.code == 1
    assert Path(said.json()["gallery"]) == Path("out/gallery.html")
    assert {row["key"]: row["status"] for row in data["rows"]} == {"k": "succeeded", "bad": "failed"}
    assert "gallery   " in said.err


def test_a_page_that_cannot_be_written_fails_no_run(tmp_path: Path) -> None:
    """The run ends as it would have, and one line says what was in the way and how to try again."""
    picture(tmp_path / "a.png")
    manifest(tmp_path / "jobs.jsonl", [{"key": "k", "subject_images": ["a.png"], "prompt": "x"}])
    (tmp_path / "out/gallery.html").mkdir(parents=True)

    said = call("run", "jobs.jsonl", "-o", "out", "--emulator", "--json", "--progress", "none", cwd=tmp_path)

    assert (said.code, said.json()["succeeded"], said.json()["gallery"]) == (0, 1, None)
    assert "no gallery was written: gallery: expected to write" in said.err
    assert "kling-async gallery out" in said.err
