"""The benchmark suite: drivers and peers, side by side."""
