"""Completion: what a shell offers for images, containers and drivers, and its script."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from .output import line
from .session import Session, pass_session

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _completer(list_names: Callable[[Session], Iterable[str]]) -> Completer:
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        del parameter
        session = context.ensure_object(Session)
        try:
            return [name for name in list_names(session) if name.startswith(incomplete)]
        except Exception:
            # Pressing TAB is no moment for error messages; the command itself says what is wrong.
            return []
        finally:
            session.close()

    return complete


def _images(session: Session) -> list[str]:
    shed = session.existing_shed()
    if shed is None:
        return []
    with shed.catalog.read() as transaction:
        names = [name for name, _ in transaction.image_names()]
    return sorted({*names, *(name.removesuffix(":latest") for name in names)})


def _containers(session: Session) -> list[str]:
    shed = session.existing_shed()
    return [] if shed is None else sorted(container.name for container in shed.containers())


images = _completer(_images)
containers = _completer(_containers)
drivers = _completer(lambda session: sorted(session.plugins().drivers))
anything = _completer(lambda session: [*_containers(session), *_images(session)])


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_session
def completion_command(session: Session, shell: str) -> None:
    """Print the script that makes SHELL complete commands, images, containers and drivers.

    In bash: eval "$(cowshed completion bash)"
    """
    from click.shell_completion import get_completion_class

    from .main import cli

    del session
    found = get_completion_class(shell)
    assert found is not None
    line(found(cli, {}, "cowshed", "_COWSHED_COMPLETE").source())
