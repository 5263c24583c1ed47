"""Which declines are hard: the same card cannot succeed until its owner or bank does something. Pure.

Codes as card networks and Stripe name them. A code that is not listed is soft: back-off, the caps and the pause after
the fourth decline bound what a wrong guess can do.
"""

from __future__ import annotations

from billing.recharge.gateway import Decline

HARD = frozenset(
    {
        # the card is gone or invalid
        *("expired_card", "lost_card", "stolen_card", "pickup_card", "invalid_account", "closed_account"),
        *("incorrect_number", "invalid_number", "invalid_expiry_month", "invalid_expiry_year"),
        *("incorrect_cvc", "invalid_cvc", "incorrect_zip", "incorrect_address", "new_account_information_available"),
        # the bank or the network forbids it
        *("fraudulent", "merchant_blacklist", "restricted_card", "security_violation", "highest_risk_level"),
        *("revocation_of_authorization", "revocation_of_all_authorizations", "stop_payment_order"),
        *("transaction_not_allowed", "not_permitted", "service_not_allowed", "card_not_supported"),
        *("currency_not_supported", "do_not_try_again", "testmode_decline", "live_mode_test_card"),
        # only the customer, present, can go on
        *("authentication_required", "authentication_not_handled", "payment_intent_authentication_failure"),
        *("offline_pin_required", "online_or_offline_pin_required", "mobile_device_authentication_required"),
    }
)

_HARD_ADVICE = frozenset({"do_not_try_again", "confirm_card_data"})


def decline(code: str | None, decline_code: str | None, advice_code: str | None = None) -> Decline:
    """Classify: the issuer's advice where there is one, else the more precise of the two codes."""
    hard = advice_code in _HARD_ADVICE or (decline_code or code) in HARD or code in HARD
    if advice_code == "try_again_later":
        hard = False
    return Decline(code or "card_declined", decline_code, hard)
