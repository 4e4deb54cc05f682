"""Everything that ships with Cowshed and is no driver: transports, timing, quota, audit."""
