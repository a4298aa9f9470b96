"""Credentials and tokens."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async.errors import AuthError, ConfigError
from kling_async.protocol.auth import (
    ApiKey,
    KeyPair,
    Sealed,
    Signer,
    credentials_from,
    credentials_from_env,
    fingerprint,
    name_credentials,
)

SECRET = "0123456789abcdef0123456789abcdef"
PAIR = KeyPair("AKxxxxxxxxxxxxxxxxxx42", SECRET)
WALL = 1_766_737_710.75


def claims(token: str) -> dict[str, Any]:
    """Read a token as the service does, its times apart."""
    unchecked: Any = {"verify_exp": False, "verify_nbf": False}
    found: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"], options=unchecked)
    return found


# Where credentials come from.


def test_arguments() -> None:
    """An API key, a pair, or nothing; blanks around them, as copied from a page, are taken off."""
    assert credentials_from() is None
    assert credentials_from(api_key=" key\n") == ApiKey("key")
    assert credentials_from(access_key="a ", secret_key="\ts") == KeyPair("a", "s")


@pytest.mark.parametrize(
    ("given_keys", "message"),
    [
        ({"access_key": "a"}, "found only access_key; give secret_key too"),
        ({"secret_key": "s"}, "found only secret_key; give access_key too"),
        ({"api_key": "k", "access_key": "a"}, "found both"),
        ({"api_key": "k", "secret_key": "s"}, "found both"),
        ({"api_key": "k", "access_key": "a", "secret_key": "s"}, "found both"),
        ({"api_key": ""}, "api_key: expected"),
        ({"api_key": "  "}, "api_key: expected"),
        ({"api_key": "Bearer key"}, "api_key: expected"),
        ({"api_key": "schlüssel"}, "api_key: expected"),
        ({"api_key": "k\x00y"}, "api_key: expected"),
        ({"access_key": "a", "secret_key": "se cret"}, "secret_key: expected"),
        ({"access_key": "a\nb", "secret_key": "s"}, "access_key: expected"),
    ],
)
def test_arguments_that_cannot_work(given_keys: dict[str, str], message: str) -> None:
    """Half a pair names its missing half, and a key that was copied badly names itself but not its text."""
    with pytest.raises(ConfigError, match=message) as caught:
        credentials_from(**given_keys)

    assert "cret" not in str(caught.value).replace("secret_key", "")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"KLING_API_KEY": "k"}, ApiKey("k")),
        ({"KLINGAI_API_KEY": "k"}, ApiKey("k")),
        ({"KLING_ACCESS_KEY": "a", "KLING_SECRET_KEY": "s"}, KeyPair("a", "s")),
        ({"KLINGAI_ACCESS_KEY": "a", "KLINGAI_SECRET_KEY": "s"}, KeyPair("a", "s")),
        ({"KLING_API_KEY": "k", "KLING_ACCESS_KEY": "a", "KLING_SECRET_KEY": "s"}, ApiKey("k")),
        ({"KLING_API_KEY": "k", "KLINGAI_API_KEY": "other"}, ApiKey("k")),
        ({"KLING_ACCESS_KEY": "a", "KLING_SECRET_KEY": "s", "KLINGAI_API_KEY": "k"}, KeyPair("a", "s")),
        ({"KLING_API_KEY": "", "KLINGAI_API_KEY": "k"}, ApiKey("k")),
        ({"KLING_ACCESS_KEY": "", "KLING_SECRET_KEY": "", "KLINGAI_API_KEY": "k"}, ApiKey("k")),
    ],
)
def test_the_environment_in_its_order(env: dict[str, str], expected: ApiKey | KeyPair) -> None:
    """KLING_ comes before KLINGAI_, an API key before a pair; an empty variable is not set."""
    assert credentials_from_env(env) == expected


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({}, "expected KLING_API_KEY, or KLING_ACCESS_KEY and KLING_SECRET_KEY .* make a key at https://"),
        ({"KLING_ACCESS_KEY": "a"}, "set KLING_SECRET_KEY too"),
        ({"KLING_SECRET_KEY": "s"}, "set KLING_ACCESS_KEY too"),
        ({"KLINGAI_ACCESS_KEY": "a"}, "set KLINGAI_SECRET_KEY too"),
        ({"KLING_ACCESS_KEY": "a", "KLINGAI_SECRET_KEY": "s"}, "set KLING_SECRET_KEY too"),
        ({"KLING_API_KEY": "  "}, "KLING_API_KEY: expected"),
        ({"KLING_ACCESS_KEY": "a", "KLING_SECRET_KEY": "s s"}, "KLING_SECRET_KEY: expected"),
    ],
)
def test_environments_that_cannot_work(env: dict[str, str], message: str) -> None:
    """Each names the variable to set."""
    with pytest.raises(ConfigError, match=message):
        credentials_from_env(env)


def test_secrets_show_nowhere() -> None:
    """No repr or text of credentials or of their signer holds a secret or a token."""
    signer = Signer(PAIR)
    token = signer.token(0.0, WALL)
    shown = " ".join(
        str(form(value))
        for value in (PAIR, ApiKey(SECRET), signer, KeyPair("short", SECRET))
        for form in (repr, str)
    )

    assert SECRET not in shown
    assert token not in shown
    assert "AKx…42" in shown
    assert "AKxxxx" not in shown
    assert "short" not in shown


def test_credentials_are_values() -> None:
    """Credentials compare, pickle and copy."""
    for value in (PAIR, ApiKey("k")):
        assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value


# Tokens.


def test_a_token_is_what_the_vendors_sample_makes() -> None:
    """HS256, typ JWT, and the three claims: iss, exp half an hour ahead, nbf five seconds ago; nothing else."""
    token = Signer(PAIR).token(0.0, WALL)

    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert claims(token) == {"iss": PAIR.access_key, "exp": int(WALL) + 1800, "nbf": int(WALL) - 5}


def test_a_short_secret_warns_nobody() -> None:
    """The vendor chose the secret's length, so the JWT library's advice is kept back."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        assert Signer(KeyPair("a", "short")).token(0.0, WALL)


