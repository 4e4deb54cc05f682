"""What can be configured about the farm."""

from __future__ import annotations

import attrs


def _at_least_four(
    instance: FarmOptions, attribute: attrs.Attribute[int | None], value: object
) -> None:
    # One name in objects, one each in a layer, a stage and a container.
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 4):
        raise ValueError(f"max_links must be a whole number of at least 4, not {value!r}")


@attrs.frozen(kw_only=True)
class FarmOptions:
    """Options of hardlink-farm."""

    #: Links after which an inode gets no more; None: as many as the file system allows, which is
    #: learnt by trying (ext4 65,000, XFS 2 billion) and saves a stat for every link.
    max_links: int | None = attrs.field(default=None, validator=_at_least_four)
