"""Named seed streams: every random decision has its own, so that adding one never shifts another."""

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream that `names` spell under the root `seed`.

    The same arguments give the same seed on every machine and in every process.
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
