"""The command `doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from kling_async.cli.doctor.facts import Environment, Facts, Finding, Level
from kling_async.cli.environment import addresses
from kling_async.cli.place import Place
from kling_async.cli.voice import UNAVAILABLE, Voice, colours_on_stdout, finish, speaks

__all__ = ["doctor_command"]

_COLOURS: dict[Level, str] = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command(
    name="doctor",
    epilog="""\b
Examples:
  kling-async doctor
  kling-async doctor -o out
  kling-async doctor --json | jq '.findings[] | select(.level != "ok")'
""",
)
@click.option("-o", "--out", type=Place(), help="Also see whether results can be kept in this folder.")
@speaks
@addresses
def doctor_command(*, out: Path | str | None, base_url: str | None, region: str | None, voice: Voice) -> None:
    """
    Find out what keeps this from working: credentials, network, clock, account, this machine.

    Sends one request, which costs nothing; no task is created. Exits with 0 if nothing failed, 3 if credentials or
    configuration are to be mended, 4 if the account cannot pay, 5 if the service cannot be reached.
    """
    import anyio

    from kling_async.cli.doctor import local, remote
    from kling_async.cli.doctor.gather import look_at_environment

    environment = look_at_environment()
    facts = anyio.run(_gather, environment, base_url, region, out)
    findings = [finding for check in (*remote.CHECKS, *local.CHECKS) for finding in check(facts)]
    code = _exit_code(findings)
    if voice.json:
        voice.emit({"findings": [_fields(finding) for finding in findings], "exit_code": code})
    else:
        _tell(findings, voice)
    finish(code)


async def _gather(
    environment: Environment, base_url: str | None, region: str | None, out: Path | str | None
) -> Facts:
    from kling_async.cli.doctor.gather import address_of, ask_service, look_at_machine, look_at_place

    address, trouble = address_of(environment.variables, base_url, region)
    return Facts(
        environment=environment,
        address=address,
        address_trouble=trouble,
        answer=await ask_service(address, environment.variables) if address else None,
        machine=look_at_machine(address),
        place=None if out is None else look_at_place(out),
    )


def _exit_code(findings: list[Finding]) -> int:
    # What is to be mended here comes before what may pass by itself.
    codes = {finding.exit_code for finding in findings} - {0}
    return min(codes - {UNAVAILABLE} or codes, default=0)


def _fields(finding: Finding) -> dict[str, str | None]:
    return {
        "check": finding.check,
        "level": finding.level,
        "found": finding.found,
        "remedy": finding.remedy or None,
    }


def _tell(findings: list[Finding], voice: Voice) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        level = f"{finding.level:<7}"
        if colours_on_stdout():
            level = click.style(level, fg=_COLOURS[finding.level])
        voice.data(f"{level}  {finding.check:<{width}}  {finding.found}")
        if finding.remedy:
            voice.data(f"{'':7}  {'':{width}}  -> {finding.remedy}")
    counts = {level: sum(finding.level == level for finding in findings) for level in _COLOURS}
    if counts["failed"]:
        voice.say(f"{counts['failed']} failed, {counts['warning']} to look at", colour="red", bold=True)
    elif counts["warning"]:
        voice.say(f"nothing failed, {counts['warning']} to look at", colour="yellow", bold=True)
    else:
        voice.say("all is well", colour="green", bold=True)
