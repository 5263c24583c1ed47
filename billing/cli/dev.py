"""`billing dev`: local Kafka, Valkey and PostgreSQL, and the payment sandbox."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import NoReturn
from urllib.parse import urlsplit, urlunsplit

import click

from billing.cli.common import json_option, print_json, print_rows, run
from billing.cli.dev_sandbox import BackgroundSandbox
from billing.devstack.background import BackgroundStack
from billing.devstack.choice import How
from billing.devstack.errors import DevStackError
from billing.devstack.processes import LAUNCHER
from billing.devstack.services import Services, open_services, say_on_stderr
from billing.operations import NotPrepared, migrate
from billing.settings import Settings

CHILD_LIMIT_S = 30.0


@click.group()
def dev() -> None:
    """A local Kafka, Valkey and PostgreSQL, without Java or a container engine, and a payment sandbox.

    Services whose address is set in the environment are used as they are; the others run as containers where an
    engine answers, else as local processes.
    """


@dev.command()
@click.option("--consumers", is_flag=True, help="Start the consumers in the background too.")
@json_option
def up(consumers: bool, as_json: bool) -> None:
    """Start the services in the background, migrate, and print shell lines: eval "$(billing dev up)"."""
    with _refusals(), redirect_stdout(sys.stderr):  # stdout is for the shell alone
        stack = BackgroundStack()
        services = stack.up()
        run(_migrate(services))
        stack.end_replaced(services)
        gateway = BackgroundSandbox().up()
        if consumers:
            BackgroundStack(environ={**os.environ, **gateway}).start_consumers(services)
    environ = services.environ | gateway
    if "BILLING_STATE_DIR" in os.environ:
        environ["BILLING_STATE_DIR"] = os.environ["BILLING_STATE_DIR"]
    if as_json:
        print_json({"environment": environ, "how": {service.value: how.value for service, how in services.how.items()}})
    else:
        for name, value in environ.items():
            click.echo(f"export {name}={shlex.quote(value)}")


@dev.command()
@click.option("--remove-data", is_flag=True, help="Remove the data of the local services too.")
@json_option
def down(remove_data: bool, as_json: bool) -> None:
    """Stop what `up` started, consumers first. The data stays for the next `up`."""
    with _refusals():
        ran = BackgroundStack().down(remove_data=remove_data)
        ran = BackgroundSandbox().down(remove_data=remove_data) or ran
    if as_json:
        print_json({"stopped": ran})
    else:
        click.echo("stopped" if ran else "nothing was running", err=True)


@dev.command()
@json_option
def status(as_json: bool) -> int:
    """Show the services of the background stack; exit code 1 unless all of them run."""
    with _refusals():
        found = BackgroundStack().status()
    rows = [
        {
            "name": each.name,
            "how": each.how.value,
            "state": each.state,
            "pid": each.pid,
            "address": _without_password(each.address),
        }
        for each in found
    ]
    sandbox = BackgroundSandbox().status()
    if sandbox is not None:
        how = {"name": "sandbox", "how": How.PROCESS.value, "state": sandbox.state}
        rows.append({**how, "pid": sandbox.pid, "address": sandbox.address})
    print_rows(rows, as_json=as_json, empty="nothing was started here")
    return 0 if rows and all(row["state"] == "running" for row in rows) else 1


@dev.command(name="exec", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(command: tuple[str, ...]) -> int:
    """Run COMMAND with services of its own, which end with it (write -- before a command with options)."""
    program = shutil.which(command[0])
    if program is None:
        raise click.ClickException(f"{command[0]}: no such command")
    signal.signal(signal.SIGTERM, _interrupted)
    with _refusals(), open_services(purpose="exec") as services:
        return _run([program, *command[1:]], services)


def _run(command: list[str], services: Services) -> int:
    """The child shares our terminal, and ends should we be killed. Its exit code, as a shell would give it."""
    launch = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(signal.SIGTERM)), "-1", "-1"]
    child = subprocess.Popen([*launch, *command], env={**os.environ, **services.environ})
    try:
        code = child.wait()
    except BaseException:  # Ctrl-C reached the child as well; SIGTERM did not
        child.terminate()
        try:
            child.wait(CHILD_LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise
    return code if code >= 0 else 128 - code


async def _migrate(services: Services) -> None:
    outcome = await migrate(Settings.from_env({**os.environ, **services.environ}))
    if isinstance(outcome, NotPrepared):
        raise click.ClickException(outcome.reason)
    for line in outcome.lines:
        say_on_stderr(line)


@contextmanager
def _refusals() -> Iterator[None]:
    """Trouble with the local services is one clear line and exit code 2."""
    try:
        yield
    except DevStackError as trouble:
        raise click.ClickException(str(trouble)) from trouble


def _interrupted(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    if not parts.password:
        return address
    return urlunsplit(parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}"))
