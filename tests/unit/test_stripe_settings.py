"""Stripe's two settings: both required, checked, the key never shown."""

from __future__ import annotations

import pytest

from billing.recharge.stripe_settings import StripeSettings
from billing.settings import SettingError

TEST_KEY = "sk_test_0123456789"


def settings(base: str | None, key: str | None) -> StripeSettings:
    environ = {"BILLING_STRIPE_API_BASE": base, "BILLING_STRIPE_API_KEY": key}
    return StripeSettings.from_env({name: value for name, value in environ.items() if value is not None})


@pytest.mark.parametrize("base", ["https://api.stripe.com", "http://127.0.0.1:12111/", "http://localhost:1"])
def test_the_gateway_and_a_sandbox_on_this_machine_are_taken(base: str) -> None:
    assert settings(base, TEST_KEY).api_base == base.rstrip("/")


@pytest.mark.parametrize(
    ("base", "key", "named"),
    [
        (None, TEST_KEY, "BILLING_STRIPE_API_BASE is not set"),
        ("https://api.stripe.com", " ", "BILLING_STRIPE_API_KEY is not set"),
        ("http://api.stripe.com", TEST_KEY, "must begin with https://"),
        ("ftp://127.0.0.1", TEST_KEY, "must begin with https://"),
        ("https://api.stripe.com/v1", TEST_KEY, "BILLING_STRIPE_API_BASE must be like"),
        ("https://user:hush@api.stripe.com", TEST_KEY, "BILLING_STRIPE_API_BASE must be like"),
        ("https://api.stripe.com:port", TEST_KEY, "BILLING_STRIPE_API_BASE must be like"),
        ("https://api.stripe.com", "pk_test_0123456789", "BILLING_STRIPE_API_KEY must be"),
        ("http://127.0.0.1:1", "sk_live_0123456789", "is a live key"),
    ],
)
def test_r12_what_is_missing_or_malformed_is_named_and_the_key_is_not_shown(
    base: str | None, key: str | None, named: str
) -> None:
    with pytest.raises(SettingError, match=named) as refused:
        settings(base, key)
    assert "0123456789" not in str(refused.value)
    assert "hush" not in str(refused.value)


def test_r12_the_key_is_not_in_the_settings_repr() -> None:
    assert TEST_KEY not in repr(settings("https://api.stripe.com", TEST_KEY))
