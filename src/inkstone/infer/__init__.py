"""Row 5: sampling rules, generation with a cache, streaming."""
