"""
Faults as data: what shall go wrong, where, how often.

A `Fault` is a value; `Faults` a row of them. Which request is struck is decided by `Dice`, seeded, so that the
same requests in the same order meet the same faults. The first fault of the row that strikes wins its phase.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from random import Random
from types import MappingProxyType
from typing import Any

import attrs
from attrs import field, frozen

from kling_async.errors import ConfigError
from kling_async.protocol.codes import CODES

__all__ = ["ACTIONS", "Action", "Dice", "Fault", "Faults"]

_API = ("create", "get", "list", "costs")
_HTTP = (*_API, "result")
_READS = ("get", "list")


@frozen
class Action:
    """One kind of trouble: the *phase* of a request it belongs to, the *routes* it can hit, what it does."""

    phase: str
    routes: tuple[str, ...]
    meaning: str


ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        # Before anything of the request is read.
        "reset-before-reading": Action("early", _HTTP, "RST before the request is read"),
        # The request is read and then kept waiting; combines with any other fault.
        "delay": Action("wait", _HTTP, "the answer comes *seconds* (real ones) later"),
        # Nothing is accepted.
        "refuse": Action("before", _API, "the answer is *code*; nothing is accepted"),
        "reset": Action("before", _HTTP, "RST after the request was read; nothing is accepted"),
        "close": Action("before", _HTTP, "FIN without an answer; nothing is accepted"),
        "hang": Action("before", _HTTP, "no answer (or *seconds* of silence, then FIN); nothing is accepted"),
        "html-502": Action("before", _HTTP, "a gateway's HTML page with status 502; nothing is accepted"),
        # The task is made as usual and behaves badly.
        "fail-task": Action("task", ("create",), "the task ends as failed with *message*"),
        "stuck-task": Action("task", ("create",), "the task never ends and keeps its slots"),
        "slow-task": Action("task", ("create",), "the task takes *seconds* (emulated) longer"),
        "lookup-lag": Action(
            "lag", ("get",), "reads do not find the task until *seconds* (emulated) after its create"
        ),
        # The request is carried out, the answer is not what it should be.
        "refuse-after-accept": Action("after", ("create",), "the task is made and the answer is *code*"),
        "reset-after-accept": Action("after", ("create",), "the task is made, then RST"),
        "close-after-accept": Action("after", ("create",), "the task is made, then FIN without an answer"),
        "hang-after-accept": Action("after", ("create",), "the task is made and no answer comes"),
        "html-502-after-accept": Action(
            "after", ("create",), "the task is made and the answer is an HTML 502"
        ),
        "truncate": Action("after", _HTTP, "the answer breaks off in the middle of its body"),
        "slow-body": Action("after", _HTTP, "the answer drips, spread over *seconds* (real ones)"),
        "bad-json": Action("after", _API, "status 200 with half a JSON text of matching length"),
        "empty-body": Action("after", _API, "status 200 without a body"),
        "no-data": Action("after", _API, "code 0 without `data`"),
        # Lists that do not show what there is.
        "missing-rows": Action("rows", ("list",), "every third row is left out"),
        "duplicated-rows": Action(
            "rows", ("list",), "every third row comes twice, pushing others off the page"
        ),
        "shifted-rows": Action(
            "rows", ("list",), "the page begins one row late, as if a task had just been made"
        ),
        # Tasks that show another state than theirs.
        "backwards": Action("state", _READS, "an ended task shows as processing"),
        "unknown-status": Action("state", _READS, "the task shows the status `queued`"),
        "empty-images": Action("state", _READS, "a succeeded task shows no picture"),
        "fewer-images": Action("state", _READS, "a succeeded task shows one picture less"),
        # The result host.
        "expired-link": Action("picture", ("result",), "403, as if the link had expired"),
        "short-picture": Action("picture", ("result",), "the connection closes in the middle of the picture"),
        "cut-picture": Action("picture", ("result",), "half a picture, of matching length"),
        "html-picture": Action("picture", ("result",), "an HTML page with status 200"),
        # Callbacks.
        "duplicate-callback": Action("callback", ("callback",), "the callback comes twice, with the same id"),
        "late-callback": Action("callback", ("callback",), "the callback comes *seconds* (emulated) late"),
        "reordered-callback": Action(
            "callback", ("callback",), "the callback is sent after the next one of its task"
        ),
        "forged-callback": Action(
            "callback", ("callback",), "a second, wrongly signed one claims another result"
        ),
        "lost-callback": Action("callback", ("callback",), "the callback never comes"),
    }
)

_WITH_CODE = {"refuse", "refuse-after-accept"}


@frozen(kw_only=True)
class Fault:
    """
    One thing that goes wrong.

    *route* is create, get, list, costs, result or callback (None: where the action usually belongs, `*`: everywhere it
    can). Of the requests that match, the first *after* are spared, then each is struck with *probability*,
    at most *times* times. *match_external_id* is a pattern such as `demo-*`. *retry_after* becomes the header of a refusal.
    """

    action: str
    route: str | None = None
    code: int | None = None
    seconds: float | None = None
    message: str = ""
    probability: float = 1.0
    times: int | None = None
    after: int = 0
    match_external_id: str | None = None
    retry_after: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ConfigError(f"expected a fault action ({', '.join(ACTIONS)}), found {self.action!r}")
        allowed = ACTIONS[self.action].routes
        if self.route not in {None, "*", *allowed}:
            raise ConfigError(
                f"expected a route of {self.action} ({', '.join(allowed)} or *), found {self.route!r}"
            )
        if (self.action in _WITH_CODE) != (self.code is not None):
            wanted = "a code such as 1303" if self.action in _WITH_CODE else "no code"
            raise ConfigError(f"expected {wanted} with the fault {self.action}, found {self.code!r}")
        if not 0 <= self.probability <= 1:
            raise ConfigError(f"expected a probability from 0 to 1 (5% is 0.05), found {self.probability!r}")

    @classmethod
    def from_row(cls, row: object) -> Fault:
        """Read a fault from a JSON object with the names of the fields; ConfigError tells what is wrong with it."""
        names = [each.name for each in attrs.fields(cls)]
        if not isinstance(row, Mapping) or not set(row) <= set(names) or "action" not in row:
            raise ConfigError(
                f"expected an object with 'action' and some of {', '.join(names[1:])}, found {row!r}"
            )
        try:
            return cls(**row)
        except TypeError as error:
            raise ConfigError(
                f"expected numbers and texts in their places in a fault, found {row!r}"
            ) from error

    def row(self) -> dict[str, Any]:
        """Return the fault as a JSON object, without what is left at its default."""
        return attrs.asdict(self, filter=lambda each, value: value != each.default)

    def covers(self, route: str, external_task_id: str) -> bool:
        """Tell whether a request to *route* about *external_task_id* is one that this fault may strike."""
        routes = ACTIONS[self.action].routes
        chosen = routes if self.route == "*" else (self.route or routes[0],)
        pattern = self.match_external_id
        return route in chosen and (pattern is None or fnmatchcase(external_task_id, pattern))


def _row(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    return tuple(faults)


@frozen
class Faults:
    """A row of faults: `Faults([Fault(...), ...])`, `Faults.parse("1303:5%")`, joined with `+`."""

    rows: tuple[Fault, ...] = field(default=(), converter=_row)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __add__(self, other: Iterable[Fault]) -> Faults:
        return Faults((*self.rows, *other))

    @classmethod
    def parse(cls, text: str) -> Faults:
        """
        Read `NAME[@ROUTE][=SECONDS][:5%|:0.05|:x3]`, comma-separated, as `--chaos` takes it.

        NAME is an action, a code (`1303`: refused), a code with `-but-created` (refused, yet accepted) or one of
        the short names drop-before-accept, drop-after-accept, fin-after-accept, html-502-but-created, dup-callback.
        A percentage strikes at random, `x3` the first three times, nothing at all always.
        """
        parts = [part.strip() for part in text.split(",")]
        return cls(_parse_one(part) for part in parts if part)

    @classmethod
    def of(cls, value: Faults | str | Iterable[Fault]) -> Faults:
        """Take faults however they are written: as themselves, as a text for *parse()*, as single ones."""
        if isinstance(value, str):
            return cls.parse(value)
        return value if isinstance(value, Faults) else cls(value)


_SHORT = {
    "drop-before-accept": "reset",
    "drop-after-accept": "reset-after-accept",
    "fin-after-accept": "close-after-accept",
    "html-502-but-created": "html-502-after-accept",
    "dup-callback": "duplicate-callback",
}
_SPEC = re.compile(
    r"(?P<name>[a-z0-9-]+)(?:@(?P<route>[a-z*]+))?(?:=(?P<seconds>\d+(?:\.\d+)?)s?)?"
    r"(?::(?:(?P<percent>\d+(?:\.\d+)?)%|x(?P<times>\d+)|(?P<share>[01](?:\.\d+)?)))?"
)
_CODED = re.compile(r"(\d{4})(-but-created)?")


def _parse_one(text: str) -> Fault:
    found = _SPEC.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"expected NAME[@ROUTE][=SECONDS][:5%|:x3] such as 1303:5% or delay@get=2:10%, found {text!r}"
        )
    name, options = found["name"], _options(found)
    if coded := _CODED.fullmatch(name):
        code = int(coded[1])
        if code not in CODES:
            raise ConfigError(
                f"expected a code of the service ({', '.join(map(str, CODES))}), found {code} in {text!r}"
            )
        return Fault(action="refuse-after-accept" if coded[2] else "refuse", code=code, **options)
    action = _SHORT.get(name, name)
    if action not in ACTIONS or action in _WITH_CODE:
        known = ", ".join(
            ["CODE", "CODE-but-created", *_SHORT, *(each for each in ACTIONS if each not in _WITH_CODE)]
        )
        raise ConfigError(f"expected one of {known}, found {name!r} in {text!r}")
    return Fault(action=action, **options)


def _options(found: re.Match[str]) -> dict[str, Any]:
    options: dict[str, Any] = {"route": found["route"]}
    if found["seconds"]:
        options["seconds"] = float(found["seconds"])
    if found["times"]:
        options["times"] = int(found["times"])
    if found["percent"]:
        options["probability"] = float(found["percent"]) / 100
    if found["share"]:
        options["probability"] = float(found["share"])
    return options


class Dice:
    """Decides which requests are struck: seeded, with the counts of what each fault has met and hit."""

    def __init__(self, faults: Faults, seed: int = 0) -> None:
        self.faults = faults
        # A generator for each fault: adding one does not change whom the others strike.
        self._random = [Random(f"{seed}:{number}:{fault.action}") for number, fault in enumerate(faults)]
        self._met = [0] * len(faults)
        self.hits = [0] * len(faults)
        self._phases = {ACTIONS[fault.action].phase for fault in faults}

    def __repr__(self) -> str:
        return f"<Dice of {len(self.faults)} faults, {sum(self.hits)} hits>"

    def strike(self, phase: str, route: str, external_task_id: str = "") -> Fault | None:
        """Return the fault that strikes this request in this phase, if any, and count it."""
        if phase not in self._phases:
            return None
        for number, fault in enumerate(self.faults):
            if (
                ACTIONS[fault.action].phase == phase
                and fault.covers(route, external_task_id)
                and self._hits(number, fault)
            ):
                return fault
        return None

    def _hits(self, number: int, fault: Fault) -> bool:
        self._met[number] += 1
        spent = fault.times is not None and self.hits[number] >= fault.times
        if spent or self._met[number] <= fault.after or self._random[number].random() >= fault.probability:
            return False
        self.hits[number] += 1
        return True
