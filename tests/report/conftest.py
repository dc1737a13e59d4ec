import pytest
from fake_run_folder import make_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """One realistic run, read only."""
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart")
