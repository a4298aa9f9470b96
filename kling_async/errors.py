"""
Everything that can go wrong, as one small tree under `KlingError`.

A leaf module: it imports nothing of this package. All errors are picklable and copyable, because batches carry
them as values between processes. No error ever holds a credential, a request body or the query of a URL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

from attrs import define, field

if TYPE_CHECKING:
    # Only a name for type checkers: errors stay a leaf.
    from kling_async.protocol.tasks import Task

__all__ = [
    "AccountError",
    "AddressNotAllowed",
    "ApiError",
    "AuthError",
    "BadRequest",
    "BatchStopped",
    "BudgetSpent",
    "ClusterLost",
    "ConfigError",
    "ContentRefusal",
    "DownloadError",
    "DuplicateExternalId",
    "EmptyResult",
    "InArrears",
    "InvalidJob",
    "JournalError",
    "KlingError",
    "LeaseLost",
    "LinkExpired",
    "MalformedReply",
    "MissingExtra",
    "NoFreeSlot",
    "NoSuchResource",
    "NotPermitted",
    "OutOfUnits",
    "PolicyRefusal",
    "RateLimited",
    "RequestTimeout",
    "ServerError",
    "SlotStoreError",
    "SubmissionUnknown",
    "TaskFailed",
    "TaskNotFound",
    "TaskTimeout",
    "TokenExpired",
    "TokenNotYetValid",
    "TransportError",
]

E = TypeVar("E", bound="type[KlingError]")


@dataclass_transform(eq_default=False, field_specifiers=(field,))
def error(cls: E) -> E:
    """
    Make *cls* an error value: positional fields, compared by identity.

    No slots, since some errors are also built-in ones (`TimeoutError`, `ValueError`) whose memory layout
    forbids them. No attrs repr or str: each error says itself what happened. A class without fields of its own inherits
    all that, and is left as it is: making each costs time at every start.
    """
    made: E = define(cls, eq=False, slots=False, repr=False, str=False)
    return made


@error
class KlingError(Exception):
    """The root of all errors of this package; *message* says what was expected, what was found, what to do."""

    message: str

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        # Built-in errors rebuild themselves from *args*; OSError (the parent of TimeoutError) rewrites those.
        return _blank, (type(self),), self.__dict__


def _blank(cls: type[KlingError]) -> KlingError:
    return cls.__new__(cls)


class ConfigError(KlingError):
    """The client cannot work as it was set up: credentials, addresses, folders, options."""


@error
class MissingExtra(ConfigError):
    """A feature needs an optional extra; *extra* is its name and the message has the command that installs it."""

    extra: str = ""


class JournalError(ConfigError):
    """The journal of a run cannot be used: held by another process, damaged, or its disk is full."""


class SlotStoreError(KlingError):
    """The store that shares an account's slots does not answer, so nothing is sent; tasks that run are still waited for."""


class ClusterLost(KlingError):
    """The cluster that a batch runs on is gone; what was written down stays, and the same call continues."""


@error
class LeaseLost(KlingError):
    """
    Another process has taken over this job, so it is not sent from here.

    Its task is that process's business; *external_task_id* finds it.
    """

    external_task_id: str = ""


@error
class InvalidJob(KlingError, ValueError):
    """
    A job breaks a rule of the service; found before anything is sent or spent.

    *field* is the field at fault (`n`, `subject_images[2]`), *rule* what is expected, *value* what was found
    (shortened, never a picture's bytes) and *remedy* what to do.
    """

    field: str = ""
    rule: str = ""
    value: str = ""
    remedy: str = ""

    @classmethod
    def because(cls, field: str, rule: str, value: str, remedy: str) -> InvalidJob:
        """Build the error with its message put together from the parts."""
        return cls(f"{field}: expected {rule}, found {value}; {remedy}", field, rule, value, remedy)


@error
class TransportError(KlingError):
    """
    No usable reply came back.

    *sent* tells whether any byte of the request may have left this machine. A request that was not sent can be
    repeated safely; a create that was sent may be a paid task.
    """

    sent: bool = True


class RequestTimeout(TransportError, TimeoutError):
    """A request took longer than its time limit."""


@error
class ApiError(KlingError):
    """
    The service answered and refused.

    *code* is the service's own code (0 where the reply had none), which decides the class; *http_status* is only
    second, since HTTP 429 alone covers six different troubles. *remedy* is the vendor's advice in plain words,
    *retry_after* the seconds the service asked to wait, if it did.
    """

    code: int = 0
    http_status: int = 0
    request_id: str = ""
    remedy: str = ""
    retry_after: float | None = None

    def __str__(self) -> str:
        label = f"code {self.code}" if self.code else f"HTTP {self.http_status}"
        parts = [f"{self.message} ({label})"]
        if self.remedy:
            parts.append(self.remedy)
        if self.request_id:
            parts.append(f"request id {self.request_id}")
        return "; ".join(parts)


