"""The admission service's settings: defaults, and what is refused by name."""

from __future__ import annotations

import pytest

from billing.admission.settings import AdmissionSettings
from billing.settings import SettingError


def test_the_defaults_listen_on_loopback_and_allow() -> None:
    assert AdmissionSettings.from_env({}) == AdmissionSettings("127.0.0.1", 8080, "allow", 250, 30_000)


def test_every_setting_is_read() -> None:
    environ = {
        "BILLING_ADMISSION_ADDRESS": "[::1]:0",
        "BILLING_ADMISSION_UNKNOWN": "Deny",
        "BILLING_ADMISSION_DEADLINE_MS": "40",
        "BILLING_ADMISSION_BEHIND_MS": "5000",
        "BILLING_ADMISSION_REDIS_URL": "redis://:hunter2@replica:6379/0",
    }
    found = AdmissionSettings.from_env(environ)
    assert found == AdmissionSettings("::1", 0, "deny", 40, 5_000, "redis://:hunter2@replica:6379/0")
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BILLING_ADMISSION_ADDRESS", "8080"),
        ("BILLING_ADMISSION_ADDRESS", "host:"),
        ("BILLING_ADMISSION_ADDRESS", "host:65536"),
        ("BILLING_ADMISSION_ADDRESS", "::1:80"),
        ("BILLING_ADMISSION_UNKNOWN", "maybe"),
        ("BILLING_ADMISSION_DEADLINE_MS", "0"),
        ("BILLING_ADMISSION_DEADLINE_MS", "1.5"),
        ("BILLING_ADMISSION_DEADLINE_MS", "10001"),
        ("BILLING_ADMISSION_BEHIND_MS", "1999"),
        ("BILLING_ADMISSION_REDIS_URL", "replica:6379"),
        ("BILLING_ADMISSION_REDIS_URL", "redis+cluster://one:6379,two:6379/"),
    ],
)
def test_what_is_malformed_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=name):
        AdmissionSettings.from_env({name: value})
