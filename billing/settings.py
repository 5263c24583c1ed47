"""Settings come from the environment (`BILLING_…`); one that is missing or malformed is refused by name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from billing.balance.address import BadAddress, parse_address
from billing.balance.keys import GENERATION_MS, KeySpace


class SettingError(ValueError):
    """One line naming the setting and what is wrong with it."""


@dataclass(frozen=True)
class Topics:
    """Names of the topics, with the namespace's prefix."""

    usage: str
    entries: str
    tariffs: str
    signals: str


@dataclass(frozen=True)
class Settings:
    """Where the servers are and how this deployment is named.

    `namespace` prefixes topics and consumer groups with "<namespace>." and Redis keys with "<namespace>:", so that
    deployments can share servers; "" is the plain names. `metrics_port` 0 takes a free port, None serves none.
    Before money moves, `proof_replicas` replicas must have acknowledged the write proof, and with `proof_aof` the
    primary's append-only file must have it. `generation_ms` is the length of a dedupe generation: what the balance
    store was initialised with. `nice` is the process's nice value, None the one that it was started with.
    """

    kafka_bootstrap: str
    redis_url: str
    postgres_dsn: str
    namespace: str = ""
    partitions: int = 8
    metrics_port: int | None = None
    proof_replicas: int = 0
    proof_aof: bool = False
    postgres_owner_dsn: str = ""
    generation_ms: int = GENERATION_MS
    nice: int | None = None

    @property
    def owner_dsn(self) -> str:
        """As whom to migrate and archive: the owner of the ledger, who may be the runtime role itself."""
        return self.postgres_owner_dsn or self.postgres_dsn

    @cached_property
    def topics(self) -> Topics:
        prefix = f"{self.namespace}." if self.namespace else ""
        return Topics(
            usage=f"{prefix}usage.events",
            entries=f"{prefix}ledger.entries",
            tariffs=f"{prefix}billing.tariffs",
            signals=f"{prefix}billing.signals",
        )

    @property
    def key_prefix(self) -> str:
        """What every Redis key begins with, before the hash tag."""
        return self.namespace or "billing"

    @property
    def key_space(self) -> KeySpace:
        """The balance store's keys."""
        return KeySpace(self.key_prefix, self.partitions, self.generation_ms)

    def group(self, name: str) -> str:
        """The Kafka consumer group of a consumer, for example "billing-inflight"."""
        return f"{self.namespace}.billing-{name}" if self.namespace else f"billing-{name}"

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> Settings:
        """Read and check every setting; raises SettingError naming the first that is missing or malformed."""
        return Settings(
            kafka_bootstrap=_bootstrap(environ),
            redis_url=_store(environ),
            postgres_dsn=_url(environ, "BILLING_POSTGRES_DSN", ("postgresql", "postgres")),
            namespace=_namespace(environ),
            partitions=whole_number(environ, "BILLING_PARTITIONS", 8, 1, 1024),
            metrics_port=_if_given(environ, "BILLING_METRICS_PORT", 0, 65535),
            proof_replicas=whole_number(environ, "BILLING_PROOF_REPLICAS", 0, 0, 16),
            proof_aof=bool(whole_number(environ, "BILLING_PROOF_AOF", 0, 0, 1)),
            postgres_owner_dsn=_owner(environ),
            generation_ms=1000
            * whole_number(environ, "BILLING_DEDUPE_GENERATION_SECONDS", GENERATION_MS // 1000, 5, 86_400),
            nice=_if_given(environ, "BILLING_NICE", -20, 19),
        )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "").strip()
    if not value:
        raise SettingError(f"{name} is not set")
    return value


def _bootstrap(environ: Mapping[str, str]) -> str:
    value = _required(environ, "BILLING_KAFKA_BOOTSTRAP")
    for server in value.split(","):
        found = re.fullmatch(r"(?:\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):(\d{1,5})", server.strip())
        if found is None or not 0 < int(found[1]) < 65536:
            wrong = repr(server.strip()) if server.strip() else f"an empty one in {value!r}"
            raise SettingError(f"BILLING_KAFKA_BOOTSTRAP must be host:port[,host:port…], got {wrong}")
    return value


def _store(environ: Mapping[str, str]) -> str:
    value = _required(environ, "BILLING_REDIS_URL")
    try:
        parse_address(value)
    except BadAddress as error:
        raise SettingError(f"BILLING_REDIS_URL must {error}") from None
    return value


def _url(environ: Mapping[str, str], name: str, schemes: tuple[str, ...]) -> str:
    value = _required(environ, name)
    try:
        parts = urlsplit(value)
        well_formed = parts.scheme in schemes and bool(parts.netloc or parts.path) and (parts.port or 1) > 0
    except ValueError:
        well_formed = False
    if not well_formed:  # the value may carry a password, so it is not repeated
        raise SettingError(f"{name} must be a URL beginning with {' or '.join(s + '://' for s in schemes)}")
    return value


def _owner(environ: Mapping[str, str]) -> str:
    name = "BILLING_POSTGRES_OWNER_DSN"
    return _url(environ, name, ("postgresql", "postgres")) if environ.get(name, "").strip() else ""


def _namespace(environ: Mapping[str, str]) -> str:
    value = environ.get("BILLING_NAMESPACE", "").strip()
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,40}", value):
        raise SettingError("BILLING_NAMESPACE may have at most 40 of A-Z a-z 0-9 _ -")
    return value


def whole_number(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """The setting `name`, `default` where it is not given. Raises SettingError for anything but low to high."""
    value = environ.get(name, "").strip()
    if not value:
        return default
    if not re.fullmatch(r"-?[0-9]{1,9}", value) or not low <= int(value) <= high:
        raise SettingError(f"{name} must be a whole number from {low} to {high}, got {value[:64]!r}")
    return int(value)


def _if_given(environ: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    return whole_number(environ, name, low, low, high) if environ.get(name, "").strip() else None
