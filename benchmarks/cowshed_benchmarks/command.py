"""``cowshed bench``: measure drivers and peers, side by side, on the same input in the same run."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

import click

from cowshed.cli.session import Session, add_global_options

if TYPE_CHECKING:
    from .running import Asked

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


class _Size(click.ParamType[int]):
    """A number of bytes, with or without a unit."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?|)b?\s*", str(value), re.IGNORECASE)
        if found is None:
            self.fail(f"{value!r} is no size; one is written as in 500MB or 2GB", param, ctx)
        count = int(float(found[1]) * _UNITS[found[2].lower()])
        if not 10**6 <= count <= 100 * 10**9:
            self.fail(f"{value!r} is out of bounds: 1MB to 100GB", param, ctx)
        return count


class _Group(click.Group):
    """Measures by itself; the commands that read results are imported when they are called."""

    _readers: ClassVar[dict[str, tuple[str, str]]] = {
        "compare": ("judging", "What changed between two runs, and what of it is certain"),
        "report": ("reporting", "One HTML page of a run; the headline for a README"),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return list(self._readers)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        if cmd_name not in self._readers:
            return None
        from importlib import import_module

        module, short_help = self._readers[cmd_name]
        found = getattr(import_module(f".{module}.command", __package__), f"{cmd_name}_command")
        assert isinstance(found, click.Command)
        found.short_help = short_help
        return add_global_options(found)


@click.group("bench", cls=_Group, invoke_without_command=True)
@click.option("--quick", is_flag=True, help="End within two minutes: small images, few rounds.")
@click.option("--driver", "drivers", metavar="NAME", multiple=True, help="Only these drivers.")
@click.option("--workload", "workloads", metavar="NAME", multiple=True, help="Only these.")
@click.option(
    "--peer",
    "peers",
    metavar="NAME",
    multiple=True,
    help="Only these peers; none: no peers. By default those that are installed; with --quick "
    "without those that are much like another.",
)
@click.option(
    "--image",
    "images",
    metavar="REF",
    multiple=True,
    help="Work on this image, as 'cowshed import' takes it; twice: and on its update.",
)
@click.option(
    "--synthetic", metavar="SIZE", type=_Size(), help="Work on a synthetic image of that size."
)
@click.option(
    "--rounds", type=click.IntRange(1, 1000), help="How often everything is done, at most."
)
@click.option(
    "--minutes",
    type=click.FloatRange(1, 24 * 60),
    help="How long it may take.  [default: 30, with --quick 2]",
)
@click.option(
    "--on",
    "file_system",
    type=click.Choice(["xfs", "btrfs", "ext4"]),
    help="Keep everybody's data on such a file system, made for the run (takes root).",
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the results go, as JSON. [default: bench-DATE.json]",
)
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to work. Images that were made stay in it for the next run.",
)
@click.option("--list", "listing", is_flag=True, help="List workloads and subjects, run nothing.")
@click.pass_context
def bench(
    context: click.Context,
    quick: bool,
    drivers: tuple[str, ...],
    workloads: tuple[str, ...],
    peers: tuple[str, ...],
    images: tuple[str, ...],
    synthetic: int | None,
    rounds: int | None,
    minutes: float | None,
    file_system: str | None,
    out: Path | None,
    directory: Path | None,
    listing: bool,
) -> None:
    """Measure drivers and peers, side by side.

    Every registered driver takes part, and every peer that is installed. A whole run takes up to
    thirty minutes. Nothing that is on the machine is touched, and no network is used.
    """
    if context.invoked_subcommand is not None:
        return
    session = context.ensure_object(Session)
    from .inputs import Wish
    from .running import Asked

    asked = Asked(
        quick=quick,
        drivers=tuple(dict.fromkeys(drivers)),
        peers=_peers(peers),
        workloads=_workloads(workloads),
        rounds=rounds,
        minutes=minutes,
        wish=Wish(images=_images(images, synthetic), synthetic=synthetic),
        directory=directory,
        file_system=file_system,
        command=("cowshed", *sys.argv[1:]),
        config_file=session.config_file,
        overrides=dict(session.overrides),
    )
    if listing:
        from .listing import show_list

        show_list(session, asked)
        return
    _run(session, asked, out)


def _peers(names: tuple[str, ...]) -> tuple[str, ...] | None:
    if not names:
        return None
    if "none" in names:
        if len(names) > 1:
            raise click.UsageError("--peer none goes with no other --peer")
        return ()
    return tuple(dict.fromkeys(names))


def _workloads(names: tuple[str, ...]) -> tuple[str, ...]:
    from cowshed.errors import NotFoundError

    from .workloads import WORKLOADS

    for name in names:
        if name not in WORKLOADS:
            raise NotFoundError("workload", name, WORKLOADS)
    return names


def _images(images: tuple[str, ...], synthetic: int | None) -> tuple[str, ...]:
    if len(images) > 2:
        raise click.UsageError("--image is given once, or twice for an image and its update")
    if images and synthetic is not None:
        raise click.UsageError("--image and --synthetic exclude each other")
    return images


def _run(session: Session, asked: Asked, out: Path | None) -> None:
    import time

    from cowshed.errors import CowshedError

    from .progress import progress
    from .reporting import report_beside
    from .running import run
    from .table import show

    target = out or Path(time.strftime("bench-%Y%m%d-%H%M%S.json"))
    if not target.absolute().parent.is_dir():
        raise CowshedError(f"{target}: its directory doesn't exist; make it, or change --out")
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        with progress(silent=session.quiet) as listener:
            found, whole = run(asked, session.load_config(), listener)
    finally:
        signal.signal(signal.SIGTERM, previous)
    found.write(target)
    if not session.quiet:
        show(found)
        click.echo(f"Every sample: {target}")
    if not whole:
        raise KeyboardInterrupt
    page, reason = report_beside(found, target)
    if not session.quiet:
        click.echo(f"Report: {page}" if page else f"No report was made: {reason}")
    if any(sample.outcome == "failed" for sample in found.samples):
        session.exit_status = 1


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    """Clear up on SIGTERM as on Ctrl-C: mounts and daemons mustn't stay."""
    raise KeyboardInterrupt
