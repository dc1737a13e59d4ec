"""Row 6: one self-contained HTML page per run, the model card and TensorBoard."""

from inkstone.report.page import write_report

__all__ = ["write_report"]
