"""For drivers that keep trees as directories of the hosting file system: ours and yours.

``NativeTree`` is a directory plus a sidecar for what that directory can't hold; ``NativeDriver``
is a store of such trees with staging, publication by rename, and sweeping. Core itself doesn't use
it: it is a toolkit, and a driver may take all of it, some of it or nothing.
"""
