"""``cowshed holes``: how many holes the shed's pigeons have."""

from __future__ import annotations

import click

from cowshed.cli.session import Session, pass_session


@click.command("holes")
@pass_session
def holes(session: Session) -> None:
    """Count the holes of every tree that pigeonhole holds."""
    driver = session.shed.driver("pigeonhole")
    for item in driver.items():
        count = sum(entry.size > 0 for entry in driver.tree(item.id).walk())
        click.echo(f"{item.held.value} {item.id[:12]}: {count}")
