"""
Conversations with the service, as lists of steps and what came of them.

The last part lets a service with random faults, drawn by Hypothesis, try to break the promise of `submit()`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias, TypeVar

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from kling_async import errors
from kling_async.protocol.bodies import Body
from kling_async.protocol.codec import Reply
from kling_async.protocol.flows import (
    Doubt,
    Flow,
    Look,
    Patience,
    Renew,
    Send,
    Step,
    Submission,
    Wait,
    ask,
    exchange,
    find,
    submit,
)
from kling_async.protocol.requests import Request, create_request, find_request
from kling_async.protocol.retry import RetryQuota

T = TypeVar("T")

PATH = "/v1/images/multi-image2image"
CREATE = create_request(PATH, Body.from_json({"n": 1, "external_task_id": "ka-1"}))
FIND = find_request(PATH, "ka-1")
DATE = "Tue, 15 Nov 1994 08:12:31 GMT"


def reply(status: int = 200, *, retry_after: str | None = None, **fields: Any) -> Reply:
    headers = {"date": DATE} | ({} if retry_after is None else {"retry-after": retry_after})
    return Reply(status=status, headers=headers, body=json.dumps(fields).encode())


def task(external: str = "ka-1", name: str = "77") -> Reply:
    info = {"external_task_id": external} if external else {}
    return reply(code=0, data={"task_id": name, "task_info": info, "task_status": "submitted"})


def refusal(code: int, status: int = 429, *, retry_after: str | None = None) -> Reply:
    return reply(status, code=code, message="no", retry_after=retry_after)


MISSING = reply(400, code=1201, message="Task not found by id/external id: ka-1")
MISSING_404 = reply(404, code=1203, message="no such resource")
EXISTS = reply(400, code=1201, message="External_task_id ka-1 already exists")
HTML_502 = Reply(status=502, headers={}, body=b"<html>Bad gateway</html>")
HTML_404 = Reply(status=404, headers={}, body=b"<html>Not found</html>")
MOVED = Reply(status=302, headers={"location": "https://elsewhere/"}, body=b"")
LOST = errors.TransportError("reset by peer", sent=True)
UNSENT = errors.TransportError("connection refused", sent=False)


def patience(*dice: float, **options: Any) -> Patience:
    """Two retries and given dice; without any, every draw is 0.5, so that pauses are 0.375, 0.75, 1.5 …"""
    drawn = iter(dice)
    return Patience(dice=lambda: next(drawn, 0.5), **options)


def play(flow: Flow[T], *answers: Any) -> tuple[list[Step], T | errors.KlingError]:
    """Answer one step after another; returns the steps and what the flow ended with. All answers must be used."""
    left = list(answers)
    steps: list[Step] = []
    try:
        step = next(flow)
        while True:
            steps.append(step)
            answer = left.pop(0) if isinstance(step, Send | Renew) else None
            step = flow.throw(answer) if isinstance(answer, errors.KlingError) else flow.send(answer)
    except StopIteration as stop:
        assert not left
        value: T = stop.value
        return steps, value
    except errors.KlingError as error:
        assert not left
        return steps, error


def shape(steps: list[Step]) -> list[object]:
    """Show steps briefly: "create", "find", "renew", "doubt", or the seconds of a pause."""
    names = {CREATE: "create", FIND: "find"}
    shown: list[object] = []
    for step in steps:
        match step:
            case Send(request):
                shown.append(names[request])
            case Wait(seconds):
                shown.append(seconds)
            case Renew():
                shown.append("renew")
            case Doubt():
                shown.append("doubt")
    return shown


# Of looking before sending.


def test_a_task_that_exists_already_is_adopted_before_anything_is_sent() -> None:
    """A job that may have been executed before is asked for first, and found."""
    steps, made = play(submit(CREATE, FIND, "ka-1", patience(), look=Look.ONCE), task())

    assert shape(steps) == ["find"]
    assert made == Submission("77", "", found=True)


def test_a_job_executed_long_ago_is_asked_for_once() -> None:
    """One look suffices where no create can be under way."""
    steps, _ = play(submit(CREATE, FIND, "ka-1", patience(), look=Look.ONCE), MISSING, task())

    assert shape(steps) == ["find", "create"]


def test_a_job_that_somebody_may_just_have_sent_is_asked_for_over_the_settle_window() -> None:
    """Not found is not found yet when another process may have sent the create a moment ago."""
    flow = submit(CREATE, FIND, "ka-1", patience(settle=4.0), look=Look.SETTLE)

    steps, made = play(flow, MISSING, MISSING, task())

    assert shape(steps) == ["find", 2.0, "find", 2.0, "find"]
    assert made == Submission("77", "", found=True)


# Of exchange.


def test_one_send_is_enough() -> None:
    """An answered request is one step."""
    steps, envelope = play(exchange(FIND), task())

    assert steps == [Send(FIND)]
    assert not isinstance(envelope, errors.KlingError)
    assert envelope.data["task_id"] == "77"


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1004])
def test_a_token_is_renewed_once(code: int) -> None:
    """A refused token is made anew with the service's time, and the request is sent once more."""
    steps, _ = play(exchange(FIND), refusal(code, 401), True, task())

    assert shape(steps) == ["find", "renew", "find"]
    renew = steps[1]
    assert isinstance(renew, Renew)
    assert (renew.error.code, renew.service_time) == (code, 784_887_151.0)


