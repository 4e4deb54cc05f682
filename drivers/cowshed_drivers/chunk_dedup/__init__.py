"""chunk-dedup: chunks stored once, in compressed packs, indexed by LMDB; see ``driver``."""
