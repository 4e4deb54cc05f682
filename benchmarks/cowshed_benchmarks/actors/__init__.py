"""Actors: drivers, peers and the floor, each doing the same work in its own way."""