def test_a_second_refusal_is_final() -> None:
    """There is one renewal and no loop (H14)."""
    steps, error = play(exchange(FIND), refusal(1004, 401), True, refusal(1004, 401))

    assert shape(steps) == ["find", "renew", "find"]
    assert isinstance(error, errors.TokenExpired)


def test_a_token_that_cannot_be_renewed() -> None:
    """Where no other token is worth trying the refusal stands."""
    steps, error = play(exchange(FIND), refusal(1002, 401), False)

    assert shape(steps) == ["find", "renew"]
    assert type(error) is errors.AuthError


@pytest.mark.parametrize("answer", [refusal(1001, 401), HTML_404, reply(401), refusal(1101), LOST])
def test_what_no_token_cures(answer: Reply | errors.KlingError) -> None:
    """Other refusals, a bare 401 and a lost connection end an exchange at once."""
    steps, error = play(exchange(FIND), answer)

    assert shape(steps) == ["find"]
    assert isinstance(error, errors.KlingError)


# Of ask.


def test_asking_again_until_answered() -> None:
    """Lost, unreadable and failed reads are repeated after growing pauses that name their cause."""
    steps, envelope = play(ask(FIND, patience()), LOST, HTML_502, task())

    assert shape(steps) == ["find", 0.375, "find", 0.75, "find"]
    assert steps[1] == Wait(0.375, LOST, 1)
    second = steps[3]
    assert isinstance(second, Wait)
    assert isinstance(second.error, errors.ServerError)
    assert second.attempt == 2
    assert not isinstance(envelope, errors.KlingError)


def test_pauses_are_drawn() -> None:
    """The dice choose within the upper half of each step."""
    steps, _ = play(ask(FIND, patience(0.0, 0.999, retries=3)), LOST, LOST, LOST, task())

    assert shape(steps) == ["find", 0.25, "find", 0.9995, "find", 1.5, "find"]


def test_the_services_wish_is_waited() -> None:
    """`Retry-After` wins over our own pauses."""
    steps, _ = play(ask(FIND, patience()), refusal(1302, retry_after="7"), task())

    assert shape(steps) == ["find", 7.0, "find"]


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_retries_run_out(retries: int) -> None:
    """After the given repetitions the last error is raised, as it is."""
    steps, error = play(ask(FIND, patience(retries=retries)), *[UNSENT] * retries, LOST)

    assert shape(steps).count("find") == retries + 1
    assert error is LOST


@pytest.mark.parametrize("answer", [MISSING, refusal(1102), refusal(1001, 401), reply(400)])
def test_refusals_are_not_repeated(answer: Reply) -> None:
    """Asking again does not heal a refusal."""
    steps, error = play(ask(FIND, patience()), answer)

    assert shape(steps) == ["find"]
    assert isinstance(error, errors.ApiError)


