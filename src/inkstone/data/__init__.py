"""Row 2: sources, cleaning, dedup, splits, shards, packing and the loader; the built-in corpora."""
