"""Row 2: weights in fewer bits: FAMILY of schemes, packed linear layers, and what they cost."""