@pytest.mark.parametrize("key", ["", "  ", "\n"])
def test_an_empty_key_is_called_empty(key: str) -> None:
    """It is another mistake than a key with a blank inside, and has another remedy."""
    with pytest.raises(ConfigError, match="api_key: expected a key, found an empty one; leave it out"):
        credentials_from(api_key=key)


def test_refused_credentials_are_named_and_not_shown() -> None:
    """Which key it was and where it came from stand behind the remedy, once; no part of a key does."""
    key = credentials_from_env({"KLINGAI_API_KEY": "key-of-the-shop"})
    pair = credentials_from(access_key="AKxxxxxxxxxxxxxxxxxx42", secret_key=SECRET)
    told = []

    for credentials in (key, pair, ApiKey("another")):
        assert credentials is not None
        error = AuthError("no", 1000, 401, remedy="check the credentials")
        name_credentials(error, credentials)
        name_credentials(error, credentials)
        told.append(str(error))

    assert f"the API key from KLINGAI_API_KEY (fingerprint {fingerprint(key)[:8]}) was used" in told[0]
    assert "the access key and its secret key from access_key (fingerprint " in told[1]
    assert "the API key (fingerprint " in told[2]
    assert all(each.count("fingerprint") == 1 for each in told)
    assert not any(part in "".join(told) for part in ("shop", "AKxx", SECRET))


@pytest.mark.parametrize(("age", "same"), [(0.0, True), (1439.9, True), (1440.0, False), (5000.0, False)])
def test_a_token_is_renewed_at_four_fifths_of_its_life(age: float, same: bool) -> None:  # noqa: FBT001  # a table
    """Before 1440 of its 1800 seconds a token is used again, after them it is not (R7)."""
    signer = Signer(PAIR)
    first = signer.token(100.0, WALL)

    second = signer.token(100.0 + age, WALL + 2000)

    assert (second == first) is same


