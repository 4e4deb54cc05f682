"""Build a real, big image in two versions with other people's tools, to measure on.

    python -m cowshed_benchmarks.real_image DIRECTORY

makes ``DIRECTORY/image``, an OCI layout with tags ``v1`` and ``v2``: a Debian root file system
(mmdebstrap), Python packages from wheels (pip), and a small application, each a gzip layer written
by GNU tar and umoci. The versions share the two lower layers; above them are numpy, scipy and
pandas one release apart, as a rebuild of a Dockerfile would leave them. Each takes some 620 MB
unpacked in 25,000 entries. Needs root, mmdebstrap, umoci, GNU tar and a network; takes a few
minutes. What is there already isn't made again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

DEBIAN = ("python3", "perl", "git", "ca-certificates", "curl", "vim-tiny", "nodejs")
#: The same in both versions.
STABLE = ("sympy==1.12", "networkx==3.2.1", "django==4.2.9")
#: One release apart.
MOVING = {
    "v1": ("numpy==1.26.3", "scipy==1.11.4", "pandas==2.1.4"),
    "v2": ("numpy==1.26.4", "scipy==1.12.0", "pandas==2.2.0"),
}
PACKAGES = "usr/local/lib/python3.11/dist-packages"
#: A fixed time, so that building twice gives the same image.
EPOCH = "2024-02-01 00:00:00Z"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is missing."""
    parser = argparse.ArgumentParser(prog="cowshed_benchmarks.real_image", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--suite", default="bookworm", help="Debian release (default: %(default)s)")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    options = parser.parse_args(arguments)
    directory: Path = options.directory.absolute()
    image = directory / "image"
    if (image / "index.json").exists() and (directory / "complete").exists():
        print(f"{image} is there already")
        return 0
    for tool in ("mmdebstrap", "umoci", "tar"):
        if shutil.which(tool) is None:
            print(f"{tool} is needed; install it with the system's package manager")
            return 1
    build = directory / "build"
    build.mkdir(parents=True, exist_ok=True)
    base = _base(build, options.suite, options.mirror)
    stable = _packed(build, "stable", _packages(build, "stable", STABLE))
    shutil.rmtree(image, ignore_errors=True)
    _run("umoci", "init", "--layout", image)
    for version, requirements in MOVING.items():
        moving = _packed(build, version, _packages(build, version, requirements))
        application = _packed(build, f"app-{version}", _application(build, version))
        _run("umoci", "new", "--image", f"{image}:{version}")
        for tar, words in (
            (base, "debian minbase"),
            (stable, f"pip install {' '.join(STABLE)}"),
            (moving, f"pip install {' '.join(requirements)}"),
            (application, "COPY app /srv/app"),
        ):
            _run(
                *("umoci", "raw", "add-layer", "--image", f"{image}:{version}"),
                *("--history.created_by", words, tar),
            )
    _run("umoci", "gc", "--layout", image)
    (directory / "complete").touch()
    print(f"{image}: tags {', '.join(MOVING)}")
    return 0


def _run(*command: object, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in command], check=True, cwd=cwd, stdin=subprocess.DEVNULL)


def _base(build: Path, suite: str, mirror: str) -> Path:
    tar = build / "base.tar"
    if not tar.exists():
        partial = build / "base.partial.tar"
        _run(
            *("mmdebstrap", "--variant=minbase", f"--include={','.join(DEBIAN)}"),
            *('--aptopt=Acquire::Languages "none"', suite, partial, mirror),
        )
        partial.rename(tar)
    return tar


def _packages(build: Path, name: str, requirements: Sequence[str]) -> Path:
    root = build / f"{name}-root"
    if not root.exists():
        partial = build / f"{name}-partial"
        shutil.rmtree(partial, ignore_errors=True)
        _run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"),
            *("--only-binary=:all:", "--root-user-action=ignore", "--python-version=3.11"),
            *("--target", partial / PACKAGES, *requirements),
        )
        partial.rename(root)
    return root


def _application(build: Path, version: str) -> Path:
    """Some configuration on top; the second version takes a file and a directory away."""
    root = build / f"app-{version}-root"
    shutil.rmtree(root, ignore_errors=True)
    app = root / "srv/app"
    app.mkdir(parents=True)
    (app / "version").write_text(f"{version}\n")
    (app / "settings.toml").write_text('[server]\nport = 8080\nname = "sandbox"\n')
    os.symlink("version", app / "current")
    if version != "v1":
        (root / PACKAGES / "networkx").mkdir(parents=True)
        (root / PACKAGES / "networkx/.wh.tests").touch()
        (root / "etc").mkdir()
        (root / "etc/.wh.issue.net").touch()
    return root


def _packed(build: Path, name: str, root: Path) -> Path:
    tar = build / f"{name}.tar"
    _run(
        *("tar", "--create", "--file", tar, "--format=posix", "--sort=name", "--numeric-owner"),
        *("--owner=0", "--group=0", f"--mtime={EPOCH}", "--pax-option=delete=atime,delete=ctime"),
        *("--directory", root, "."),
    )
    return tar


if __name__ == "__main__":
    sys.exit(main())
