"""`doctor` and `account`: what they find out, what they advise, what they never do."""

from __future__ import annotations

import os
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from attrs import evolve
from cli_kit import Said, call
from packaging.requirements import Requirement

from kling_async.cli.doctor import local, remote
from kling_async.cli.doctor.facts import Answer, Environment, Facts, Finding, Machine, Place
from kling_async.errors import AuthError, ConfigError, InArrears, NoSuchResource, ServerError, TransportError
from kling_async.protocol.packs import Pack

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
KEY = "a-plain-key-of-somebody"
PACK = Pack(
    name="Trial-Image-1000Units-9Con-1Months", status="online", total=Decimal(1000), remaining=Decimal(990)
)
MACHINE = Machine(
    python=(3, 12, 1),
    packages={**local.CORE, "click": "8.1"},
    open_files=1024,
    proxy=None,
    certificates="/etc/ssl/certs/ca.crt",
)
HEALTHY = Facts(
    environment=Environment(variables={"KLING_API_KEY": KEY}),
    address="https://api.example",
    address_trouble=None,
    answer=Answer(packs=(PACK,), seconds=0.2, service_time=1000.0, our_time=1000.4),
    machine=MACHINE,
    place=Place(shown="out", kind="ext4", free=50 << 30),
)


def examine(facts: Facts) -> list[Finding]:
    """All findings about *facts*."""
    return [finding for check in (*remote.CHECKS, *local.CHECKS) for finding in check(facts)]


def troubles(facts: Facts) -> list[tuple[str, str, int]]:
    """What is not ok: check, level, exit code."""
    return [(each.check, each.level, each.exit_code) for each in examine(facts) if each.level != "ok"]


def with_variables(**variables: str) -> Facts:
    return evolve(HEALTHY, environment=Environment(variables=variables))


def with_answer(**answer: Any) -> Facts:
    assert HEALTHY.answer is not None
    return evolve(HEALTHY, answer=evolve(HEALTHY.answer, **answer))


def with_machine(**machine: Any) -> Facts:
    return evolve(HEALTHY, machine=evolve(MACHINE, **machine))


def with_place(**place: Any) -> Facts:
    return evolve(HEALTHY, place=Place(shown="out", **place))


def test_nothing_is_wrong_with_a_healthy_setup() -> None:
    """Each thing looked at has a line, and the key is in none of them."""
    findings = examine(HEALTHY)

    assert troubles(HEALTHY) == []
    assert {
        "credentials",
        "address",
        "service",
        "clock",
        "account",
        "open files",
        "output",
        "python",
        "aiohttp",
    } <= {finding.check for finding in findings}
    assert any("9 slots" in finding.found for finding in findings)
    assert KEY not in str(findings)


TOKEN = jwt.encode({"iss": "a", "exp": 2000}, "s" * 32, algorithm="HS256")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (with_variables(), [("credentials", "failed", 3)]),
        (with_variables(KLING_ACCESS_KEY="half"), [("credentials", "failed", 3)]),
        (with_variables(KLING_API_KEY=TOKEN), [("credentials", "warning", 0)]),
        (with_variables(KLING_API_KEY="a.b.c"), []),
        (with_variables(KLING_API_KEY=KEY, KLING_SECRET_KEY="s"), [("credentials", "warning", 0)]),
        (with_variables(KLING_API_KEY=KEY, ACCESS_TOKEN="x"), [("variables", "warning", 0)]),
        (
            evolve(HEALTHY, address=None, answer=None, address_trouble=ConfigError("x")),
            [("address", "failed", 3)],
        ),
        (with_machine(certificates=""), [("certificates", "warning", 0)]),
        (evolve(HEALTHY, answer=Answer(error=TransportError("gone"))), [("service", "failed", 5)]),
        (evolve(HEALTHY, answer=Answer(error=ConfigError("the certificate"))), [("service", "failed", 3)]),
        (with_answer(our_time=1060.0), [("clock", "warning", 0)]),
        (with_answer(service_time=None), []),
        (with_answer(error=AuthError("no", 1000)), [("account", "failed", 3)]),
        (with_answer(error=InArrears("no", 1101)), [("account", "failed", 4)]),
        (with_answer(error=ServerError("no", 5000)), [("account", "failed", 5)]),
        (with_answer(error=NoSuchResource("no", 1202)), [("account", "warning", 0)]),
        (with_answer(error=NoSuchResource("a page", 0, 404)), [("service", "failed", 3)]),
        (with_answer(error=ServerError("a page", 0, 502)), [("account", "failed", 5)]),
        (with_answer(packs=()), [("account", "warning", 0)]),
        (
            with_answer(packs=(evolve(PACK, status="expired"),)),
            [("account", "warning", 0), ("account", "warning", 0)],
        ),
        (with_machine(open_files=64), [("open files", "warning", 0)]),
        (with_machine(open_files=None), []),
        (with_place(trouble="no room"), [("output", "failed", 3)]),
        (with_place(wal="disk I/O error"), [("output", "failed", 3)]),
        (with_place(kind="nfs4"), [("output", "warning", 0)]),
        (with_place(free=1000), [("output", "warning", 0)]),
        (with_machine(python=(3, 10, 0)), [("python", "failed", 3)]),
        (
            with_machine(packages={**local.CORE, "anyio": None, "attrs": "23.9.1"}),
            [("anyio", "failed", 3), ("attrs", "failed", 3)],
        ),
    ],
)
def test_each_trouble_is_told_with_what_to_do(facts: Facts, expected: list[tuple[str, str, int]]) -> None:
    """Its level, its exit code, and a remedy or an error that has one in its words."""
    assert troubles(facts) == expected
    for finding in examine(facts):
        if finding.level == "warning" and not finding.found.startswith("Trial"):
            assert finding.remedy


