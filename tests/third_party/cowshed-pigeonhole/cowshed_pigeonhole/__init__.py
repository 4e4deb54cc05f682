"""A driver for Cowshed, as drivers/README.md builds it."""
