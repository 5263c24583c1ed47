"""`billing dlq replay` and `discard`: decisions about dead letters, each kept with its author and reason."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import click

from billing.cli.common import author, json_option, ledger, print_fields, print_json, refuse, run
from billing.cli.dlq_filter import filter_options, make_filter
from billing.cli.dlq_shown import PLACE
from billing.deadletters import decide
from billing.deadletters.decide import Decision, Held, Planned, Replayed
from billing.deadletters.letters import EVERY, Filter, Letter, Place, letters, letters_at, now
from billing.deadletters.pages import paged
from billing.deadletters.prices import LedgerPrices, Tally
from billing.ledger.database import Pool
from billing.money import format_micros
from billing.settings import Settings
from billing.stream.publisher import Publisher

LISTED = 1000  # letters by name in an answer; beyond it only numbers
WAIT_SECONDS = 10.0
POLL_SECONDS = 0.1

_by = click.option("--by", metavar="NAME", help="Who decides this; kept with it.  [default: the user]")
_places = click.argument("places", metavar="[PARTITION/OFFSET]...", type=PLACE, nargs=-1)
_all = click.option("--all", "everything", is_flag=True, help="Every letter that may be.")
_dry = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


@dataclass
class _Outcome:
    replayed: Replayed = field(default_factory=Replayed)
    tally: Tally | None = None
    states: Counter[str] = field(default_factory=Counter)

    def add(self, more: Replayed) -> None:
        self.replayed.published += more.published
        self.replayed.held += more.held
        self.replayed.unknown += more.unknown
        self.replayed.trouble = more.trouble


@click.command("replay")
@_places
@filter_options("--letter-reason", states=False)
@_all
@_dry
@click.option("--anyway", is_flag=True, help="Also those that would be refused again (never those that are too old).")
@_by
@click.option("--reason", default="replayed by hand", show_default=True, metavar="TEXT", help="Why; kept with it.")
@click.option("--no-wait", is_flag=True, help="Do not wait until post-flight has read them.")
@json_option
def replay(
    *, places: tuple[Place, ...], everything: bool, dry_run: bool, anyway: bool, by: str | None, reason: str,
    no_wait: bool, as_json: bool, **which: Any,
) -> int:  # fmt: skip
    """Publish letters again, the same bytes to their account's partition: those named, or all that a filter finds.

    What is replayed twice, by whomever, is charged once. What came from a replay and would be refused again is replayed
    by its name only.
    """
    wanted, decision = _wanted(places, everything, which), _decision(by, reason)

    async def work(settings: Settings) -> _Outcome:
        async with ledger(settings) as pool, _publisher(settings) as publisher:
            prices, outcome = LedgerPrices(pool, settings.partitions), _Outcome()
            replaying = decide.Replay(pool, publisher, settings.topics.usage, decision)
            outcome.tally = Tally(prices)
            async for page in _pages(pool, places, wanted):
                planned, held = await decide.plan(prices, page, int(time.time() * 1000), anyway=anyway)
                if not places:
                    planned, copies = await decide.without_copies(pool, planned)
                    held += copies
                if dry_run:
                    await outcome.tally.add([p.letter for p in planned])
                    outcome.add(Replayed(published=[(p.letter.place, _to(p)) for p in planned], held=held))
                    continue
                outcome.add(await replaying.publish(planned))
                outcome.replayed.held += held
                if outcome.replayed.trouble is not None:
                    break
            if not dry_run and not no_wait:
                outcome.states = await _until_read(pool, [place for place, _ in outcome.replayed.published])
            return outcome

    outcome = run(work(Settings.from_env()))
    found = outcome.replayed
    if len(places) == 1 and found.held:
        refuse(f"{found.held[0].place} is not replayed: {found.held[0].why}")
    _print_replayed(outcome, dry_run=dry_run, as_json=as_json)
    if found.trouble is not None:
        refuse(f"Kafka: {found.trouble}; what is unknown may be in the log, and may be replayed again")
    return 1 if places and found.held else 0


@click.command("discard")
@_places
@filter_options("--letter-reason", states=False)
@_all
@_dry
@_by
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept with it.")
@json_option
def discard(
    *, places: tuple[Place, ...], everything: bool, dry_run: bool, by: str | None, reason: str, as_json: bool,
    **which: Any,
) -> int:  # fmt: skip
    """Give letters up, for good: those named, or all open ones that a filter finds. Their bytes stay."""
    wanted, decision = _wanted(places, everything, which), _decision(by, reason)

    async def work(settings: Settings) -> tuple[list[Place], list[Held], Tally]:
        async with ledger(settings) as pool:
            tally = Tally(LedgerPrices(pool, settings.partitions))
            done: list[Place] = []
            held: list[Held] = []
            async for page in _pages(pool, places, wanted):
                await tally.add([letter for letter in page if letter.state == "open"])
                given_up, kept = decide.discardable(page) if dry_run else await decide.discard(pool, page, decision)
                done, held = [*done, *given_up], [*held, *kept]
            return done, held, tally

    done, held, tally = run(work(Settings.from_env()))
    if len(places) == 1 and held:
        refuse(f"{held[0].place} is not discarded: {held[0].why}")
    verb = "would_be_discarded" if dry_run else "discarded"
    fields: dict[str, Any] = {verb: len(done), "held_back": len(held), **_money(tally, as_json=as_json)}
    if as_json:
        fields["letters"] = [str(place) for place in done[:LISTED]]
        fields["held"] = _held(held)
    print_fields(fields, as_json=as_json)
    return 1 if places and held else 0


def _wanted(places: Sequence[Place], everything: bool, which: dict[str, Any]) -> Filter:
    wanted = make_filter(**which)
    if (bool(places), wanted != EVERY, everything).count(True) != 1:
        refuse("name letters, or give a filter (--letter-reason, --account, --since, …), or --all")
    return wanted


def _decision(by: str | None, reason: str) -> Decision:
    decision = Decision(author() if by is None else by, reason)
    problem = decision.problem()
    if problem is not None:
        refuse(problem)
    return decision


async def _pages(pool: Pool, places: Sequence[Place], wanted: Filter) -> AsyncIterator[list[Letter]]:
    """Letters that were there when this began: one that is refused again must not come round once more."""
    if not places:
        limited = replace(wanted, states=decide.REPLAYABLE, stored_by=await now(pool))
        async for page in paged(letters(pool, limited)):
            yield page
        return
    unique = list(dict.fromkeys(places))
    found = await letters_at(pool, unique)
    missing = set(unique) - {letter.place for letter in found}
    if missing:
        refuse(f"there is no dead letter {min(missing)}")
    yield found


def _publisher(settings: Settings) -> Publisher:
    return Publisher(settings.kafka_bootstrap, client_id="billing-dlq-replay")


def _to(planned: Planned) -> Place:
    return Place(planned.letter.place.topic, planned.partition, -1)


async def _until_read(pool: Pool, places: Sequence[Place]) -> Counter[str]:
    """The letters' states once post-flight has read all of their replays, or after WAIT_SECONDS."""
    watched = places[:LISTED]
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        states: Counter[str] = Counter([letter.state for letter in await letters_at(pool, watched)])
        if not states["replayed"] or time.monotonic() > deadline:
            return states
        await asyncio.sleep(POLL_SECONDS)


