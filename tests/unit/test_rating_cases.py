"""Worked cases from a dialled number to a price, through tariff files, each computed by hand: prefix ties, missing
prefixes, rate 0, directions, several plans and currencies. Amounts in micro-units. The arithmetic of one rate alone
is in test_pricing_cases.py."""

from __future__ import annotations

import pytest
import usage_builders as build

from billing.rating.price import call_price, unit_price
from billing.rating.tariff import Tariff
from schemas.catalogue import RateDirection, TariffKind

PLANS = {
    # 60/6 with a fee and a minimum; prefixes of one to seven digits that share a beginning
    "us-retail": (
        "USD",
        """\
call,outbound,1,0.0120,60,6,0.01,0.02,North America
call,outbound,1787,0.0500,60,60,,,Puerto Rico
call,outbound,1800,0,60,60,,,toll free
call,outbound,44,0.0150,60,6,,,United Kingdom
call,outbound,447,0.0900,60,6,,,UK mobile
call,outbound,4470,0.5000,60,60,0.10,,UK personal numbers
call,outbound,4474573,0.0150,1,1,,,one operator
call,inbound,1,0.0085,60,60,,,
call,inbound,1800,0.0300,60,60,,,toll free is paid by who is called
call,inbound,44,0,60,60,,,
sms,outbound,1,0.0079,,,,,
sms,outbound,44,0.0400,,,,,
sms,outbound,short:12,0.5,,,,,
sms,inbound,1,0,,,,,
""",
    ),
    # per second, no fee
    "eu-second": (
        "EUR",
        """\
call,outbound,49,0.0100,1,1,,,Germany
call,outbound,4915,0.0601,1,1,,,German mobile
call,outbound,33,0.0100,30,6,,,France
call,inbound,49,0.000001,1,1,,,one micro-unit a minute
sms,outbound,49,0.0750,,,,,
""",
    ),
    # a currency without decimals: micro-units all the same
    "jp": (
        "JPY",
        """\
call,outbound,81,8,60,60,,10,Japan
call,outbound,8190,22.5,30,30,5,,Japanese mobile
sms,outbound,81,3.3,,,,,
""",
    ),
    # a currency with three decimals
    "kw": ("KWD", "call,outbound,965,0.0125,60,15,0.001,,Kuwait\n"),
}
TARIFFS = {plan: Tariff(build.tariff(text, plan=plan, currency=currency)) for plan, (currency, text) in PLANS.items()}

