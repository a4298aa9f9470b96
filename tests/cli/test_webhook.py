"""`webhook listen` from outside: what it shows, refuses and passes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from attrs import Factory, define
from cli_kit import COMMAND, call, conform, environment

from kling_async.protocol.callbacks import sign

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
BODY = b'{"task_id": "8666", "task_status": "succeed", "task_info": {"external_task_id": "mine"}}'


@define
class Target:
    """An application that callbacks are passed on to; answers with *status*."""

    url: str
    status: int = 200
    got: list[tuple[str, Mapping[str, str], bytes]] = Factory(list)


@pytest.fixture
def target() -> Iterator[Target]:
    """An application that listens."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.got.append((self.path, dict(self.headers), body))
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    found = Target(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def listening(*words: str, cwd: Path, env: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `webhook listen --json` on a free port; yields the process and its address."""
    process = subprocess.Popen(
        [*COMMAND, "webhook", "listen", "--json", "--port", "0", *words],
        cwd=cwd,
        env=environment(env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        begin = json.loads(process.stdout.readline())
        conform(begin, "listening")
        yield process, begin["url"]
    finally:
        process.kill()
        process.communicate()


def post(url: str, body: bytes = BODY, headers: Mapping[str, str] | None = None) -> int:
    request = urllib.request.Request(url, body, headers or {}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def headers(message_id: str = "m-1") -> dict[str, str]:
    stamp = int(time.time())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(stamp),
        "webhook-signature": sign(SECRET, message_id, stamp, BODY),
    }


def lines(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, _ = process.communicate(timeout=20)
    said = [json.loads(line) for line in out.splitlines()]
    for line in said:
        conform(line, "callback")
    return said


@pytest.mark.parametrize("words", [["webhook"], ["webhook", "listen"]])
def test_the_help_shows_how(tmp_path: Path, words: list[str]) -> None:
    """The group names its command, and the command has an example."""
    said = call(*words, "--help", cwd=tmp_path)

    assert said.code == 0
    assert ("kling-async webhook listen --forward-to" if len(words) == 2 else "  listen ") in said.out


def test_what_is_genuine_is_passed_on_as_it_came(tmp_path: Path, target: Target) -> None:
    """Body, headers and what stands below the address arrive unchanged, the answer comes back, and all is exit 0."""
    words = ("--forward-to", target.url, "--count", "2")
    with listening(*words, cwd=tmp_path, env={"KLING_WEBHOOK_SECRET": SECRET}) as (process, url):
        first = post(f"{url}/secret-segment?x=1", headers=headers())
        target.status = 204
        second = post(url, headers=headers("m-2"))
        said = lines(process)

    assert (first, second, process.returncode) == (200, 204, 0)
    assert [path for path, _, _ in target.got] == ["/hook/secret-segment?x=1", "/hook"]
    assert {body for _, _, body in target.got} == {BODY}
    passed = {name.lower(): value for name, value in target.got[0][1].items()}
    assert passed["webhook-signature"].startswith("v1,")
    assert {(one["genuine"], one["task_id"], one["external_task_id"], one["status"]) for one in said} == {
        (True, "8666", "mine", "succeed")
    }
    assert [one["answer"] for one in said] == [200, 204]
    assert said[0]["body"] == json.loads(BODY)


def test_what_is_not_genuine_goes_no_further(tmp_path: Path, target: Target) -> None:
    """It is answered with 401 and shown with the reason; exit 1."""
    words = ("--forward-to", target.url, "--count", "2")
    with listening(*words, cwd=tmp_path, env={"KLING_WEBHOOK_SECRET": SECRET}) as (process, url):
        answers = [post(url), post(url, b"\xff", {"webhook-id": "x"})]
        said = lines(process)

    assert (answers, process.returncode, target.got) == ([401, 401], 1, [])
    assert [one["genuine"] for one in said] == [False, False]
    assert "webhook-id, found none" in said[0]["fault"]


@pytest.mark.parametrize("status", [500, None])
def test_an_application_in_trouble_is_told(tmp_path: Path, target: Target, status: int | None) -> None:
    """Its error is the answer, and 502 if it cannot be reached; exit 1."""
    target.status = status or 200
    url_of_nobody = "http://127.0.0.1:1/hook"
    words = ("--forward-to", target.url if status else url_of_nobody, "--count", "1")
    with listening(*words, cwd=tmp_path, env={}) as (process, url):
        answer = post(url)
        (said,) = lines(process)

    assert (answer, process.returncode) == (status or 502, 1)
    assert said["genuine"] is None
    assert (said["answer"], "cannot be reached" in (said["error"] or "")) == (status, status is None)


def test_large_and_packed_bodies_are_refused(tmp_path: Path) -> None:
    """413 and 415, and neither counts as a callback."""
    with listening(cwd=tmp_path, env={}) as (process, url):
        answers = [post(url, b"x" * 70_000), post(url, b"x", {"Content-Encoding": "gzip"}), post(url)]
        process.send_signal(signal.SIGINT)
        said = lines(process)

    assert (answers, process.returncode, len(said)) == ([413, 415, 200], 0, 1)


@pytest.mark.skipif(os.name == "nt", reason="signals are another thing there")
def test_a_person_reads_a_line_for_each(tmp_path: Path) -> None:
    """Without --json: what came, in words; control characters of strangers do not reach the terminal; Ctrl-C is the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*COMMAND, "webhook", "listen", "--port", str(port)],
        cwd=tmp_path,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    talk = process.stderr.readline()
    post(f"http://127.0.0.1:{port}")
    post(f"http://127.0.0.1:{port}", b'{"task_id": "\\u001b[2J", "task_status": "failed"}')
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)

    assert "not verified, as KLING_WEBHOOK_SECRET is not set" in talk
    assert [line.split()[1:] for line in out.splitlines()] == [
        ["unsigned", "8666", "succeed"],
        ["unsigned", "?[2J", "failed"],
    ]
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "env", "told"),
    [
        (["--host", "203.0.113.7", "--port", "0"], {}, "choose another --port or --host"),
        ([], {"KLING_WEBHOOK_SECRET": "no secret"}, "whsec_<base64>"),
    ],
)
def test_what_cannot_work_is_exit_3(tmp_path: Path, words: list[str], env: dict[str, str], told: str) -> None:
    """With what was expected, what was found and what to do."""
    said = call("webhook", "listen", *words, cwd=tmp_path, env=env)

    assert said.code == 3
    assert told in said.err


def test_the_emulators_callbacks_arrive(folder: Path, target: Target, signing_service: Any) -> None:
    """A signed task of the emulator is followed from create to end; the secret may stand in .env."""
    words = ("--forward-to", target.url, "--count", "3")
    (folder / ".env").write_text(f"KLING_WEBHOOK_SECRET={SECRET}\n", encoding="utf-8")
    with listening(*words, cwd=folder, env={}) as (process, url):
        made = call(
            "create", "-s", "a.png", "--callback-url", url, "--json", cwd=folder, env=signing_service.env
        )
        said = lines(process)

    assert made.code == 0
    assert process.returncode == 0
    assert [one["status"] for one in said] == ["submitted", "processing", "succeed"]
    assert {one["task_id"] for one in said} == {made.json()["task_id"]}
    assert len(target.got) == 3