def _print_replayed(outcome: _Outcome, *, dry_run: bool, as_json: bool) -> None:
    found = outcome.replayed
    fields: dict[str, Any] = {
        "would_be_published" if dry_run else "published": len(found.published),
        "held_back": len(found.held),
    }
    if dry_run and outcome.tally is not None:
        fields |= _money(outcome.tally, as_json=as_json)
    else:
        fields |= {"unknown": len(found.unknown), **outcome.states}
    if not as_json:
        print_fields(fields, as_json=False)
        for why, count in Counter(held.why for held in found.held).most_common(20):
            click.echo(f"held back {count:,}: {why}")
        return
    places = [{"letter": str(place), "partition": to.partition, "offset": to.offset} for place, to in found.published]
    if dry_run:
        places = [{"letter": row["letter"], "partition": row["partition"]} for row in places]
    unknown = [str(place) for place in found.unknown[:LISTED]]
    print_json({**fields, "letters": places[:LISTED], "held": _held(found.held), "unknown_letters": unknown})


def _held(held: Sequence[Held]) -> list[dict[str, str]]:
    return [{"letter": str(each.place), "why": each.why} for each in held[:LISTED]]


def _money(tally: Tally, *, as_json: bool) -> dict[str, Any]:
    totals, unpriced = tally.totals(), tally.unpriced()
    if as_json:
        amounts = [{"currency": c, "amount_micros": micros} for c, micros in totals.items()]
        return {"held_up": amounts, "unpriced": unpriced}
    parts = [f"{format_micros(micros, c)} {c}" for c, micros in totals.items()]
    if unpriced:
        parts.append(f"that of {unpriced} that cannot be priced")
    return {"held_up": ", ".join(parts) or "nothing"}
