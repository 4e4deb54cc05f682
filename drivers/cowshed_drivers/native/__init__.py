"""What drivers share that keep trees as directories of the hosting file system.

``NativeTree`` is a directory plus a sidecar for what that directory can't hold; ``NativeDriver``
is a store of such trees with staging, publication by rename, and sweeping.
"""
