"""Commands on the shed: gc, check, migrate, drivers, plugins, config."""

from __future__ import annotations

from typing import Any

import click

from .completion import anything
from .completion import drivers as complete_drivers
from .output import json_or_table, line, one_line, print_json, size, table
from .session import Session, pass_session


@click.command("gc")
@pass_session
def gc_command(session: Session) -> None:
    """Remove what nothing refers to and give the space back.

    --json: {freed, leases, orphans, blobs, skipped}.
    """
    done = session.shed.gc()
    if session.json:
        print_json(
            {
                "freed": done.freed,
                "leases": done.leases,
                "orphans": done.orphans,
                "blobs": done.blobs,
                "skipped": list(done.skipped),
            }
        )
        return
    if session.quiet:
        return
    for what, count in (
        ("operation of a dead process", done.leases),
        ("orphaned layer or container", done.orphans),
        ("unused blob", done.blobs),
    ):
        if count:
            line(f"Removed {count} × {what}")
    for reason in done.skipped:
        line(f"Skipped: {one_line(reason)}")
    line(f"Total reclaimed space: {size(done.freed)}")


@click.command("check")
@click.option("--deep", is_flag=True, help="Read and re-hash everything.")
@pass_session
def check_command(session: Session, deep: bool) -> None:
    """Look for damage; the exit status is 1 if there is any.

    --json: array of {severity, where, problem}; severity is damage, litter or notice.
    """
    findings = session.shed.check(deep=deep)
    damage = sum(1 for one in findings if one.severity == "damage")
    if damage:
        session.exit_status = 1
    if session.json:
        print_json(
            [
                {"severity": one.severity, "where": one.where, "problem": one.problem}
                for one in findings
            ]
        )
        return
    for one in findings:
        line(one_line(f"{one.severity}: {one.where}: {one.problem}"))
    if not session.quiet:
        line(f"{damage} damaged" if damage else "No damage found")


@click.command("migrate")
@click.option(
    "--to", required=True, metavar="DRIVER", help="The new driver.", shell_complete=complete_drivers
)
@click.argument("references", nargs=-1, metavar="[REF]...", shell_complete=anything)
@pass_session
def migrate_command(session: Session, to: str, references: tuple[str, ...]) -> None:
    """Move images and containers to another driver: all, or those named.

    --json: {images, containers, layers}.
    """
    moved = session.shed.migrate(to, references)
    if session.json:
        print_json({"images": moved.images, "containers": moved.containers, "layers": moved.layers})
    elif not session.quiet:
        line(
            f"Moved to {to}: {moved.images} images, {moved.containers} containers; "
            f"{moved.layers} layers written"
        )


@click.command("drivers")
@pass_session
def drivers_command(session: Session) -> None:
    """List drivers, whether each can run here, and what it can do.

    One that breaks the interface is refused, with the reason, until its plugin is mended.

    --json: array of {name, available, refused, reason, default, capabilities, max_depth, summary,
    plugin}.
    """
    shed = session.shed
    known = shed.plugins.drivers
    drivers: list[dict[str, Any]] = []
    for name in known.every_name():
        verdict = shed.plugins.judge(name, shed.home.drivers)
        spec = known.get(name)
        drivers.append(
            {
                "name": name,
                "available": verdict == ("", ""),
                "refused": bool(verdict.refused),
                "reason": verdict.refused or verdict.unable,
                "default": name == shed.config["driver"],
                "capabilities": sorted(one.name.lower() for one in spec.capabilities)
                if spec
                else [],
                "max_depth": spec.max_depth if spec else None,
                "summary": spec.summary if spec else "",
                "plugin": known.plugin_of(name),
            }
        )
    if session.quiet and not session.json:
        for driver in drivers:
            line(driver["name"])
        return
    json_or_table(
        session.json,
        drivers,
        lambda driver: driver,
        ("NAME", "AVAILABLE", "SUMMARY"),
        lambda driver: (
            f"{driver['name']}{' *' if driver['default'] else ''}",
            "yes" if driver["available"] else "refused" if driver["refused"] else "no",
            one_line(driver["summary"]),
        ),
    )
    if session.json:
        return
    line("")
    table(
        ("NAME", "CAPABILITIES"),
        (
            (driver["name"], ", ".join(driver["capabilities"]).replace("_", "-") or "-")
            for driver in drivers
        ),
    )
    unavailable = [driver for driver in drivers if not driver["available"]]
    if unavailable:
        line("")
    for driver in unavailable:
        said = "is refused" if driver["refused"] else "can't run here"
        line(one_line(f"{driver['name']} {said}: {driver['reason']}"))


@click.command("plugins")
@pass_session
def plugins_command(session: Session) -> None:
    """List plugins, where each comes from, and what is wrong with one.

    --json: array of {name, origin, module, failure, hooks}.
    """
    plugins = session.plugins()
    # What a plugin registers is looked at too, drivers' classes included: only then is it wrong.
    _ = plugins.transports, plugins.commands()
    place = session.load_config().root / "drivers"
    for name in plugins.drivers.every_name():
        plugins.judge(name, place if place.is_dir() else None)
    infos = plugins.infos
    if session.quiet and not session.json:
        for info in infos:
            line(one_line(info.name))
        return
    json_or_table(
        session.json,
        infos,
        lambda info: {**info._asdict(), "hooks": list(info.hooks)},
        ("NAME", "ORIGIN", "STATUS", "HOOKS"),
        lambda info: (
            one_line(info.name),
            info.origin,
            one_line(info.failure) or "ok",
            ", ".join(name.removeprefix("cowshed_") for name in info.hooks),
        ),
    )


@click.command("config")
@pass_session
def config_command(session: Session) -> None:
    """Show the effective settings and where each comes from.

    --json: object of setting → {value, source}.
    """
    config = session.load_config()
    if session.json:
        print_json(
            {
                name: {"value": value, "source": config.sources[name]}
                for name, value in config.values.items()
            }
        )
        return
    table(
        ("SETTING", "VALUE", "SOURCE"),
        (
            (name, one_line(_shown(value)), one_line(config.sources[name]))
            for name, value in config.values.items()
        ),
    )


def _shown(value: object) -> str:
    if value is None or value == () or value == {}:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    import json

    return json.dumps(value, ensure_ascii=False)
