"""Row 6: the OpenAI-compatible server and its web page."""
