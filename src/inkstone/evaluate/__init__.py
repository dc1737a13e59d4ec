"""Row 6: perplexity, accuracy, bits per byte, intervals and baselines."""
