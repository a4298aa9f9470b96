"""The pure parts: clock, intake, gate, pictures, settings, signatures, stamps."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from emulator_kit import base64_text, picture

import kling_async.emulator as package
from kling_async.emulator import EmulatedAccount, Emulator, EmulatorSettings, Faults
from kling_async.emulator.auth import Gate
from kling_async.emulator.clock import Clock
from kling_async.emulator.intake import LongText, decode_base64, parse
from kling_async.emulator.pages import Pages
from kling_async.emulator.pictures import BAD_PIXELS, BAD_RATIO, UNSUPPORTED, Material, judge, scan
from kling_async.emulator.refusals import Refusal
from kling_async.emulator.settings import is_loopback
from kling_async.emulator.stamp import paint_stamp, ratio_size
from kling_async.errors import ConfigError
from kling_async.protocol.callbacks import sign

NOW = 1_800_000_000.0


class Hands:
    """Real time that is moved by hand."""

    def __init__(self) -> None:
        self.time = 50.0

    def __call__(self) -> float:
        return self.time


def clock(speed: float | str, hands: Hands, skew: float = 0.0) -> Clock:
    return Clock(speed, skew=skew, monotonic=hands, wall=lambda: NOW + hands.time - 50)


def test_emulated_time_passes_faster_and_stamps_do_not() -> None:
    """At speed 20 one real second is twenty emulated ones, and replies show it as the second that a client measures."""
    hands = Hands()
    time = clock(20, hands)

    hands.time += 1

    assert time.now() == NOW + 20
    assert time.stamp(time.now()) == (NOW + 1) * 1000
    assert time.wall() == NOW + 1
    assert time.delay(NOW + 40) == 1
    assert time.delay(NOW) == 0


def test_a_leap_shows_in_full() -> None:
    """advance() moves emulated time and stamps by the same seconds, tokens' time by none."""
    hands = Hands()
    time = clock(20, hands)
    hands.time += 1

    time.advance(100)
    hands.time += 1

    assert time.now() == NOW + 20 + 100 + 20
    assert time.stamp(time.now()) == (NOW + 102) * 1000
    assert time.stamp(NOW + 119) == (NOW + 100) * 1000
    assert time.wall() == NOW + 2


def test_manual_time_stands_still() -> None:
    """In manual mode only advance() moves time, and nothing is ever due by itself."""
    hands = Hands()
    time = clock("manual", hands)
    hands.time += 7

    time.advance(24)

    assert time.now() == NOW + 24
    assert time.stamp(NOW + 24) == (NOW + 24) * 1000
    assert time.delay(NOW + 99) is None
    assert "manual" in repr(time)


def test_a_skewed_clock_shows_in_stamps_and_tokens() -> None:
    """The skew moves what the service says of time, not how its tasks go."""
    time = clock("instant", Hands(), skew=600)

    assert time.wall() == NOW + 600
    assert time.stamp(NOW) == (NOW + 600) * 1000
    assert time.now() == NOW
    assert "instant" in repr(time)
    assert "20x" in repr(clock(20, Hands()))


def test_long_strings_are_lifted_out_of_a_body() -> None:
    """A big body is read as JSON reads it, its long plain strings as LongText, in objects and in lists."""
    long = base64_text(bytes(range(256)) * 600)
    value = {
        "a": [{"subject_image": long}],
        "b": 'short "quoted" \\',
        "c": "é" * 40_000,
        "d": "x\\" * 40_000,
        "e": None,
    }

    found = parse(json.dumps(value, ensure_ascii=False).encode())

    assert decode_base64(found["a"][0]["subject_image"]) == bytes(range(256)) * 600
    assert str(found["c"]) == value["c"]
    assert (found["b"], found["d"], found["e"]) == (value["b"], value["d"], None)
    assert "204800 bytes" in repr(found["a"][0]["subject_image"])


@pytest.mark.parametrize("tail", [b"", b'"', b'"x', b"}"])
def test_a_broken_body_is_refused(tail: bytes) -> None:
    """Text that is no JSON is refused as such, small or big."""
    for size in (10, 200_000):
        with pytest.raises(Refusal) as caught:
            parse(b'{"a":"' + b"y" * size + tail)
        assert caught.value.code == 1200