def test_a_finished_token_is_told_with_its_end() -> None:
    """A JWT in place of a key works until it ends, and then nothing does."""
    (found,) = (each for each in examine(with_variables(KLING_API_KEY=TOKEN)) if each.level == "warning")

    assert "KLING_API_KEY holds a finished token (JWT), which ends at 1970-01-01 00:33 UTC" in found.found
    assert "KLING_ACCESS_KEY and KLING_SECRET_KEY" in found.remedy


def test_a_missing_extra_is_told_with_its_command() -> None:
    """It is a choice and no fault."""
    found = {each.check: each for each in examine(HEALTHY)}

    assert found["extra redis"].level == "ok"
    assert found["extra redis"].found == 'optional, not installed: redis (pip install "kling-async[redis]")'
    assert found["extra redis"].remedy == ""
    assert found["extra cli"].found.startswith("click 8.1; optional, not installed: jinja2")


def test_units_are_told_as_people_write_them() -> None:
    """Without the decimals that the service sends, and with those that mean something."""
    packs = [
        evolve(PACK, total=Decimal("1000000.0"), remaining=Decimal(left)) for left in ("1000000.0", "983.5")
    ]

    found = [
        next(each.found for each in examine(with_answer(packs=(pack,))) if each.check == "account")
        for pack in packs
    ]

    assert "1,000,000 of 1,000,000 units left" in found[0]
    assert "983.5 of 1,000,000 units left" in found[1]


