"""overlayfs: the kernel merges a container's directory over those of its layers."""
