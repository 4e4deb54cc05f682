"""The shed's directory: made, recognised, guarded against formats from the future.

``cowshed.json`` says the format; ``catalog/`` is LMDB; ``blobs/`` the OCI content store;
``recipes/`` one file per layer; ``drivers/NAME/`` each driver's own; ``probed/`` which of those
work here; ``tmp/`` what is being written; ``locks`` the lock file. Mode 0700: what images hold is
nobody else's business (CVE-2021-41091).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from .errors import FormatTooNewError, ReadOnlyError, StoreError
from .partials import sync_directory

FORMAT = 1
_MARK = "cowshed.json"
_PARTS = ("catalog", "blobs", "recipes", "drivers", "tmp")


def made(root: Path, *names: str) -> Path:
    """Return the directory ``names`` below ``root``, which is made itself if need be."""
    path = root.joinpath(*names)
    try:
        path.mkdir(mode=0o700)  # what is above it is there, mostly
    except FileExistsError:
        pass
    except FileNotFoundError:
        for directory in (*reversed(path.parents[: len(names)]), path):
            directory.mkdir(mode=0o700, exist_ok=True)
    return path


class Home:
    """Paths of one shed, which exist once this is made."""

    def __init__(self, root: Path) -> None:
        """Open or create the shed's directory.

        Raises:
            StoreError: ``root`` is something else, or can't be made or read.
            FormatTooNewError: a newer Cowshed wrote it.
            ReadOnlyError: there is no shed yet and the disk is read-only.
        """
        self.root = root
        self.catalog = root / "catalog"
        self.blobs = root / "blobs"
        self.recipes = root / "recipes"
        self.drivers = root / "drivers"
        self.temporary = root / "tmp"
        self.locks = root / "locks"
        self.read_only = False
        try:
            mark = (root / _MARK).read_bytes()
        except FileNotFoundError:
            self._create()
        except NotADirectoryError:
            raise StoreError(f"{root} is not a directory; choose another --root") from None
        except OSError as error:
            raise StoreError(f"can't read shed {root}: {error.strerror}") from None
        else:
            self._check(mark)
            self.read_only = not os.access(root, os.W_OK) or not _writable_disk(root)
            if not self.read_only:
                self._make_parts()

    def _create(self) -> None:
        root = self.root
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Another process may be making it just now.
            strangers = [
                name
                for name in os.listdir(root)
                if name not in (*_PARTS, "locks", "lost+found") and not name.startswith(_MARK)
            ]
            if strangers:
                raise StoreError(
                    f"{root} holds other files ({strangers[0]}) and is no shed; "
                    "choose an empty directory with --root"
                )
            os.chmod(root, 0o700)
            self._make_parts()
            aside = root / f"{_MARK}.{os.urandom(8).hex()}"
            with aside.open("x") as file:
                json.dump({"format": FORMAT}, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(aside, root / _MARK)
            for directory in (root, root.parent):
                sync_directory(directory)
        except NotADirectoryError:
            raise StoreError(f"{root} is not a directory; choose another --root") from None
        except OSError as error:
            kind = ReadOnlyError if error.errno == 30 else StoreError
            raise kind(f"can't make a shed at {root}: {error.strerror}") from None

    def _make_parts(self) -> None:
        for part in _PARTS:
            path = self.root / part
            if not path.is_dir():
                path.mkdir(mode=0o700, exist_ok=True)

    def _check(self, mark: bytes) -> None:
        try:
            found = json.loads(mark)["format"]
            newer = found > FORMAT
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{self.root / _MARK} is damaged; is this a shed?") from None
        if newer:
            raise FormatTooNewError(str(self.root), found, FORMAT)

    def driver(self, name: str) -> Path:
        """Return a driver's own directory, made if need be."""
        path = self.drivers / name
        if not self.read_only and not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self.drivers)
        return path


def _writable_disk(path: Path) -> bool:
    return not os.statvfs(path).f_flag & os.ST_RDONLY