def test_an_empty_quota_ends_retries() -> None:
    """Once an outage has used up the shared bucket each call is sent once (R4); successes fill it again."""
    quota = RetryQuota(capacity=10, cost=5)

    first, _ = play(ask(FIND, patience(quota=quota)), LOST, LOST, LOST)
    second, error = play(ask(FIND, patience(quota=quota)), LOST)
    play(ask(FIND, patience(quota=quota)), task())

    assert (shape(first).count("find"), shape(second), error) == (3, ["find"], LOST)
    assert quota.left == 1


def test_throttling_costs_no_quota() -> None:
    """Too many requests is no outage, so waiting it out leaves the bucket alone."""
    quota = RetryQuota(capacity=5, cost=5)

    steps, _ = play(ask(FIND, patience(quota=quota)), refusal(1302), refusal(1303), task())

    assert shape(steps).count("find") == 3
    assert quota.left == 5


# Of find.


@pytest.mark.parametrize("external", ["ka-1", ""])
def test_a_task_is_found(external: str) -> None:
    """The first look may bring the task; one that does not say its external id is believed."""
    steps, found = play(find(FIND, "ka-1", patience()), task(external))

    assert shape(steps) == ["find"]
    assert not isinstance(found, errors.KlingError | None)
    assert found.task_id == "77"


@pytest.mark.parametrize("answer", [MISSING, MISSING_404])
def test_not_found_must_be_said_over_the_settle_window(answer: Reply) -> None:
    """Three looks over five seconds say for certain that there is no task, in either dialect."""
    steps, found = play(find(FIND, "ka-1", patience()), answer, answer, answer)

    assert shape(steps) == ["find", 2.5, "find", 2.5, "find"]
    assert found is None


@pytest.mark.parametrize(
    ("looks", "settle", "expected"),
    [
        (1, 5.0, ["find", 5.0, "find"]),
        (2, 5.0, ["find", 5.0, "find"]),
        (6, 5.0, ["find", *[1.0, "find"] * 5]),
        (3, 0.0, ["find", 0.0, "find", 0.0, "find"]),
        (0, 1.0, ["find", 1.0, "find"]),
    ],
)
def test_looks_and_window_hold_both(looks: int, settle: float, expected: list[object]) -> None:
    """There are at least that many looks, and the last is a whole window after the first."""
    answers = [MISSING] * expected.count("find")

    steps, found = play(find(FIND, "ka-1", patience(looks=looks, settle=settle)), *answers)

    assert (shape(steps), found) == (expected, None)


def test_a_late_task_is_found_within_the_window() -> None:
    """Not found is not found *yet* (N09)."""
    steps, found = play(find(FIND, "ka-1", patience()), MISSING, MISSING, task())

    assert shape(steps) == ["find", 2.5, "find", 2.5, "find"]
    assert not isinstance(found, errors.KlingError | None)


def test_looks_without_an_answer_do_not_count() -> None:
    """A lost or unreadable look-up says nothing about the task; its pause counts as time, not as a look."""
    steps, found = play(
        find(FIND, "ka-1", patience()),
        LOST,
        MISSING,
        HTML_502,
        refusal(1302, retry_after="9"),
        MISSING,
        MISSING,
    )

    assert shape(steps) == ["find", 0.375, "find", 2.5, "find", 0.75, "find", 9.0, "find", 2.5, "find"]
    assert found is None


def test_another_tasks_data_is_no_answer() -> None:
    """A reply about another task is not believed (T09); the look-up is repeated."""
    steps, found = play(find(FIND, "ka-1", patience()), task("ka-2"), task())

    assert shape(steps) == ["find", 0.375, "find"]
    assert not isinstance(found, errors.KlingError | None)


def test_looking_ends_when_no_answer_comes() -> None:
    """After a minute of pauses without an answer nobody knows, and the error says what to do later."""
    steps, error = play(find(FIND, "ka-1", patience(unknown_after=1.0)), LOST, LOST)

    assert shape(steps) == ["find", 0.375, "find"]
    assert isinstance(error, errors.SubmissionUnknown)
    assert (error.external_task_id, error.__cause__) == ("ka-1", LOST)
    assert "ka-1" in str(error)


