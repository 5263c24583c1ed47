"""Hard declines: the same card will not do until a person acts."""

from __future__ import annotations

import pytest

from billing.recharge.declines import decline


@pytest.mark.parametrize(
    ("code", "decline_code", "advice", "hard"),
    [
        ("card_declined", "generic_decline", None, False),
        ("card_declined", "insufficient_funds", None, False),
        ("processing_error", None, None, False),
        ("card_declined", "a_code_of_tomorrow", None, False),
        (None, None, None, False),
        ("card_declined", "stolen_card", None, True),
        ("expired_card", None, None, True),
        ("expired_card", "expired_card", None, True),
        ("authentication_required", "authentication_required", None, True),
        ("card_declined", "generic_decline", "do_not_try_again", True),
        ("card_declined", "do_not_honor", "confirm_card_data", True),
        ("card_declined", "restricted_card", "try_again_later", False),
    ],
)
def test_s36_the_issuer_s_advice_counts_first_then_the_codes(
    code: str | None, decline_code: str | None, advice: str | None, hard: bool
) -> None:
    assert decline(code, decline_code, advice).hard is hard
