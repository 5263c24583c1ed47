"""Adding partitions to a deployment that has accounts (S16)."""