# plan, direction, dialled, seconds -> the prefix that wins, price
CALLS: list[tuple[str, RateDirection, str, int, str, int]] = [
    # the longest prefix wins, whatever it costs
    ("us-retail", "outbound", "+12025550123", 60, "1", 22_000),
    ("us-retail", "outbound", "+12025550123", 61, "1", 23_200),
    ("us-retail", "outbound", "+12025550123", 66, "1", 23_200),
    ("us-retail", "outbound", "+12025550123", 67, "1", 24_400),
    ("us-retail", "outbound", "+12025550123", 0, "1", 0),
    ("us-retail", "outbound", "+17875550123", 61, "1787", 100_000),
    ("us-retail", "outbound", "+17865550123", 60, "1", 22_000),
    ("us-retail", "outbound", "+442079460000", 90, "44", 22_500),
    ("us-retail", "outbound", "+447911123456", 60, "447", 90_000),
    ("us-retail", "outbound", "+447011123456", 1, "4470", 600_000),
    ("us-retail", "outbound", "+447011123456", 61, "4470", 1_100_000),
    ("us-retail", "outbound", "+447457312345", 7, "4474573", 1_750),
    ("us-retail", "outbound", "+447457412345", 7, "447", 90_000),  # differs in its seventh digit
    # rate 0 is free because the tariff says so, in the direction that it says
    ("us-retail", "outbound", "+18005550123", 3_600, "1800", 0),
    ("us-retail", "inbound", "+18005550123", 61, "1800", 60_000),
    ("us-retail", "inbound", "+442079460000", 59, "44", 0),
    # inbound and outbound of one number
    ("us-retail", "inbound", "+12025550123", 61, "1", 17_000),
    ("us-retail", "inbound", "+17875550123", 60, "1", 8_500),  # no inbound line of its own
    ("eu-second", "outbound", "+4930123456", 60, "49", 10_000),
    ("eu-second", "inbound", "+4930123456", 60, "49", 1),
    # rounding: 10_000 * s / 60 is 166.67 s; 60_100 * s / 60 is 1001.67 s; halves up
    ("eu-second", "outbound", "+4930123456", 1, "49", 167),
    ("eu-second", "outbound", "+4930123456", 2, "49", 333),
    ("eu-second", "outbound", "+4930123456", 3, "49", 500),
    ("eu-second", "outbound", "+4915112345678", 1, "4915", 1_002),
    ("eu-second", "outbound", "+4915112345678", 2, "4915", 2_003),
    ("eu-second", "outbound", "+4915112345678", 3, "4915", 3_005),
    ("eu-second", "inbound", "+4930123456", 29, "49", 0),
    ("eu-second", "inbound", "+4930123456", 30, "49", 1),
    ("eu-second", "inbound", "+4930123456", 89, "49", 1),
    ("eu-second", "inbound", "+4930123456", 90, "49", 2),
    # 30/6 at its boundaries
    ("eu-second", "outbound", "+33142685300", 1, "33", 5_000),
    ("eu-second", "outbound", "+33142685300", 30, "33", 5_000),
    ("eu-second", "outbound", "+33142685300", 31, "33", 6_000),
    ("eu-second", "outbound", "+33142685300", 36, "33", 6_000),
    ("eu-second", "outbound", "+33142685300", 37, "33", 7_000),
    # no decimals, and nothing is rounded to the minor unit: 8 yen a minute, at least 10
    ("jp", "outbound", "+81312345678", 60, "81", 10_000_000),
    ("jp", "outbound", "+81312345678", 61, "81", 16_000_000),
    ("jp", "outbound", "+819012345678", 30, "8190", 16_250_000),
    ("jp", "outbound", "+819012345678", 31, "8190", 27_500_000),
    # three decimals: 12_500 * 75 / 60 = 15_625, and the fee
    ("kw", "outbound", "+96522212345", 60, "965", 13_500),
    ("kw", "outbound", "+96522212345", 61, "965", 16_625),
    ("kw", "outbound", "+96522212345", 76, "965", 19_750),
]


@pytest.mark.parametrize("case", CALLS)
def test_a_dialled_call_costs(case: tuple[str, RateDirection, str, int, str, int]) -> None:
    plan, direction, to, seconds, matched, price_micros = case
    rate = TARIFFS[plan].match("call", direction, to)
    assert rate is not None
    assert (rate.match, call_price(rate, seconds)) == (matched, price_micros)


# plan, direction, destination, segments -> price
MESSAGES: list[tuple[str, RateDirection, str, int, int]] = [
    ("us-retail", "outbound", "+12025550123", 1, 7_900),
    ("us-retail", "outbound", "+12025550123", 3, 23_700),
    ("us-retail", "outbound", "+447911123456", 2, 80_000),
    ("us-retail", "outbound", "short:12345", 1, 500_000),
    ("us-retail", "inbound", "+12025550123", 4, 0),
    ("eu-second", "outbound", "+4915112345678", 2, 150_000),
    ("jp", "outbound", "+819012345678", 2, 6_600_000),
]


@pytest.mark.parametrize("case", MESSAGES)
def test_a_message_costs(case: tuple[str, RateDirection, str, int, int]) -> None:
    plan, direction, to, segments, price_micros = case
    rate = TARIFFS[plan].match("sms", direction, to)
    assert rate is not None
    assert unit_price(rate, segments) == price_micros


@pytest.mark.parametrize(
    ("plan", "kind", "direction", "to"),
    [
        ("us-retail", "call", "outbound", "+4930123456"),  # priced by another plan only
        ("eu-second", "call", "outbound", "+12025550123"),
        ("eu-second", "call", "inbound", "+33142685300"),  # priced outbound only
        ("eu-second", "call", "outbound", "+34912345678"),  # one digit beside 33
        ("us-retail", "mms", "outbound", "+12025550123"),
        ("us-retail", "sms", "outbound", "short:13345"),
        ("us-retail", "call", "outbound", "short:12345"),
        ("jp", "call", "outbound", "+8"),  # shorter than any prefix
        ("kw", "call", "outbound", "+9612345678"),
    ],
)
def test_a_missing_prefix_is_no_price_never_free(
    plan: str, kind: TariffKind, direction: RateDirection, to: str
) -> None:
    assert TARIFFS[plan].match(kind, direction, to) is None
