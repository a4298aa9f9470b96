"""What errors of a call say: where nothing was sent, which key or model it was, and what was meant instead."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from socket_kit import Plain, answer, client, creates, job, reply

from kling_async import Kling, errors
from kling_async.emulator import Emulator

pytestmark = pytest.mark.anyio


def nowhere() -> str:
    """Return an address of this machine at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


@pytest.mark.parametrize("host", ["", "no-such-host.invalid"])
async def test_a_wrong_address_says_that_nothing_was_sent(host: str) -> None:
    """Refused or unknown, the error names the host once, why it cannot be reached in words, and what to check."""
    address = f"http://{host}" if host else nowhere()

    async with Kling(api_key="k", base_url=address, slots=1, max_retries=0, trust_env=False) as kling:
        with pytest.raises(errors.TransportError) as caught:
            _ = await kling.images.multi_image.create(job())

    told = str(caught.value)
    assert not caught.value.sent
    assert told.startswith(f"cannot connect to {address.removeprefix('http://')}")
    assert told.endswith("; nothing was sent: check the base URL, the network and any proxy")
    assert "Errno" not in told
    assert "('" not in told
    assert host or "(Connection refused)" in told


async def test_an_address_that_answers_404_says_so_once() -> None:
    """A page that is no answer of the service is told with its status, once, and what to check."""
    page = b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n<html>"

    async with Plain(lambda _: page) as server, client(server) as kling:
        with pytest.raises(errors.NoSuchResource) as caught:
            await kling.images.multi_image.retrieve("t-1")

    assert str(caught.value) == (
        "the request was refused (HTTP 404); it came without a code, as from a gateway: check the base URL and any proxy"
    )


async def test_a_refused_key_is_named() -> None:
    """The error tells where the key came from and its fingerprint, and never the key."""
    refusal = answer(None, code=1000, status=401)

    async with Plain(lambda _: refusal) as server, client(server, api_key="key-of-the-shop") as kling:
        with pytest.raises(errors.AuthError) as caught:
            _ = await kling.images.multi_image.create(job())

    assert "the API key from api_key (fingerprint " in str(caught.value)
    assert "shop" not in str(caught.value)


async def test_a_refused_model_is_named() -> None:
    """A refusal that speaks of the model gets the name that the job asked for."""
    body = {"code": 1201, "message": "model is not supported", "request_id": "r-1"}
    refusal = reply(400, json.dumps(body).encode())

    async with Plain(lambda _: refusal) as server, client(server) as kling:
        with pytest.raises(errors.BadRequest, match="the job asks for model_name 'kling-v9'"):
            _ = await kling.images.multi_image.create(job(model_name="kling-v9"))


@pytest.mark.parametrize(
    ("fields", "kind", "told"),
    [
        (
            {"timeout": 2},
            TypeError,
            r"run\(\): expected fields of MultiImage, found 'timeout'; .*wait_timeout=",
        ),
        ({"promt": "x"}, TypeError, "found 'promt'; did you mean 'prompt'?"),
        ({"wait_timeot": 3}, TypeError, "did you mean 'wait_timeout'?"),
        ({"zzz": 3}, TypeError, "found 'zzz'; leave it out, or put it into extra"),
        ({"prompt": "x", "subject_images": None}, errors.InvalidJob, "subject_images: expected"),
    ],
)
async def test_a_slip_in_a_call_is_told_in_its_terms(
    fields: dict[str, Any], kind: type[Exception], told: str
) -> None:
    """The error names the call and the name that was meant, and nothing is sent."""
    async with Emulator(paint="stamp") as emulator, client(emulator) as kling:
        with pytest.raises(kind, match=told):
            await kling.images.multi_image.run(**{"subject_images": ["a.png"], **fields})

    assert creates(emulator) == 0


async def test_a_job_is_given_once_and_as_a_job() -> None:
    """Fields beside a job would be passed over, and a dict is none; create() knows that it does not wait."""
    async with Emulator(paint="stamp") as emulator, client(emulator) as kling:
        loose: Any = kling.images.multi_image
        with pytest.raises(TypeError, match=r"found both \(prompt\)"):
            await loose.run(job(), prompt="another")
        with pytest.raises(TypeError, match=r"found a dict; give a dict of fields as \*\*fields"):
            await loose.create({"prompt": "x"})
        with pytest.raises(TypeError, match=r"create\(\) does not wait: give it to wait\(\)"):
            await loose.create(subject_images=["a.png"], timeout=3)
        with pytest.raises(errors.InvalidJob, match="subject_images: expected 1 to 4 pictures, found none"):
            await loose.create(prompt="x")

    assert creates(emulator) == 0


async def test_only_what_may_exist_is_named_in_a_note() -> None:
    """An id in the notes of an error is one to look for, so a job that was never sent or was refused has none."""
    async with Emulator(paint="stamp") as emulator, client(emulator) as kling:
        with pytest.raises(errors.InvalidJob) as invalid:
            _ = await kling.images.multi_image.create(subject_images=["none.png"])
        with pytest.raises(errors.ContentRefusal) as refused:
            _ = await kling.images.multi_image.create(job(prompt="[[refuse]]"))
        _ = await kling.images.multi_image.create(job(external_task_id="mine"))
        with pytest.raises(errors.DuplicateExternalId) as doubled:
            _ = await kling.images.multi_image.create(job(external_task_id="mine"))

    assert not hasattr(invalid.value, "__notes__")
    assert not hasattr(refused.value, "__notes__")
    assert doubled.value.__notes__ == ["external_task_id: mine"]
