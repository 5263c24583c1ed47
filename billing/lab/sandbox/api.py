"""A request's way: key, route, idempotency, fault, endpoint, all but the HTTP. Synchronous, in one thread."""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from billing.lab.sandbox import customers, disputes, faults, forms, idempotency, intents, refunds
from billing.lab.sandbox.call import Call, Endpoint
from billing.lab.sandbox.errors import INVALID_REQUEST, Answer, Invalid, error
from billing.lab.sandbox.faults import Fault
from billing.lab.sandbox.idempotency import Use
from billing.lab.sandbox.store import Store, new_id

_ID = r"([A-Za-z0-9_]{1,255})"

_ROUTES: tuple[tuple[str, re.Pattern[str], Endpoint], ...] = tuple(
    (method, re.compile(pattern), endpoint)
    for method, pattern, endpoint in (
        ("POST", r"/v1/customers", customers.create_customer),
        ("GET", rf"/v1/customers/{_ID}", customers.read_customer),
        ("GET", rf"/v1/customers/{_ID}/payment_methods", customers.list_payment_methods),
        ("GET", r"/v1/payment_methods", customers.list_payment_methods),
        ("GET", rf"/v1/payment_methods/{_ID}", customers.read_payment_method),
        ("POST", rf"/v1/payment_methods/{_ID}/attach", customers.attach),
        ("GET", r"/v1/payment_intents", intents.list_all),
        ("POST", r"/v1/payment_intents", intents.create),
        ("GET", rf"/v1/payment_intents/{_ID}", intents.read),
        ("POST", rf"/v1/payment_intents/{_ID}/confirm", intents.confirm),
        ("POST", rf"/v1/payment_intents/{_ID}/cancel", intents.cancel),
        ("GET", r"/v1/charges", intents.list_charges),
        ("GET", r"/v1/disputes", disputes.list_all),
        ("GET", r"/v1/refunds", refunds.list_all),
        ("POST", r"/v1/refunds", refunds.create),
        ("GET", rf"/v1/refunds/{_ID}", refunds.read),
    )
)


@dataclass(frozen=True, slots=True)
class Request:
    """What came in. `encoded`: the query of a GET, the body of a POST."""

    method: str
    path: str
    encoded: str = ""
    authorization: str = ""
    idempotency_key: str | None = None
    api_version: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes out. `cut`: close the connection instead."""

    answer: Answer
    request_id: str
    original_request: str | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """A request that may begin: `finish` it after `delay_seconds`, or `abandon` it."""

    request: Request
    request_id: str
    endpoint: Endpoint
    identifier: str
    fields: list[tuple[str, str]]
    use: Use | None
    fault: Fault | None = None

    @property
    def delay_seconds(self) -> float:
        return self.fault.seconds if self.fault is not None and self.fault.kind == "delay" else 0.0


class Api:
    """The sandbox's API over a store. `now` gives seconds since 1970."""

    def __init__(self, store: Store, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._in_use: set[str] = set()

    def begin(self, request: Request) -> Reply | Work:
        """Answer what can be answered without an endpoint; else take the key and a fault."""
        request_id = new_id("req")
        if not self._authorised(request.authorization):
            return Reply(error(401, INVALID_REQUEST, "Invalid API Key provided."), request_id)
        route = _route(request)
        if route is None:
            message = f"Unrecognized request URL ({request.method}: {request.path})."
            return Reply(error(404, INVALID_REQUEST, message), request_id)
        endpoint, identifier = route
        try:
            fields = forms.pairs(request.encoded)
            use = _use(request, fields)
        except Invalid as invalid:
            return Reply(invalid.answer, request_id)
        if use is not None and (known := self._known(use, request_id)) is not None:
            return known
        work = Work(request, request_id, endpoint, identifier, fields, use)
        work = replace(work, fault=self._take_fault(work))
        if use is not None:
            self._in_use.add(use.key)
        return work

    def finish(self, work: Work) -> Reply:
        """Carry it out. Effects and the saved result become durable together."""
        now = int(self._now())
        call = Call(
            *(self._store.db, now, work.request.path, work.identifier, work.fields),
            *(work.request.api_version, work.fault),
        )
        try:
            with self._store.transaction():
                answer = work.endpoint(call)
                if work.fault is not None and work.fault.kind == "error_after_confirm":
                    answer = error(500, "api_error", "An unknown error occurred.")
                if work.use is not None:
                    idempotency.save(self._store.db, work.use, work.request_id, answer, now)
        except Invalid as invalid:
            return Reply(invalid.answer, work.request_id)
        finally:
            self.abandon(work)
        return Reply(answer, work.request_id, cut=work.fault is not None and work.fault.kind == "cut_after_confirm")

    def abandon(self, work: Work) -> None:
        """Release the key of a request that will not be carried out."""
        if work.use is not None:
            self._in_use.discard(work.use.key)

    def forget_keys(self) -> int:
        """Forget every idempotency key; returns how many."""
        with self._store.transaction():
            return idempotency.forget(self._store.db)

    def _authorised(self, given: str) -> bool:
        scheme, _, credentials = given.partition(" ")
        if scheme.lower() == "basic":  # as curl -u KEY: sends it
            try:
                credentials = base64.b64decode(credentials, validate=True).decode().partition(":")[0]
            except ValueError:
                return False
        elif scheme.lower() != "bearer":
            return False
        return secrets.compare_digest(credentials.encode(), self._store.api_key.encode())

    def _known(self, use: Use, request_id: str) -> Reply | None:
        if use.key in self._in_use:
            return Reply(idempotency.in_use(use.key), request_id)
        found = idempotency.find(self._store.db, use, int(self._now()))
        if isinstance(found, idempotency.Replay):
            return Reply(found.answer, request_id, original_request=found.original_request)
        return Reply(found, request_id) if found is not None else None

    def _take_fault(self, work: Work) -> Fault | None:
        """A fault for a request that would go to a card now; others leave the queue alone."""
        db = self._store.db
        confirms = work.endpoint is intents.confirm and intents.may_charge(db, work.identifier)
        creates = work.endpoint is intents.create and ("confirm", "true") in work.fields
        if not (confirms or creates):
            return None
        with self._store.transaction():
            return faults.take(db)


def _route(request: Request) -> tuple[Endpoint, str] | None:
    for method, pattern, endpoint in _ROUTES:
        if method == request.method and (match := pattern.fullmatch(request.path)):
            return endpoint, match[1] if match.groups() else ""
    return None


def _use(request: Request, fields: list[tuple[str, str]]) -> Use | None:
    """The idempotency key and what it is used for; it has no effect on GET."""
    key = request.idempotency_key
    if request.method != "POST" or not key:
        return None
    if len(key) > idempotency.MAX_KEY_LENGTH:
        raise Invalid(f"Idempotency keys may have at most {idempotency.MAX_KEY_LENGTH} characters.")
    return Use(key, f"POST {request.path}", idempotency.hash_parameters(fields))
