"""Each kind of error has the exit code of who must act."""

from inkstone.base import errors


def test_exit_codes_are_the_houses():
    codes = {
        kind.__name__: kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.InkstoneError)
    }
    assert codes == {
        "InkstoneError": 1, "ConfigError": 2, "RequestError": 2, "DataError": 3, "CheckpointError": 4, "ResourceError": 5,
        "NetworkError": 6, "Interrupted": 75,
    }  # fmt: skip
