"""Statuses: what ``ps`` says of each container's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .output import age_of_ns

if TYPE_CHECKING:
    from ..running.registry import Registry, State
    from ..shed import Shed


class Statuses:
    """Reads a small file for each container that ever ran, and nothing for the others."""

    def __init__(self, shed: Shed) -> None:
        self._shed = shed
        self._registry: Registry | None = None
        self._ran: set[str] = set()
        root = shed.home.root / "running"
        if root.exists():
            from ..running.registry import Registry

            self._registry = Registry(root)
            self._ran = set(self._registry.containers())

    def text(self, container: str, now: float) -> str:
        """Return it in Docker's words."""
        state, runs = self._look(container)
        if state is None:
            return "Created"
        if runs:
            return f"Up {age_of_ns(state.started_ns, now).removesuffix(' ago')}"
        status = "?" if state.status is None else state.status
        return f"Exited ({status}) {age_of_ns(state.finished_ns or state.started_ns, now)}"

    def fields(self, container: str) -> dict[str, object]:
        """Return it for JSON."""
        state, runs = self._look(container)
        if state is None:
            return {"status": "created", "exit_code": None}
        return {"status": "running" if runs else "exited", "exit_code": state.status}

    def _look(self, container: str) -> tuple[State | None, bool]:
        if self._registry is None or container not in self._ran:
            return None, False
        state = self._registry.read(container)
        if state is None or state.bundle:
            return None, False
        return state, state.status is None and self._shed.running.running(container)
