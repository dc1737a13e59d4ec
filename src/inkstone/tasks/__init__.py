"""Row 2: how a task's examples become tokens and how a reply is graded."""
