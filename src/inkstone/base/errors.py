"""The few kinds of error a user can meet, each with the exit code of who must act.

Everything else that is raised is a bug and exits with 1.
"""


class InkstoneError(Exception):
    """An expected failure: its message is one readable line (or one line per problem) and needs no traceback."""

    exit_code = 1


class ConfigError(InkstoneError):
    """The command or the recipe is wrong: fix the settings."""

    exit_code = 2


class RequestError(InkstoneError):
    """A call asked for something that cannot be done: fix the call."""

    exit_code = 2


class DataError(InkstoneError):
    """The input files are wrong, or training became non-finite: fix the files."""

    exit_code = 3


class CheckpointError(InkstoneError):
    """A checkpoint, model folder or tokenizer is damaged or does not fit: choose another."""

    exit_code = 4


class ResourceError(InkstoneError):
    """Disk, memory, device or port is missing: free something."""

    exit_code = 5


class NetworkError(InkstoneError):
    """A download is needed and cannot be had."""

    exit_code = 6


class Interrupted(InkstoneError):  # noqa: N818
    """Stopped on request after saving; the same command goes on."""

    exit_code = 75
