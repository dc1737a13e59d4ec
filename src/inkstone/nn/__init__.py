"""Row 1: configs, layers, attention, the transformer, caches, initialization and the cost model."""
