"""naive-copy: every layer and every container is a full copy."""