@given(st.lists(st.floats(0, 4000), max_size=30))
def test_no_token_is_ever_near_its_end(steps: list[float]) -> None:
    """However requests are spread over hours, each carries a token with a fifth of its life left."""
    signer, now = Signer(PAIR), 0.0

    for step in steps:
        now += step
        token = claims(signer.token(now, WALL + now))

        assert token["nbf"] < WALL + now
        assert token["exp"] - (WALL + now) > 359


def test_the_clock_of_the_service_counts() -> None:
    """A token refused for its time is made anew with the clock that the `Date` header told, and so are later ones."""
    signer = Signer(PAIR)
    refused = signer.token(0.0, WALL)

    renewed = signer.renew(refused, 1.0, WALL + 1, service_time=WALL + 601)
    second = signer.token(2.0, WALL + 2)
    third = signer.token(3000.0, WALL + 3000)

    assert renewed
    assert signer.offset == 600
    assert claims(second)["exp"] == int(WALL) + 2401
    assert claims(third)["exp"] == int(WALL) + 3000 + 600 + 1800


def test_without_a_date_the_old_offset_stays() -> None:
    """A refusal without `Date` teaches nothing about clocks but still makes a new token."""
    signer = Signer(PAIR)
    refused = signer.token(0.0, WALL)
    signer.renew(refused, 0.0, WALL, WALL - 50)
    second = signer.token(9.0, WALL)

    assert signer.renew(second, 10.0, WALL + 10, None)
    assert signer.offset == -50
    assert signer.token(10.0, WALL) != second


def test_a_hundred_complaints_make_one_renewal() -> None:
    """All who complain about one token get the one that replaced it (H12)."""
    signer = Signer(PAIR)
    refused = signer.token(0.0, WALL)

    tokens = set()
    for number in range(100):
        assert signer.renew(refused, 10.0 + number, WALL + 10 + number, WALL + 300 + number)
        tokens.add(signer.token(10.0 + number, WALL + 10 + number))

    assert len(tokens) == 1
    assert refused not in tokens


def test_an_api_key_cannot_be_renewed() -> None:
    """An API key is its own token for ever."""
    signer = Signer(ApiKey("key"))

    assert signer.token(0.0, WALL) == signer.token(9e9, WALL) == "key"
    assert not signer.renew("key", 0.0, WALL, WALL + 600)
    assert not signer.is_stale("key", 9e9)


def test_which_tokens_may_be_refused_for_their_age() -> None:
    """A token is stale when it was replaced or is older than five seconds; before the first one none is."""
    signer = Signer(PAIR)
    assert not signer.is_stale("none yet", 0.0)
    token = signer.token(100.0, WALL)

    assert not signer.is_stale(token, 105.0)
    assert signer.is_stale(token, 105.1)
    assert signer.is_stale("an older one", 100.0)


def test_what_is_sealed_shows_nothing() -> None:
    """Neither as text nor as repr does a sealed secret show, and it is no string that could be cut into pieces."""
    sealed = Sealed("a-key-that-nobody-may-see")

    assert "nobody" not in f"{sealed} {sealed!r}"
    assert not isinstance(sealed, str)
    assert sealed.text == "a-key-that-nobody-may-see"


def test_an_account_has_one_name_in_all_processes_and_it_shows_no_key() -> None:
    """Whoever uses the same key shares an account's slots; the name under which they do gives nothing away."""
    key, other = ApiKey("key-of-the-shop"), ApiKey("key-of-the-bakery")
    pair, same = KeyPair("access", "secret"), KeyPair("access", "renewed secret")

    assert fingerprint(key) == fingerprint(ApiKey("key-of-the-shop")) != fingerprint(other)
    assert fingerprint(pair) == fingerprint(same)
    assert "shop" not in fingerprint(key)
    assert len(fingerprint(key)) == 16
