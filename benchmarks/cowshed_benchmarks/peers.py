"""Other systems doing the same work: what ours is compared with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .measuring import Ran, run


def skopeo_missing() -> str | None:
    """Say why skopeo with overlay can't be measured here, or None."""
    if shutil.which("skopeo") is None:
        return "skopeo is not installed"
    if os.geteuid() != 0:
        return "containers-storage with overlay needs root"
    return None


def skopeo_import(layout: Path, tag: str, store: Path) -> Ran:
    """``skopeo copy`` into containers-storage with overlay, ended by a sync."""
    place = f"overlay@{store / 'graph'}+{store / 'run'}"
    ran = run(
        [
            *("skopeo", "copy", "--insecure-policy", "--quiet", f"oci:{layout}:{tag}"),
            f"containers-storage:[{place}]localhost/app:{tag}",
        ],
        sync=store,
    )
    # containers-storage mounts its directory on itself and may leave it so.
    subprocess.run(["umount", str(store / "graph/overlay")], stderr=subprocess.DEVNULL)
    return ran
