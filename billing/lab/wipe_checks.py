"""What must hold of a wipe. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from billing.lab.checks import Check, example
from billing.lab.observe import Moment
from billing.lab.wipe import Damage


def wipe_checks(damage: Damage, moments: Sequence[Moment]) -> list[Check]:
    """Nobody charged and nobody suspended while no balance was known, though it was asked for; and no balance taken
    for known while there was none."""
    before = {payment.id: payment.status for payment in damage.before}
    created = [payment.id for payment in damage.after if payment.id not in before]
    paid = [p.id for p in damage.after if p.succeeded and before.get(p.id) != "succeeded"]
    during = [moment for moment in moments if damage.struck <= moment.at <= damage.recovering]
    fooled = [moment.known for moment in during if moment.known]
    seconds = damage.recovered - damage.struck
    return [
        Check(
            "wiped_balances_are_unknown",
            bool(during) and not fooled,
            f"in {len(during)} looks no balance was known" if not fooled else f"known {fooled} times",
        ),
        Check(
            "wiped_nobody_was_charged",
            not created and not paid and damage.refused > 0,
            f"{damage.signals:,} signals of a low balance, {damage.refused:,} evaluations refused, "
            f"{len(created)} payments made, {len(paid)} succeeded in {seconds:.1f} s{example([*created, *paid])}",
        ),
        Check(
            "wiped_nobody_was_suspended",
            damage.status_changes == 0,
            f"{damage.status_changes} changes, while the ledger settled {damage.settled:,} records",
        ),
    ]
