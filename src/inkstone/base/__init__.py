"""Row 0: errors, settings, files, seeds, quantities, logs and the family table; knows nothing of models."""
