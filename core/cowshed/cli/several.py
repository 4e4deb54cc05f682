"""Several arguments: go on after an error, as Docker does, and fail in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..errors import CowshedError
from .output import warn
from .session import Session


def for_each(session: Session, references: Iterable[str], act: Callable[[str], None]) -> None:
    """Do ``act`` for every reference; report what fails and let the command's status be 1."""
    for reference in references:
        try:
            act(reference)
        except CowshedError as error:
            warn(" ".join(str(error).split()))
            session.exit_status = error.exit_status
