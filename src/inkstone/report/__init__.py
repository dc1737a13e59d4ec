"""Row 6: one self-contained HTML page per run, the model card and TensorBoard."""
