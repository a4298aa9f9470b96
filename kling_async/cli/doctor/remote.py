"""What `doctor` says about credentials, the way to the service, and the account there; pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from kling_async.cli.doctor.facts import Answer, Facts, Finding, failed
from kling_async.cli.money import duration, plural
from kling_async.cli.voice import CONFIG
from kling_async.errors import (
    ApiError,
    ConfigError,
    KlingError,
    MalformedReply,
    NoSuchResource,
    RateLimited,
)
from kling_async.protocol.auth import ApiKey, Credentials, credentials_from_env, fingerprint
from kling_async.protocol.packs import Pack, slots_in

__all__ = ["CHECKS"]

# Names found in other programs for Kling, which this one does not read.
FOREIGN = ("KLING_ACCESS_KEY_ID", "ACCESSKEY_API", "ACCESS_KEY", "ACCESS_TOKEN")
_SOURCES = tuple(
    f"{prefix}_{name}" for prefix in ("KLING", "KLINGAI") for name in ("API_KEY", "ACCESS_KEY", "SECRET_KEY")
)
# The service allows a token five seconds of difference.
_SKEW = 5.0


def _credentials(facts: Facts) -> Iterator[Finding]:
    seen = facts.environment
    if seen.trouble is not None:
        yield failed("credentials", seen.trouble)
    try:
        credentials = credentials_from_env(seen.variables)
    except ConfigError as error:
        yield failed("credentials", error)
        return
    name, others = _used_and_unused(seen.variables, credentials)
    origin = ".env" if name in seen.from_file else "environment"
    kind = "API key" if isinstance(credentials, ApiKey) else "access key and secret key"
    told = f"{kind} from {name} ({origin}), fingerprint {fingerprint(credentials)[:8]}"
    yield Finding(check="credentials", level="ok", found=told)
    if others:
        yield Finding(
            check="credentials",
            level="warning",
            found=f"also set, and not used: {', '.join(others)}",
            remedy=f"{name} comes first; unset what you do not mean",
        )
    if isinstance(credentials, ApiKey):
        yield from _finished_token(name, credentials.key, facts)


def _used_and_unused(variables: Mapping[str, str], credentials: Credentials) -> tuple[str, list[str]]:
    given = [name for name in _SOURCES if variables.get(name)]
    words = ("API_KEY",) if isinstance(credentials, ApiKey) else ("ACCESS_KEY", "SECRET_KEY")
    used = next(name for name in given if name.endswith(words[0]))
    prefix = used.removesuffix(f"_{words[0]}")
    mine = {f"{prefix}_{word}" for word in words}
    return used, [name for name in given if name not in mine]


def _finished_token(name: str, key: str, facts: Facts) -> Iterator[Finding]:
    claims = _claims(key)
    if claims is None:
        return
    end = _end_of(key)
    now = facts.answer.our_time if facts.answer else 0.0
    when = "" if end is None else f", which {'ended' if end <= now else 'ends'} at {_utc(end)}"
    yield Finding(
        check="credentials",
        level="warning",
        found=f"{name} holds a finished token (JWT){when}",
        remedy="set KLING_ACCESS_KEY and KLING_SECRET_KEY, and tokens are made and renewed as needed",
    )


def _end_of(key: str) -> float | None:
    end = (_claims(key) or {}).get("exp")
    return float(end) if isinstance(end, int | float) and not isinstance(end, bool) else None


def _claims(key: str) -> dict[str, Any] | None:
    parts = key.split(".")
    if len(parts) != 3:
        return None
    try:
        header, claims = (
            json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2]
        )
    except ValueError:
        return None
    return claims if isinstance(header, dict) and isinstance(claims, dict) and "alg" in header else None


def _foreign_names(facts: Facts) -> Iterator[Finding]:
    found = [name for name in FOREIGN if facts.environment.variables.get(name)]
    if found:
        yield Finding(
            check="variables",
            level="warning",
            found=f"set but not read: {', '.join(found)}",
            remedy="if Kling's credentials are in there, call them KLING_API_KEY, or KLING_ACCESS_KEY and KLING_SECRET_KEY",
        )


def _address(facts: Facts) -> Iterator[Finding]:
    if facts.address_trouble is not None:
        yield failed("address", facts.address_trouble)
    if facts.address is not None:
        yield Finding(check="address", level="ok", found=facts.address)


def _proxy(facts: Facts) -> Iterator[Finding]:
    yield Finding(check="proxy", level="ok", found=facts.machine.proxy or "none")


def _certificates(facts: Facts) -> Iterator[Finding]:
    if facts.machine.certificates:
        yield Finding(check="certificates", level="ok", found=facts.machine.certificates)
    else:
        yield Finding(
            check="certificates",
            level="warning",
            found="no trusted certificates where Python looks for them",
            remedy="install ca-certificates, or set SSL_CERT_FILE",
        )


def _service(facts: Facts) -> Iterator[Finding]:
    answer = facts.answer
    if answer is None:
        return
    if answer.error is not None and (
        answer.seconds is None or isinstance(answer.error, MalformedReply | ConfigError)
    ):
        yield failed("service", answer.error, "see that the network, the proxy and the address are right")
        return
    if _is_no_kling(answer.error):
        yield Finding(
            check="service",
            level="failed",
            found=f"expected Kling's API, found something else at the address: {answer.error}",
            remedy="correct KLING_BASE_URL or --base-url, or leave it out for the region's own",
            exit_code=CONFIG,
        )
        return
    assert answer.seconds is not None, "where nobody answered there is an error"
    yield Finding(
        check="service",
        level="ok",
        found=f"answered after {answer.seconds * 1000:,.0f} ms, connecting included",
    )


def _clock(facts: Facts) -> Iterator[Finding]:
    answer = facts.answer
    if answer is None or answer.service_time is None:
        return
    # The service tells whole seconds.
    ahead = answer.our_time - answer.service_time
    if abs(ahead) <= _SKEW:
        yield Finding(check="clock", level="ok", found="agrees with the service's")
        return
    yield Finding(
        check="clock",
        level="warning",
        found=f"this machine's is {duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the service's",
        remedy="set it by NTP; a client corrects its tokens after the first refusal (1003, 1004)",
    )


def _account(facts: Facts) -> Iterator[Finding]:
    answer = facts.answer
    if answer is None or answer.seconds is None or not _has_credentials(facts):
        return
    error = answer.error
    if isinstance(error, MalformedReply | ConfigError) or _is_no_kling(error):
        return  # nothing of the account's
    if isinstance(error, RateLimited | NoSuchResource):
        yield Finding(
            check="account",
            level="warning",
            found=f"resource packs cannot be read now: {error}",
            remedy="slots are learned by trying; or set KLING_SLOTS",
        )
    elif error is not None:
        yield failed("account", error)
    else:
        yield from _packs(answer)


def _is_no_kling(error: KlingError | None) -> bool:
    """Tell whether whoever answered knows neither Kling's paths nor its codes; a busy gateway says something else."""
    return isinstance(error, ApiError) and not error.code and error.http_status in {400, 404, 405, 410}


