"""hardlink-farm: equal files share one inode across all layers and containers."""