@pytest.mark.parametrize("answer", [refusal(1001, 401), refusal(1101), HTML_404, reply(400, code=1200)])
def test_a_refused_look_up_tells_nothing(answer: Reply) -> None:
    """A look-up that is refused for another reason can never tell, so nobody knows."""
    steps, error = play(find(FIND, "ka-1", patience()), MISSING, answer)

    assert shape(steps) == ["find", 2.5, "find"]
    assert isinstance(error, errors.SubmissionUnknown)


# Of submit.


def submission(*, adopt: bool = True, **options: Any) -> Flow[Submission]:
    return submit(CREATE, FIND, "ka-1", patience(**options), adopt=adopt)


def test_an_accepted_create() -> None:
    """One send, one task."""
    steps, made = play(submission(), task())

    assert shape(steps) == ["create"]
    assert isinstance(made, Submission)
    assert (made.task_id, made.found) == ("77", False)


def test_a_create_that_was_not_sent_is_repeated() -> None:
    """Nothing left this machine, so nothing needs asking (N01)."""
    steps, made = play(submission(), UNSENT, UNSENT, task())

    assert shape(steps) == ["create", 0.375, "create", 0.75, "create"]
    assert steps[1] == Wait(0.375, UNSENT, 1)
    assert isinstance(made, Submission)
    assert not made.found


def test_a_create_that_is_never_sent_gives_up() -> None:
    """After the retries, or without quota, the transport's error is raised: there is no task (N02)."""
    steps, error = play(submission(), UNSENT, UNSENT, UNSENT)
    poor, same = play(submission(quota=RetryQuota(capacity=4)), UNSENT)

    assert shape(steps) == ["create", 0.375, "create", 0.75, "create"]
    assert error is same is UNSENT
    assert shape(poor) == ["create"]


AMBIGUOUS: list[Reply | errors.KlingError] = [
    LOST,
    errors.RequestTimeout("slow", sent=True),
    errors.MalformedReply("too large", 200),
    HTML_502,
    MOVED,
    refusal(5000, 500),
    refusal(5001, 503),
    refusal(5002, 504),
    reply(code=0, data=None),
    reply(code=0, data={"task_id": None}),
    reply(data={"task_id": "77"}),
    refusal(1999, 500),
    reply(409),
    HTML_404,
]


@pytest.mark.parametrize("answer", AMBIGUOUS)
def test_a_lost_reply_is_cleared_up_by_asking(answer: Reply | errors.KlingError) -> None:
    """Whatever leaves the fate of a create open is noted as doubt, asked about, and adopted when found."""
    steps, made = play(submission(), answer, task())

    assert shape(steps) == ["create", "doubt", "find"]
    assert isinstance(made, Submission)
    assert made.found


@pytest.mark.parametrize("answer", [each for each in AMBIGUOUS if each is not MOVED])
def test_it_is_sent_again_only_when_there_is_no_task(answer: Reply | errors.KlingError) -> None:
    """After a whole window of "not found" the same create goes out again."""
    steps, made = play(submission(), answer, MISSING, MISSING, MISSING, task())

    assert shape(steps) == ["create", "doubt", "find", 2.5, "find", 2.5, "find", 0.375, "create"]
    assert isinstance(made, Submission)
    assert not made.found


def test_the_doubt_comes_first() -> None:
    """What made the fate unknown is told before anything else happens, so that it can be written down."""
    steps, _ = play(submission(), LOST, task())

    assert steps[1] == Doubt(LOST)


def test_the_last_doubt_is_cleared_up_too() -> None:
    """The error after the last try still means that there is no task."""
    missing = [MISSING] * 3

    steps, error = play(submission(retries=1), LOST, *missing, HTML_502, *missing)

    assert shape(steps).count("create") == 2
    assert shape(steps)[-5:] == ["find", 2.5, "find", 2.5, "find"]
    assert isinstance(error, errors.ServerError)


def test_a_redirected_create_is_a_matter_of_configuration() -> None:
    """When there is no task behind a redirect the base URL is wrong (N15)."""
    steps, error = play(submission(), MOVED, MISSING, MISSING, MISSING)

    assert shape(steps).count("create") == 1
    assert isinstance(error, errors.ConfigError)
    assert "elsewhere" in str(error)


