"""Row 3: the checkpoint store, run state, and exchange with Hugging Face folders."""
