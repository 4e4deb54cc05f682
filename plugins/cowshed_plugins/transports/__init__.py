"""Transports for what lies on disk: OCI layouts, archives of two kinds, directories and tars."""