def test_the_packages_are_those_of_the_project() -> None:
    """With their lowest versions, and no extra is forgotten."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    core = [Requirement(text) for text in project["dependencies"]]
    extras = {
        extra: tuple(sorted(Requirement(text).name for text in texts))
        for extra, texts in project["optional-dependencies"].items()
    }

    assert {each.name: str(each.specifier).removeprefix(">=") for each in core} == local.CORE
    assert {extra: tuple(sorted(names)) for extra, names in local.EXTRAS.items()} == extras


def doctor(folder: Path, env: Mapping[str, str], *words: str) -> Said:
    said = call("doctor", *words, cwd=folder, env=env)
    assert "Traceback" not in said.err
    return said


def level_of(said: Said, check: str) -> str:
    return next(line.split()[0] for line in said.out.splitlines() if line[9:].startswith(check))


def test_doctor_on_a_service_that_works(folder: Path, service: Any) -> None:
    """Exit 0; one request, which costs nothing; the key is nowhere; nothing is left in the folder."""
    before = sorted(folder.iterdir())

    said = doctor(folder, service.env, "-o", "new/out")

    assert said.code == 0, said.out
    assert (len(service.emulator.requests), service.creates) == (1, 0)
    assert "API key from KLING_API_KEY (environment), fingerprint " in said.out
    assert "9 slots, from the names of the packs" in said.out
    assert "which is not there yet and can be made" in said.out
    assert service.emulator.api_key not in said.out + said.err
    assert sorted(folder.iterdir()) == before


def test_doctor_reads_the_file_that_commands_read(folder: Path, service: Any) -> None:
    """And says that a credential comes from there."""
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in service.env.items()))

    said = doctor(folder, {})

    assert said.code == 0, said.out
    assert "from KLING_API_KEY (.env)" in said.out


def test_doctor_without_credentials_and_network(folder: Path) -> None:
    """Both are told, and the one that can be mended here decides the exit code."""
    nothing = doctor(folder, {"KLING_BASE_URL": "http://127.0.0.1:9"})
    no_network = doctor(folder, {"KLING_BASE_URL": "http://127.0.0.1:9", "KLING_API_KEY": KEY})

    assert (nothing.code, no_network.code) == (3, 5)
    assert level_of(nothing, "credentials") == level_of(nothing, "service") == "failed"
    assert KEY not in no_network.out


def test_doctor_at_an_address_that_is_not_klings(folder: Path) -> None:
    """A web server that knows no such page is no service that answers, and there is nothing to say of an account."""
    with no_kling() as address:
        said = doctor(folder, {"KLING_BASE_URL": address, "KLING_API_KEY": KEY})

    assert said.code == 3
    assert level_of(said, "service") == "failed"
    assert "expected Kling's API, found something else" in said.out
    assert "correct KLING_BASE_URL" in said.out
    assert not any(line[9:].startswith("account") for line in said.out.splitlines())


@contextmanager
def no_kling() -> Iterator[str]:
    """Serve a page that says 404, and give its address."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_doctor_without_credentials_still_reaches_the_service(folder: Path, service: Any) -> None:
    """Whoever answers with a refusal is there."""
    said = doctor(folder, {"KLING_BASE_URL": service.emulator.url})

    assert said.code == 3
    assert level_of(said, "service") == level_of(said, "clock") == "ok"


@pytest.mark.parametrize(
    ("env", "code", "told"),
    [
        ({"KLING_API_KEY": "another-key-altogether"}, 3, "code 100"),
        ({"KLING_SLOTS": "many"}, 3, "slots: expected"),
        ({"KLING_REGION": "mars", "KLING_BASE_URL": ""}, 3, "region: expected"),
        ({"KLING_ACCESS_KEY_ID": "x", "ACCESS_KEY": "y"}, 0, "KLING_ACCESS_KEY_ID, ACCESS_KEY"),
        ({"http_proxy": "http://user:geheim@127.0.0.1:9"}, 5, "http://***@127.0.0.1:9"),
    ],
)
def test_doctor_on_what_is_set_wrongly(
    folder: Path, service: Any, env: dict[str, str], code: int, told: str
) -> None:
    """Named, without secrets."""
    said = doctor(folder, {**service.env, "no_proxy": "", **env})

    assert said.code == code, said.out
    assert told in said.out
    assert "geheim" not in said.out + said.err


@pytest.mark.skipif(os.name == "nt", reason="folders are protected in another way there")
@pytest.mark.parametrize("place", ["file/out", "x" * 300], ids=["file in the way", "name too long"])
def test_doctor_on_a_place_that_cannot_be_written_to(folder: Path, service: Any, place: str) -> None:
    """Exit 3, and the trouble is told in its line."""
    (folder / "file").write_text("")

    said = doctor(folder, service.env, "-o", place)

    assert said.code == 3
    assert level_of(said, "output") == "failed"


def test_account_shows_packs_and_slots(folder: Path, service: Any) -> None:
    """Units left, status, times; the slots that a run will use."""
    said = call("account", cwd=folder, env=service.env)
    data = call("account", "--json", cwd=folder, env=service.env).json()

    (pack,) = data["packs"]
    year = time.strftime("%Y-", time.gmtime())
    assert said.code == 0
    assert "online" in said.out
    assert "1,000,000/1,000,000 units" in said.out
    assert year in said.out
    assert "9 slots, by the name of an online pack for images" in said.err
    assert (data["slots"], pack["slots"], pack["total"]) == (9, 9, 1_000_000)
    assert pack["effective_at"] < pack["invalid_at"]