def _packs(answer: Answer) -> Iterator[Finding]:
    for pack in answer.packs:
        alive = pack.status == "online" and not (pack.remaining is not None and pack.remaining <= 0)
        yield Finding(check="account", level="ok" if alive else "warning", found=_pack(pack))
    usable = [pack for pack in answer.packs if pack.status == "online" and pack.is_for_images]
    if not usable:
        yield Finding(
            check="account",
            level="warning",
            found="no online resource pack for images",
            remedy="without a pack or balance creates are refused with 1102; buy units where the key was made",
        )
        return
    slots = slots_in(answer.packs)
    told = (
        f"{plural(slots, 'slot')}, from the names of the packs"
        if slots
        else "slots in no pack's name: learned by trying"
    )
    yield Finding(check="account", level="ok", found=told)


def _pack(pack: Pack) -> str:
    units = (
        ""
        if pack.remaining is None or pack.total is None
        else f", {float(pack.remaining):,.10g} of {float(pack.total):,.10g} units left"
    )
    end = f", until {pack.invalid_at:%Y-%m-%d}" if pack.invalid_at else ""
    return f"{pack.name}: {pack.status or 'no status'}{units}{end}"


def _has_credentials(facts: Facts) -> bool:
    try:
        credentials_from_env(facts.environment.variables)
    except ConfigError:
        return False
    return True


def _utc(moment: float) -> str:
    try:
        return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return "a time that cannot be told"


# In the order in which troubles are best mended.
CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _credentials,
    _foreign_names,
    _address,
    _proxy,
    _certificates,
    _service,
    _clock,
    _account,
)
