"""What BILLING_REDIS_URL may be."""

from __future__ import annotations

import pytest

from billing.balance.address import BadAddress, parse_address
from billing.settings import SettingError, Settings

ENVIRON = {
    "BILLING_KAFKA_BOOTSTRAP": "kafka:9092",
    "BILLING_POSTGRES_DSN": "postgresql://db/billing",
}


def test_one_server_is_as_it_was() -> None:
    for url in ("redis://host", "redis://:pw@host:6379/3", "rediss://u:p@host/0?ssl_cert_reqs=none", "unix:///run/r.sock"):
        address = parse_address(url)
        assert (address.kind, address.url) == ("server", url)
    assert parse_address("rediss://u:p@host/3?a=b").node_url(("10.0.0.1", 7)) == "rediss://u:p@10.0.0.1:7/3?a=b"


def test_a_cluster_is_some_of_its_nodes() -> None:
    address = parse_address("redis+cluster://u:p@a:7000,b,[::1]:7002/?socket_read_size=9")
    assert (address.kind, address.hosts) == ("cluster", (("a", 7000), ("b", 6379), ("::1", 7002)))
    assert address.node_url(("::1", 7002)) == "redis://u:p@[::1]:7002?socket_read_size=9"
    assert parse_address("rediss+cluster://a").node_url(("a", 1)) == "rediss://a:1"


def test_sentinels_have_a_service_and_a_login_of_their_own() -> None:
    address = parse_address("redis+sentinel://u:p@a:1,b/main/2?sentinel_password=s%40t&sentinel_username=x")
    assert (address.kind, address.hosts, address.service) == ("sentinel", (("a", 1), ("b", 26379)), "main")
    assert address.node_url(("d", 5)) == "redis://u:p@d:5/2"
    assert address.sentinel_url(("a", 1)) == "redis://x:s%40t@a:1"
    assert parse_address("redis+sentinel://a/main").sentinel_url(("a", 1)) == "redis://a:1"


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://host", "begin with redis://"),
        ("redis+cluster://", "name its hosts"),
        ("redis+cluster://a:7000,", "name its hosts"),
        ("redis+cluster://a:70000", "name its hosts"),
        ("redis+cluster://a/1", "no database but 0"),
        ("redis+sentinel://a:1", "name the service"),
        ("redis+sentinel://a:1/main/x", "name the service"),
        ("redis://host/abc", "number of a database"),
        ("redis://", "be a URL"),
        ("redis://host:x", "be a URL"),
    ],
)
def test_anything_else_is_refused_without_repeating_it(url: str, what: str) -> None:
    with pytest.raises(BadAddress, match=what) as refused:
        parse_address(url)
    assert "secret" not in str(refused.value)
    with pytest.raises(SettingError, match=f"BILLING_REDIS_URL must .*{what}"):
        Settings.from_env({**ENVIRON, "BILLING_REDIS_URL": url})


def test_r12_a_password_is_not_repeated() -> None:
    with pytest.raises(SettingError) as refused:
        Settings.from_env({**ENVIRON, "BILLING_REDIS_URL": "redis+cluster://:secret@a:b/"})
    assert "secret" not in str(refused.value)
