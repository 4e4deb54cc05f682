"""Distributions of others: installed beside Cowshed, seen by it without a change to its source."""
