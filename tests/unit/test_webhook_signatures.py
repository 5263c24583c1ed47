"""Which webhooks are genuine: signature first, then age, then what they are about (S34)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from stripe import WebhookSignature

from billing.settings import SettingError
from billing.webhooks.notices import Allowance
from billing.webhooks.settings import WebhookSettings
from billing.webhooks.signed import TOLERANCE_S, Notice, read_notice
from billing.webhooks.taken_back import GoneBack, _gone_back

SECRET, NEXT, OTHER = ("whsec_" + letter * 32 for letter in "abc")
NOW_S = 1_800_000_000.0


def body(type_: str = "payment_intent.succeeded", **object_: Any) -> str:
    return json.dumps({"id": "evt_1", "type": type_, "data": {"object": object_ or {"id": "pi_1"}}})


def read(text: str, secret: str = SECRET, signed_s: float = NOW_S, header: str | None = None) -> Any:
    signature = WebhookSignature.generate_signature_header(text, secret, int(signed_s))
    return read_notice(text.encode(), header or signature, [SECRET, NEXT], NOW_S)


def test_s34_signature_first_then_age_then_the_body() -> None:
    assert read(body()) == Notice("evt_1", "payment_intent.succeeded", "payment", "pi_1")
    assert read(body(), NEXT) == read(body())  # while one secret replaces the other
    assert read(body(), OTHER) == "forged"
    assert read("no json", OTHER, NOW_S - 9_000) == "forged"
    assert read("no json", signed_s=NOW_S - TOLERANCE_S - 1) == "stale"
    assert read(body(), signed_s=NOW_S + TOLERANCE_S + 1) == "stale"
    assert isinstance(read(body(), signed_s=NOW_S - TOLERANCE_S), Notice)
    assert read("no json") == "malformed"
    assert read("[]") == "malformed"
    assert read(body() + "\N{SNOWMAN}") == "malformed"


@pytest.mark.parametrize(
    "header", ["", "t=", "t=x,v1=y", "v1=abc", "t=1", "=", "t=1,v1=", ",,,,", "t=1800000000,v0=aa", "x" * 5000]
)
def test_s34_strange_headers_are_forged_and_raise_nothing(header: str) -> None:
    assert read_notice(body().encode(), header, [SECRET], NOW_S) == "forged"
    assert read_notice(body().encode(), None, [SECRET], NOW_S) == "forged"
    assert read_notice(b"\xff\xfe", header or "t=1,v1=aa", [SECRET], NOW_S) == "forged"


def test_s34_a_second_time_in_the_header_makes_nothing_younger() -> None:
    """What counts is the time that was signed."""
    old = WebhookSignature.generate_signature_header(body(), SECRET, int(NOW_S) - 9_000)
    assert read(body(), header=f"{old},t={int(NOW_S)}") == "stale"
    assert read(body(), header=f"t={int(NOW_S)},{old}") == "forged"


@pytest.mark.parametrize(
    ("type_", "object_", "kind", "payment"),
    [
        ("payment_intent.canceled", {"id": "pi_2"}, "payment", "pi_2"),
        ("charge.refunded", {"id": "ch_1", "payment_intent": "pi_2"}, "taken_back", "pi_2"),
        ("charge.refunded", {"id": "ch_1", "payment_intent": None}, "taken_back", None),
        ("charge.dispute.closed", {"id": "dp_1", "payment_intent": "pi_2"}, "taken_back", "pi_2"),
        ("refund.failed", {"id": "re_1", "payment_intent": "pi_2"}, "taken_back", "pi_2"),
        ("charge.refund.updated", {"id": "re_1", "payment_intent": "pi_2"}, "taken_back", "pi_2"),
        ("customer.created", {"id": "cus_1"}, "other", None),
    ],
)
def test_s34_what_a_webhook_is_about(type_: str, object_: dict[str, Any], kind: str, payment: str | None) -> None:
    assert read(body(type_, **object_)) == Notice("evt_1", type_, kind, payment)  # type: ignore[arg-type]


GATEWAY = {"BILLING_STRIPE_API_BASE": "http://127.0.0.1:1", "BILLING_STRIPE_API_KEY": "sk_test_12345678"}


def test_settings_name_what_is_wrong_and_never_show_a_secret() -> None:
    good = WebhookSettings.from_env({**GATEWAY, "BILLING_STRIPE_WEBHOOK_SECRET": f"{SECRET}, {NEXT}"})
    assert (good.host, good.port, good.secrets) == ("127.0.0.1", 8081, (SECRET, NEXT))
    assert (good.sweep_every_s, good.sweep_days) == (3600, 90)
    assert SECRET not in repr(good)
    signed = {"BILLING_STRIPE_WEBHOOK_SECRET": SECRET}
    for wrong, named in (
        ({}, "BILLING_STRIPE_WEBHOOK_SECRET is not set"),
        ({"BILLING_STRIPE_WEBHOOK_SECRET": "hunter2"}, "BILLING_STRIPE_WEBHOOK_SECRET must be"),
        ({"BILLING_STRIPE_WEBHOOK_SECRET": SECRET, "BILLING_WEBHOOK_ADDRESS": "x"}, "BILLING_WEBHOOK_ADDRESS"),
        ({**signed, "BILLING_WEBHOOK_SWEEP_SECONDS": "0"}, "SWEEP_SECONDS must be a whole number from 1 to 86400"),
        ({**signed, "BILLING_WEBHOOK_SWEEP_DAYS": "1.5"}, "SWEEP_DAYS must be a whole number from 1 to 365"),
    ):
        with pytest.raises(SettingError, match=named) as raised:
            WebhookSettings.from_env({**GATEWAY, **wrong})
        assert "hunter2" not in str(raised.value)


def test_r11_strangers_are_looked_at_at_a_bounded_rate() -> None:
    now_s = 50.0
    allowance = Allowance(5.0, 3, clock=lambda: now_s)
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    now_s += 0.5
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    now_s += 100.0
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


def test_s35_what_came_again_makes_room_for_the_refund_that_was_made_in_its_place() -> None:
    refunds = [{"id": "re_2", "amount": 5, "status": "succeeded"}, {"id": "re_1", "amount": 5, "status": "failed"}]
    disputes = [{"id": "dp_2", "amount": 7, "status": "lost"}, {"id": "dp_1", "amount": 7, "status": "won"}]
    listed = [json.dumps({"data": found, "has_more": False}) for found in (refunds, disputes)]
    assert _gone_back(*listed) == (
        GoneBack("refund_failed", "re_1", 5),
        GoneBack("dispute_won", "dp_1", 7),
        GoneBack("refund", "re_2", 5),
        GoneBack("dispute", "dp_2", 7),
    )
