"""The corpora that need no network: `microworld` (generated) and `stdlib` (this Python's own library)."""
