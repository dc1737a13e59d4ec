import pytest
from serving_double import running


@pytest.fixture(scope="module")
def server():
    """A running server with short deadlines and an open door."""
    with running(max_body_bytes=4096, max_header_bytes=4096) as found:
        yield found