@pytest.mark.parametrize("text", [b"[]", b"3", b"[" * 100_000])
def test_a_body_must_be_an_object(text: bytes) -> None:
    """A list, a number or a bottomless nest of lists is refused."""
    with pytest.raises(Refusal) as caught:
        parse(text)

    assert caught.value.code == 1200


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64,aGVsbG8=",
        "aGVs\nbG8=",
        "aGVsbG8",
        "-_-_",
        "aGVsbG8=aGVsbG8=",
        "café",
        "=",
        "A" * 262_143 + "=" + "AAAA",
    ],
)
def test_only_raw_base64_is_taken(text: str) -> None:
    """A prefix, line breaks, another alphabet, wrong padding: all the text that was seen live."""
    with pytest.raises(Refusal) as caught:
        decode_base64(text)

    assert caught.value.message == "File is not in a valid base64 format"


def test_base64_is_decoded_in_pieces_without_a_seam() -> None:
    """A text longer than a piece decodes to the same bytes."""
    data = bytes(range(251)) * 4000

    assert decode_base64(LongText(base64.b64encode(data))) == data


ACCOUNT = EmulatedAccount()


def token(algorithm: str = "HS256", secret: str = ACCOUNT.secret_key, **claims: Any) -> str:
    usual = {"iss": ACCOUNT.access_key, "exp": NOW + 1800, "nbf": NOW - 5}
    return jwt.encode(
        {key: value for key, value in (usual | claims).items() if value is not ...}, secret, algorithm
    )


def test_a_good_token_and_a_key_are_admitted() -> None:
    """A signed token and the plain key both stand for the account, a token again and again while it lasts."""
    gate, text = Gate([ACCOUNT]), token()

    assert gate.admit(f"Bearer {ACCOUNT.api_key}", NOW) is ACCOUNT
    assert gate.admit(f"Bearer {text}", NOW) is ACCOUNT
    assert gate.admit(f"Bearer {text}", NOW + 1799) is ACCOUNT
    with pytest.raises(Refusal) as caught:
        gate.admit(f"Bearer {text}", NOW + 1800)
    assert caught.value.code == 1004


@pytest.mark.parametrize(
    ("header", "code", "words"),
    [
        (None, 1001, "empty"),
        ("  ", 1001, "empty"),
        ("Basic abc", 1000, ""),
        ("Bearer ", 1000, ""),
        ("Bearer  two-blanks", 1000, ""),
        ("Bearer garbage", 1002, "3 parts, but got 0"),
        ("Bearer a.b", 1002, "3 parts, but got 2"),
        ("Bearer a.b.c.d", 1002, "3 parts, but got > 3"),
        ("Bearer a.b.c", 1002, "invalid"),
        (f"Bearer {token(secret='x' * 40)}", 1002, "invalid"),
        (f"Bearer {token(iss='somebody')}", 1002, "invalid"),
        (f"Bearer {token(exp=...)}", 1002, "invalid"),
        (f"Bearer {token('HS384', ACCOUNT.secret_key + 'x' * 20)}", 1002, "invalid"),
        (f"Bearer {token(nbf=NOW + 60)}", 1003, "not yet"),
        (f"Bearer {token(exp=NOW - 1)}", 1004, "expired"),
    ],
)
def test_bad_credentials_are_told_apart(header: str | None, code: int, words: str) -> None:
    """Each way to be wrong has the code of the vendor's table."""
    with pytest.raises(Refusal) as caught:
        Gate([ACCOUNT]).admit(header, NOW)

    assert (caught.value.code, caught.value.http_status) == (code, 401)
    assert words in caught.value.message


