"""Settings from the environment: a malformed one is named before anything starts."""

from __future__ import annotations

import pytest

from billing.settings import SettingError, Settings

GOOD = {
    "BILLING_KAFKA_BOOTSTRAP": "kafka-1:9092,[::1]:9093",
    "BILLING_REDIS_URL": "redis://:secret@redis:6379/0",
    "BILLING_POSTGRES_DSN": "postgresql://user:secret@db/billing",
}


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h:1/", "rediss://h/12", "redis://h/?db=3", "unix:///run/redis.sock"]
)
def test_good_settings(url: str) -> None:
    assert Settings.from_env({**GOOD, "BILLING_REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("BILLING_KAFKA_BOOTSTRAP", value) for value in ("", "kafka", "a:1,,b:2", "a:0", "a:65536", "a:99999")),
        *(
            ("BILLING_REDIS_URL", value)
            for value in ("", "redis", "http://h", "redis://h:port", "redis://h:1/x", "redis://h/1/2")
        ),
        *(("BILLING_POSTGRES_DSN", value) for value in ("", "db", "mysql://h/x", "postgresql://u:secret@h:abc/x")),
        *(("BILLING_PARTITIONS", value) for value in ("0", "x", "-1", "8.0")),
        ("BILLING_NAMESPACE", "a b"),
        ("BILLING_METRICS_PORT", "65536"),
    ],
)
def test_r12_a_malformed_setting_is_named_without_a_password(name: str, value: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings.from_env({**GOOD, name: value})
    assert name in str(caught.value)
    assert "secret" not in str(caught.value)
