"""What can be set about chunk-dedup. Every default was measured; see each comment."""

from __future__ import annotations

from typing import Any

import attrs
from attrs.validators import ge, instance_of, le

_KIB = 1 << 10
_MIB = 1 << 20


def _bounded(low: int, high: int) -> list[Any]:
    return [instance_of(int), ge(low), le(high)]


@attrs.frozen(kw_only=True)
class Options:
    """Options of chunk-dedup. Those on sizes hold for what is written from now on."""

    #: zstd level. 3 compresses 150-200 MB/s a thread; 9 makes packs about 12 % smaller at a
    #: quarter of the speed.
    compression_level: int = attrs.field(default=3, validator=_bounded(-7, 19))
    #: Bytes of content compressed as one frame: 1 MiB is within 4 % of 16 MiB in size, and a
    #: random read decompresses no more than this.
    group_size: int = attrs.field(default=_MIB, validator=_bounded(16 * _KIB, 16 * _MIB))
    #: Compressed bytes at which a pack file is closed.
    pack_size: int = attrs.field(default=32 * _MIB, validator=_bounded(64 * _KIB, 512 * _MIB))
    #: Bytes of content gathered, then sorted so that similar files share a frame.
    window_size: int = attrs.field(default=16 * _MIB, validator=_bounded(64 * _KIB, 512 * _MIB))
    #: FastCDC's target. Chunks come out 16 KiB longer on average and never over 128 KiB.
    chunk_size: int = attrs.field(default=32 * _KIB, validator=_bounded(16 * _KIB, 64 * _KIB))
    #: Threads that compress while the caller's thread reads, hashes and chunks.
    threads: int = attrs.field(default=2, validator=_bounded(1, 64))
    #: Bytes of decompressed frames kept for reading, per driver object.
    cache_size: int = attrs.field(default=32 * _MIB, validator=_bounded(0, 1 << 40))
    #: Address space of the index. The file is sparse and grows with use; the map is doubled
    #: should it ever fill.
    map_size: int = attrs.field(default=64 << 30, validator=_bounded(_MIB, 1 << 46))