def test_the_gate_forgets_old_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that signs each request anew does not fill the memory."""
    monkeypatch.setattr("kling_async.emulator.auth._REMEMBERED", 3)
    gate = Gate([ACCOUNT])

    for number in range(10):
        gate.admit(f"Bearer {token(nbf=NOW - number)}", NOW)

    assert len(gate._seen) <= 3
    assert "1 accounts" in repr(gate)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_sizes_are_read_from_headers(kind: str) -> None:
    """Width and height of both formats, progressive and with an Exif block before the frame."""
    options: dict[str, Any] = (
        {"progressive": True, "exif": b"Exif\0\0" + bytes(900)} if kind == "JPEG" else {}
    )

    assert scan(picture(640, 333, kind, **options)) == (640, 333)


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (picture(300, 750), ""),
        (picture(300, 751), BAD_RATIO),
        (picture(299, 400), BAD_PIXELS),
        (picture(400, 299, "JPEG"), BAD_PIXELS),
        (picture(320, 320, "GIF"), UNSUPPORTED),
        (b"", UNSUPPORTED),
        (b"\x89PNG\r\n\x1a\n", UNSUPPORTED),
        (b"\xff\xd8\xff\xff\xff\xff\xff", UNSUPPORTED),
        (b"\xff\xd8\xff\xe0\x00\x10" + bytes(40), UNSUPPORTED),
    ],
)
def test_pictures_are_judged_by_the_seed(data: bytes, verdict: str) -> None:
    """Format, least side and ratio of the seed, with the texts that others have seen."""
    assert judge(data) == verdict


@pytest.mark.parametrize(
    ("ratio", "size"),
    [("16:9", (1280, 720)), ("9:16", (720, 1280)), ("1:1", (960, 960)), ("21:9", (1470, 630))],
)
def test_sizes_have_the_asked_ratio(ratio: str, size: tuple[int, int]) -> None:
    """About a megapixel, in exactly the ratio."""
    assert ratio_size(ratio, 921_600) == size


def test_a_stamp_is_a_real_png() -> None:
    """The tiny picture has a valid header, checksums and its mark, and depends on its seed."""
    one, other = paint_stamp("9:16", "a", "hello"), paint_stamp("9:16", "b", "hello")

    assert scan(one) == (36, 64)
    assert one != other
    assert b"tEXtkling-emulator\0hello" in one
    length = struct.unpack_from(">I", one, 8)[0]
    assert struct.unpack_from(">I", one, 16 + length)[0] == zlib.crc32(one[12 : 16 + length])


def test_the_vendors_signature_is_ours() -> None:
    """The vendor's own test vector comes out."""
    body = b'{"id":"1234567890","status":"succeeded","message":"","create_time":1781080778802,"update_time":1781080794151}'

    found = sign("whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=", "9876543210", 1781080794, body)

    assert found == "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4="


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64!"])
def test_a_bad_webhook_secret_is_told_and_not_shown(secret: str) -> None:
    """A secret that is none is a ConfigError that does not repeat it."""
    with pytest.raises(ConfigError) as caught:
        sign(secret, "1", 1, b"")

    assert "not base64!" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EmulatorSettings(speed="fast"), "expected a speed"),
        (lambda: EmulatorSettings(speed=0), "expected a speed"),
        (lambda: EmulatorSettings(speed=float("inf")), "expected a speed"),
        (lambda: EmulatorSettings(paint="oil"), "'composite' or 'stamp'"),
        (lambda: EmulatorSettings(dialect="pirate"), "expected dialect"),
        (lambda: EmulatorSettings(list_order="odd"), "expected list_order"),
        (lambda: EmulatorSettings(megapixels=40), "expected megapixels"),
        (lambda: EmulatorSettings(host="0.0.0.0"), "allow_remote"),
        (lambda: EmulatorSettings(slots=0), "at least one slot"),
        (lambda: EmulatorSettings(secret_key="short"), "32 bytes"),
        (lambda: EmulatorSettings(accounts=(ACCOUNT, ACCOUNT)), "different names"),
        (lambda: EmulatorSettings(faults="1303:5%,nonsense"), "nonsense"),
        (lambda: EmulatorSettings(webhook_secret="nonsense!"), "whsec_"),
        (lambda: Emulator(slotz=3), "slotz"),
        (lambda: Emulator(EmulatorSettings(), slots=3), "settings or options"),
    ],
)
def test_bad_settings_are_told_at_once(make: Callable[[], object], words: str) -> None:
    """What cannot work is a ConfigError when it is written down, with what was expected."""
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        make()


def test_settings_take_short_forms() -> None:
    """A speed as text and faults as text or values mean the same as their long forms; secrets stay out of the repr."""
    settings = EmulatorSettings(speed="20x", faults="1303:5%", host="::1")

    assert settings.speed == 20
    assert settings.faults == Faults.parse("1303:5%")
    assert settings.secret_key not in repr(settings)
    assert settings.api_key not in repr(settings)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.3.2.1", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("kling.ai", False),
        ("", False),
    ],
)
def test_loopback_is_known_without_asking(host: str, here: bool) -> None:  # noqa: FBT001 - a table column
    """Only names and numbers that mean this machine for certain count as it."""
    assert is_loopback(host) is here


def test_nothing_that_is_shown_tells_a_picture() -> None:
    """Materials and pages show what they are in a few words."""
    fit, unfit = Material("style", "0123456789abcdef", b"bytes"), Material("scene", "", trouble="x")

    assert (repr(fit), repr(unfit)) == ("<Material style 01234567>", "<Material scene  unfit>")
    assert "Emulator" in repr(Pages(Emulator(paint="stamp")))


def test_the_package_shows_its_names_and_no_others() -> None:
    """Public names load on use; another is an AttributeError."""
    assert set(dir(package)) >= {"Emulator", "EmulatorSettings", "Fault", "Faults", "serve"}
    assert callable(package.serve)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = package.Nothing
