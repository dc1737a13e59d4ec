"""Row 5: the objective, the step, the loop and what hangs on it."""