class AuthError(ApiError):
    """The credentials were not accepted (codes 1000 to 1002)."""


class TokenNotYetValid(AuthError):
    """The token's start lies in the service's future: the clocks differ (code 1003)."""


class TokenExpired(AuthError):
    """The token's end lies in the service's past (code 1004)."""


class AccountError(ApiError):
    """The account cannot be used as it is; waiting does not heal it (codes 1100 to 1103, 1304)."""


class InArrears(AccountError):
    """A postpaid account owes money (code 1101)."""


class OutOfUnits(AccountError):
    """The prepaid resource pack is used up or has expired, or is of another product type (code 1102)."""


class NotPermitted(AccountError):
    """The account may not use this resource, such as the API or model (code 1103)."""


class AddressNotAllowed(AccountError):
    """This machine's address is not in the account's list of allowed ones (code 1304)."""


class BadRequest(ApiError):
    """The service does not accept a parameter (codes 1200 and 1201)."""


class DuplicateExternalId(BadRequest):
    """The account already has a task with this external id, so this create made none and cost nothing."""


class TaskNotFound(BadRequest):
    """The account has no task with this task id or external id."""


class NoSuchResource(ApiError):
    """The service has no such method or resource, such as a model (codes 1202 and 1203)."""


class PolicyRefusal(ApiError):
    """The request goes against a policy of the platform (code 1300)."""


class ContentRefusal(ApiError):
    """The prompt or a picture goes against the content policy (code 1301). Not charged; change it before sending again."""


class RateLimited(ApiError):
    """Requests came too fast (code 1302). Heals by waiting."""


class NoFreeSlot(ApiError):
    """All slots of the account are taken (code 1303). The refusal is free; heals when a task ends."""


class ServerError(ApiError):
    """The service failed inside (codes 5000 to 5002). For a create it is unknown whether a task was made."""


@error
class MalformedReply(KlingError):
    """The service answered something that cannot be read; *http_status* and *request_id* where they are known."""

    http_status: int = 0
    request_id: str = ""

    @property
    def is_redirect(self) -> bool:
        """Whether the answer points elsewhere; it is not followed."""
        return 300 <= self.http_status < 400


@error
class SubmissionUnknown(KlingError):
    """
    It could not be found out whether a create made a task, which may be paid for.

    Nothing was sent again. Look the task up later by *external_task_id*: `multi_image.retrieve(...)`.
    """

    external_task_id: str = ""

    @property
    def astray(self) -> ConfigError | None:
        """What to end a run with because nothing at this address answers for the service: a redirect, or a page of refusal without a code."""
        reason = self.__cause__
        redirected = isinstance(reason, MalformedReply) and reason.is_redirect
        strange = isinstance(reason, ApiError) and not reason.code and 400 <= reason.http_status < 500
        # What these three say may be over in a moment.
        passing = isinstance(reason, ApiError) and reason.http_status in {408, 425, 429}
        return ConfigError(str(self)) if redirected or (strange and not passing) else None


@error
class TaskFailed(KlingError):
    """The task ended as `failed`; *reason* is the service's `task_status_msg`, *remedy* what to do."""

    task: Task
    reason: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


@error
class TaskTimeout(KlingError, TimeoutError):
    """
    The wait for a task was longer than its bound.

    The task itself goes on and will be charged: attach again with `multi_image.handle(error.task_id)`.
    """

    task_id: str = ""


@error
class EmptyResult(KlingError):
    """The task ended as `succeed` but shows no picture, also after asking again. It is not submitted again."""

    task_id: str = ""


@error
class DownloadError(KlingError):
    """
    A result picture could not be fetched or kept; the task stays succeeded and can be fetched again.

    *url* has no query. *retryable* tells that trying again may help; *local* that the disk or the folder is at
    fault, so that other downloads will fail alike.
    """

    url: str = ""
    retryable: bool = False
    local: bool = False


@error
class LinkExpired(DownloadError):
    """
    The result's link no longer works and asking the task again brought no fresh one (results are kept for 30 days).

    *gone* tells that the service no longer has the picture, so that only a new task, at its full price, brings another.
    """

    gone: bool = False


class BatchStopped(KlingError):
    """A batch ended before all its jobs could be tried; what was not tried stays pending. The cause is chained."""


@error
class BudgetSpent(BatchStopped):
    """The next job would pass the batch's *budget* (units)."""

    budget: int = 0
    committed: int = 0
