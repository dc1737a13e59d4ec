"""Row 1: tokenizers, chat rendering, incremental UTF-8 and stop strings."""
