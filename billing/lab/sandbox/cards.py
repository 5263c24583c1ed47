"""Stripe's documented test payment methods: what each does when attached and when charged.

Cards that decline are refused when attached, too, except `pm_card_chargeCustomerFail`, which is there for declines
of a saved card.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Refusal:
    """A decline: the error's code, the issuer's decline code where there is one, and the message."""

    code: str
    decline_code: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Card:
    """`authenticates`: never; `unsaved` (off session only while not attached to a customer); `always`."""

    brand: str = "visa"
    refusal: Refusal | None = None
    attaches: bool = True
    authenticates: Literal["never", "unsaved", "always"] = "never"


_DECLINED = "Your card was declined."

GENERIC = Refusal("card_declined", "generic_decline", _DECLINED)
AUTHENTICATION = Refusal(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)

_REFUSALS = {
    "chargeDeclined": GENERIC,
    "chargeDeclinedInsufficientFunds": Refusal(
        "card_declined", "insufficient_funds", "Your card has insufficient funds."
    ),
    "chargeDeclinedLostCard": Refusal("card_declined", "lost_card", _DECLINED),
    "chargeDeclinedStolenCard": Refusal("card_declined", "stolen_card", _DECLINED),
    "chargeDeclinedFraudulent": Refusal("card_declined", "fraudulent", _DECLINED),
    "chargeDeclinedVelocityLimitExceeded": Refusal("card_declined", "card_velocity_exceeded", _DECLINED),
    "chargeDeclinedExpiredCard": Refusal("expired_card", None, "Your card has expired."),
    "chargeDeclinedIncorrectCvc": Refusal("incorrect_cvc", None, "Your card's security code is incorrect."),
    "chargeDeclinedProcessingError": Refusal(
        "processing_error", None, "An error occurred while processing your card. Try again in a little bit."
    ),
}

CARDS: dict[str, Card] = {
    "pm_card_visa": Card(),
    "pm_card_visa_debit": Card(),
    "pm_card_us": Card(),
    "pm_card_mastercard": Card("mastercard"),
    "pm_card_mastercard_debit": Card("mastercard"),
    "pm_card_amex": Card("amex"),
    "pm_card_discover": Card("discover"),
    "pm_card_chargeCustomerFail": Card(refusal=GENERIC),
    "pm_card_authenticationRequired": Card(authenticates="always"),
    "pm_card_authenticationRequiredOnSetup": Card(authenticates="unsaved"),
    "pm_card_authenticationRequiredSetupForOffSession": Card(),
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds": Card(
        refusal=_REFUSALS["chargeDeclinedInsufficientFunds"], authenticates="always"
    ),
    # Stripe documents some of these with the brand in the name and some without; both are taken
    **{f"pm_card_{name}": Card(refusal=refusal, attaches=False) for name, refusal in _REFUSALS.items()},
    **{f"pm_card_visa_{name}": Card(refusal=refusal, attaches=False) for name, refusal in _REFUSALS.items()},
}