def test_nobody_knows() -> None:
    """If look-ups are refused nothing is sent again and the external id is told."""
    steps, error = play(submission(), LOST, refusal(1101))

    assert shape(steps) == ["create", "doubt", "find"]
    assert isinstance(error, errors.SubmissionUnknown)


def test_already_exists_means_the_task_is_there() -> None:
    """A duplicate of our own id is looked up and adopted."""
    steps, made = play(submission(), EXISTS, task())

    assert shape(steps) == ["create", "doubt", "find"]
    assert isinstance(made, Submission)
    assert made.found


def test_already_exists_but_not_found_is_never_sent_again() -> None:
    """The service says that there is a task and does not find it: that is for later."""
    steps, error = play(submission(), EXISTS, MISSING, MISSING, MISSING)

    assert shape(steps).count("create") == 1
    assert isinstance(error, errors.SubmissionUnknown)
    assert isinstance(error.__cause__, errors.DuplicateExternalId)


def test_a_callers_own_id_is_not_adopted_at_once() -> None:
    """An id that the caller chose may belong to another task, so its duplicate is an error."""
    steps, error = play(submission(adopt=False), EXISTS)

    assert shape(steps) == ["create"]
    assert isinstance(error, errors.DuplicateExternalId)


def test_a_create_that_was_not_sent_makes_nothing_ours() -> None:
    """A duplicate after a create that never left is still somebody else's."""
    _, error = play(submission(adopt=False), UNSENT, EXISTS)

    assert isinstance(error, errors.DuplicateExternalId)


def test_after_a_doubt_the_duplicate_is_ours() -> None:
    """Once a create of ours may have arrived, "already exists" is that one."""
    steps, made = play(submission(adopt=False), LOST, MISSING, MISSING, MISSING, EXISTS, task())

    assert shape(steps)[-3:] == ["create", "doubt", "find"]
    assert isinstance(made, Submission)
    assert made.found


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal(1201, 400), errors.BadRequest),
        (refusal(1301, 400), errors.ContentRefusal),
        (refusal(1302), errors.RateLimited),
        (refusal(1303), errors.NoFreeSlot),
        (refusal(1102), errors.OutOfUnits),
        (refusal(1999, 400), errors.BadRequest),
        (reply(413), errors.BadRequest),
        (reply(429), errors.RateLimited),
        (errors.InvalidJob("the file changed"), errors.InvalidJob),
        (errors.ConfigError("certificate"), errors.ConfigError),
    ],
)
def test_refusals_are_raised_at_once(
    answer: Reply | errors.KlingError, kind: type[errors.KlingError]
) -> None:
    """No task was made, so nothing is asked; when to try again is the lane's business."""
    steps, error = play(submission(), answer)

    assert shape(steps) == ["create"]
    assert type(error) is kind


def test_a_create_is_sent_again_with_a_new_token() -> None:
    """A token refused for its time is no doubt: that create made no task."""
    steps, made = play(submission(), refusal(1003, 401), True, task())

    assert shape(steps) == ["create", "renew", "create"]
    assert isinstance(made, Submission)


def test_success_fills_the_quota() -> None:
    """An accepted create puts one back into the bucket, a doubt that ends well none."""
    quota = RetryQuota(capacity=10, cost=5)
    quota.take()

    play(submission(quota=quota), task())
    play(submission(quota=quota), LOST, task())

    assert quota.left == 6


# The promise of submit(), against a service that does its worst.

SETTLE = 5.0
Ending: TypeAlias = Reply | errors.KlingError | None
ENDINGS: tuple[Ending, ...] = (None, *AMBIGUOUS)
REFUSALS: tuple[Ending, ...] = (
    UNSENT,
    refusal(1301, 400),
    refusal(1303),
    refusal(1302, retry_after="3"),
    refusal(1102),
    refusal(1004, 401),
    refusal(1002, 401),
    reply(422),
)
# What a create meets: whether it gets a task made, and what the caller sees of it (None: the truth).
creates = st.tuples(st.just(True), st.sampled_from(ENDINGS)) | st.tuples(
    st.just(False), st.sampled_from([*AMBIGUOUS, *REFUSALS])
)
# What a look-up meets; None is the truth.
looks = st.none() | st.sampled_from([LOST, UNSENT, HTML_502, refusal(1302), refusal(5000, 500), task("ka-2")])
fatal_looks = looks | st.sampled_from([refusal(1101), HTML_404])


