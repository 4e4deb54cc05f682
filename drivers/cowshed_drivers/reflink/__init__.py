"""reflink: full trees whose files share extents with their parent's, on XFS and btrfs."""
