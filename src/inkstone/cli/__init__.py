"""Row 7: one file per command."""