@define
class Service:
    """Keeps tasks by external id; time passes only in pauses and, a little, with each request."""

    unique: bool
    lag: float
    creates: Iterator[tuple[bool, Ending]]
    looks: Iterator[Ending]
    now: float = 0.0
    accepted: list[float] = field(factory=list)
    doubts: int = 0

    def answer(self, request: Request) -> Reply | errors.KlingError:
        """Answer *request* as the script wants it."""
        self.now += 0.01
        return self._create() if request == CREATE else self._look()

    def _create(self) -> Reply | errors.KlingError:
        accept, ending = next(self.creates, (True, None))
        if accept:
            if self.accepted and self.unique:
                return ending or EXISTS
            self.accepted.append(self.now)
        return ending or task()

    def _look(self) -> Reply | errors.KlingError:
        found = any(self.now - moment >= self.lag for moment in self.accepted)
        return next(self.looks, None) or (task() if found else MISSING)

    def drive(self, flow: Flow[T]) -> T | errors.KlingError:
        """Carry *flow* to its end."""
        try:
            step = next(flow)
            while True:
                answer: Any = None
                if isinstance(step, Wait):
                    assert step.seconds >= 0
                    self.now += step.seconds
                elif isinstance(step, Send):
                    answer = self.answer(step.request)
                elif isinstance(step, Renew):
                    answer = True
                else:
                    self.doubts += 1
                step = flow.throw(answer) if isinstance(answer, errors.KlingError) else flow.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value
        except errors.KlingError as error:
            return error


@given(
    unique=st.booleans(),
    lag=st.floats(0, SETTLE, exclude_max=True),
    creates_=st.lists(creates, max_size=6),
    looks_=st.lists(fatal_looks, max_size=12),
    dice=st.floats(0, 1, exclude_max=True),
    retries=st.integers(0, 4),
    adopt=st.booleans(),
)
def test_the_promise_of_submit(
    *,
    unique: bool,
    lag: float,
    creates_: list[tuple[bool, Ending]],
    looks_: list[Ending],
    dice: float,
    retries: int,
    adopt: bool,
) -> None:
    """
    Never two tasks for one external id, and every error but `SubmissionUnknown` means none at all.

    Whether the service refuses doubled ids or not, as long as what it accepts can be found within the settle window.
    """
    service = Service(unique=unique, lag=lag, creates=iter(creates_), looks=iter(looks_))
    flow = submit(
        CREATE,
        FIND,
        "ka-1",
        Patience(dice=lambda: dice, settle=SETTLE, retries=retries),
        adopt=adopt,
    )

    end = service.drive(flow)

    if isinstance(end, Submission):
        assert len(service.accepted) == 1
        assert end.found <= bool(service.doubts)
    elif isinstance(end, errors.SubmissionUnknown):
        assert len(service.accepted) <= 1
        assert end.external_task_id == "ka-1"
    else:
        assert service.accepted == []


@given(
    unique=st.booleans(),
    lag=st.floats(0, SETTLE, exclude_max=True),
    creates_=st.lists(creates.filter(lambda each: each[1] not in REFUSALS), max_size=2),
    looks_=st.lists(looks, max_size=8),
)
def test_doubts_end_well_when_look_ups_are_answered(
    *,
    unique: bool,
    lag: float,
    creates_: list[tuple[bool, Ending]],
    looks_: list[Ending],
) -> None:
    """With look-ups that answer in the end, a lost reply costs nobody the task, except for redirects."""
    service = Service(unique=unique, lag=lag, creates=iter(creates_), looks=iter(looks_))

    end = service.drive(submit(CREATE, FIND, "ka-1", patience(settle=SETTLE, unknown_after=600.0)))

    assert isinstance(end, Submission | errors.ConfigError)
    assert len(service.accepted) == isinstance(end, Submission)
