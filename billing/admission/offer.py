"""What the catalogue offers an account for one piece of usage at one moment. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from billing.admission.request import kind_of
from billing.rating.catalogue import LEAD_MS, Catalogue
from billing.rating.tariff import Tariff
from schemas.admission import AuthorizationQuery, ItemQuery
from schemas.catalogue import Rate


@dataclass(frozen=True, slots=True)
class Offer:
    """The tariff that is in force, and its rate; `rate` is None where it has no price for this. `tariff` is None for
    a plan without one."""

    tariff: Tariff | None
    rate: Rate | None
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class NotListed:
    """A catalogue that is current does not have the account."""

    as_of_ms: int


@dataclass(frozen=True, slots=True)
class Stale:
    """The price of now is not known for certain; `as_of_ms` is None before the catalogue was read."""

    as_of_ms: int | None


Pricing: TypeAlias = Offer | NotListed | Stale


def find_offer(catalogue: Catalogue | None, account: str, query: AuthorizationQuery, now_ms: int) -> Pricing:
    """The offer at `now_ms` (ms since 1970 UTC). `catalogue` is None where nothing may be priced: not read to its end
    yet, or in conflict with itself.

    Stale beyond the catalogue's horizon, exactly where a session would have to wait for it.
    """
    if catalogue is None or catalogue.horizon_ms is None:
        return Stale(None)
    as_of_ms = catalogue.horizon_ms - LEAD_MS
    if now_ms > catalogue.horizon_ms:
        return Stale(as_of_ms)
    entry = catalogue.account(account)
    if entry is None:
        return NotListed(as_of_ms)
    tariff = catalogue.price_plan(entry, now_ms)
    return Offer(tariff, None if tariff is None else _match(tariff, query), as_of_ms)


def _match(tariff: Tariff, query: AuthorizationQuery) -> Rate | None:
    if isinstance(query, ItemQuery):
        return tariff.item(query.sku)
    return tariff.match(kind_of(query), query.direction, query.to)
