"""Cowshed: copy-on-write storage for container images."""
