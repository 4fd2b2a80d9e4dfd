"""How S3 is asked through s3fs: how often, by how many at once, and what of its answers s3fs passes over."""

import os
from collections.abc import Callable
from typing import Any

import fsspec

REQUESTS = 10
"""Per operation before it is given up: a minute or more of waiting, where s3fs by itself ends after 8 s. A short outage
of the store must not end a run of days."""

CONNECTIONS = 64
"""At once. By itself botocore holds 10, for which the threads that read a ledger would wait."""

_PARTS = 3
"""Of 50 MiB, on their way at once of a large file that is sent. With s3fs's 10 a file of 400 MiB takes 800 MiB."""

ONE_REQUEST = {"max_concurrency": 1}
"""For what is read whole: else s3fs asks for its size first, and lists where there is none; has ten parts of 50 MiB in
memory at once; and gives all up where the body of one breaks off, which as a stream it takes up where it was."""

_RETRIES = {"mode": "standard", "total_max_attempts": REQUESTS}

Outages = Callable[[], tuple[type[Exception], ...]]


def options() -> dict[str, Any]:
    """How often S3 is asked, where neither the environment nor the user's fsspec configuration says it, and by how many
    at once, where the latter does not."""
    wanted: dict[str, Any] = {"max_pool_connections": CONNECTIONS}
    if {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"}.isdisjoint(os.environ):
        wanted["retries"] = _RETRIES
    told = fsspec.config.conf.get("s3", {})
    parts = told.get("max_concurrency", _PARTS)
    return {"max_concurrency": parts, "config_kwargs": wanted | told.get("config_kwargs", {})}


class _Once:
    """An s3fs that makes a request once."""

    retries = 1

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)


def leave_requests_to_botocore(fs: Any, outages: Outages) -> None:
    """Have s3fs repeat nothing that botocore has given up: by itself it asks five times as often, for a quarter of an
    hour where a store takes requests and answers none. Bodies that break off it still asks for anew; botocore does not.
    And have it tell which objects were not deleted.
    """
    again = _again() if fs.config_kwargs.get("retries") == _RETRIES else None
    told: Any = None  # the client that knows of it

    async def call(*given: Any, **options: Any) -> Any:
        nonlocal told
        if again is not None and told is not (client := await fs.set_session()):
            client.meta.events.register_first("needs-retry.s3", again, unique_id=__name__)
            told = client
        try:
            answer = await type(fs)._call_s3(_Once(fs), *given, **options)
        except outages() as error:
            raise ConnectionError(str(error)) from error  # which s3fs does not take for the fault of a body
        _refuse_undeleted(given[0], answer)
        return answer

    fs._call_s3 = call


def _again() -> Callable[..., float | None]:
    """When to ask again, as botocore's standard mode has it but for its quota: that allows all threads of a process
    together a hundred repetitions, which 32 that read a ledger use up in 4 s of a store that is busy."""
    from botocore.retries import quota, standard  # type: ignore[import-untyped]

    conditions = standard.StandardRetryConditions(max_attempts=REQUESTS)
    policy = standard.RetryPolicy(conditions, standard.ExponentialBackoff())
    no_limit = standard.RetryQuotaChecker(quota.RetryQuota(initial_capacity=2**63))
    again: Callable[..., float | None] = standard.RetryHandler(
        policy, standard.RetryEventAdapter(), no_limit
    ).needs_retry
    return again


def _refuse_undeleted(request: str, answer: Any) -> None:
    """Raise what S3 says of an object that it did not delete: it answers 200 all the same, and s3fs reads no further.
    Who was to be forgotten would stay."""
    if request != "delete_objects" or not (errors := answer.get("Errors")):
        return
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]
    from s3fs.errors import translate_boto_error

    first = errors[0]
    said = f"{first.get('Key')} was not deleted: {first.get('Message') or first.get('Code')}"
    status = 403 if first.get("Code") == "AccessDenied" else 503  # an object has a code alone; all others may pass
    answered = {"Error": first, "ResponseMetadata": {"HTTPStatusCode": status}}
    raise translate_boto_error(ClientError(answered, "DeleteObjects"), said)
