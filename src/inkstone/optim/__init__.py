"""Row 2: optimizers, schedules, parameter groups and clipping."""
