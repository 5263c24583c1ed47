"""The `billing` command. Errors are one clear line on stderr and exit code 2."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from billing.cli.errors import explain as in_one_line  # `explain` here is a module once that command is imported
from billing.settings import SettingError

# name -> (module, attribute, help); modules are imported only when used, so that the command starts quickly
_COMMANDS = {
    "account": ("billing.cli.accounts", "account", "Open, import, show, change and credit accounts."),
    "balance": ("billing.cli.balances", "balance", "An account's live balance, from Redis."),
    "bench": ("billing.lab.bench.cli", "bench", "Measure the consumers on servers of their own."),
    "breaker": ("billing.cli.recharges", "breaker", "The breakers on money charged per minute."),
    "consume": ("billing.cli.consume", "consume", "Run one consumer process."),
    "demo": ("billing.lab.cli", "demo", "The whole pipeline on real servers, verified (what `make run` runs)."),
    "dev": ("billing.cli.dev", "dev", "A local Kafka, Valkey and PostgreSQL."),
    "dlq": ("billing.cli.dlq", "dlq", "Dead letters: list, show, publish again, give up."),
    "explain": ("billing.cli.explain", "explain", "Why a balance is what it is, from both books."),
    "findings": ("billing.cli.findings", "findings_group", "What a person should look at; resolving it."),
    "guard": ("billing.cli.guard", "guard", "Health of the balance store, and what to do about it."),
    "halts": ("billing.cli.halts", "halts_group", "Partitions that do not go on, and letting them go on."),
    "holds": ("billing.cli.balances", "holds", "An account's open holds, from Redis."),
    "ledger": ("billing.cli.ledger", "ledger_group", "The books in PostgreSQL."),
    "migrate": ("billing.cli.operations", "migrate", "Prepare PostgreSQL, the topics and Redis."),
    "partitions": ("billing.cli.partitions", "partitions_group", "How many there are; going over to more."),
    "publish": ("billing.cli.publish", "publish", "Publish CloudEvents from a file, one a line."),
    "rebuild": ("billing.cli.operations", "rebuild", "Rebuild the balance store from the ledger and the log."),
    "recharge": ("billing.cli.recharges", "recharge", "Pause and resume all charging."),
    "recharges": ("billing.cli.recharges", "recharges", "Charges, newest first, and why or why not."),
    "reconcile": ("billing.cli.operations", "reconcile", "Compare the two sets of books, every account."),
    "rerate": ("billing.cli.rerate", "rerate", "Price a plan's settled usage again; a dry run unless --apply."),
    "sandbox": ("billing.lab.sandbox.cli", "sandbox", "A payment gateway for development, as Stripe's API."),
    "soak": ("billing.lab.soak_cli", "soak", "A steady load for a while: does anything grow that should not?"),
    "statement": ("billing.cli.statement", "statement", "An account's statement of a month."),
    "tariff": ("billing.cli.tariffs", "tariff", "Load tariffs."),
    "usage": ("billing.cli.usage", "usage", "An account's settled usage, from PostgreSQL; refunds of it."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _help = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_m, _a, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="billing")
def cli() -> None:
    """Prepaid billing: live balances in Redis, double-entry books in PostgreSQL, both computed from Kafka.

    Servers come from BILLING_KAFKA_BOOTSTRAP, BILLING_REDIS_URL and BILLING_POSTGRES_DSN;
    `eval "$(billing dev up)"` starts local ones and sets them.
    """


def main() -> None:
    """Entry point: 0 done, 1 a check failed, 2 refused or in trouble (one line), 130 interrupted."""
    try:
        code = cli.main(prog_name="billing", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.message)
        code = 2
    except click.ClickException as error:
        click.echo(f"billing: {error.format_message()}", err=True)
        code = 2
    except SettingError as error:
        click.echo(f"billing: {error}", err=True)
        code = 2
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        line = in_one_line(error)
        if line is None:
            raise
        click.echo(f"billing: {line}", err=True)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
