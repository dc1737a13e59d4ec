"""How the server listens, what it refuses and how long it waits. No torch and no web framework here."""

import ipaddress
from pathlib import Path
from typing import Any, Literal

import pydantic

from inkstone.base.errors import ConfigError
from inkstone.base.settings import Settings, setting

Precision = Literal["auto", "fp32", "bf16", "int8", "int4"]
MAX_KEY_FILE_BYTES = 64 * 1024


class ServeSettings(Settings):
    """One server. Units: bytes, seconds, tokens as named."""

    host: str = setting("127.0.0.1", "address to listen on; any but this machine's own needs a key")
    port: int = setting(8000, "0 = any that is free", ge=0, le=65535)
    api_key: str | None = setting(
        None, "what a caller must send as 'Authorization: Bearer KEY' (a file keeps it out of process lists)"
    )
    api_key_file: str | None = setting(None, "file with such keys, one a line")
    parallel: int = setting(8, "sequences computed at once (slots), each with memory for a whole context", ge=1, le=512)
    ctx_size: int | None = setting(
        None, "most tokens of prompt and answer together; none = what the model was made for", ge=2, le=2**20
    )
    precision: Precision = setting("auto", "of the weights: auto, fp32, bf16, int8 or int4; auto = as stored where that is fast")
    max_waiting: int = setting(64, "sequences that may wait for a slot; one more is answered with 429", ge=0, le=100_000)
    timeout: float = setting(600.0, "seconds until a request that is not done is given up", gt=0, le=86_400)
    cors_origins: list[str] | None = setting(
        None, "web pages elsewhere that may call, such as https://chat.example; * = any, with a key"
    )
    public_metrics: bool = setting(False, "answer /metrics without a key")
    grace_seconds: float = setting(30.0, "time for running answers after SIGTERM or Ctrl-C", ge=0, le=3600)
    max_body_bytes: int = setting(2 * 1024 * 1024, "largest body of a request", ge=1024, le=2**30)
    max_header_bytes: int = setting(16 * 1024, "largest request line and headers", ge=1024, le=2**20)
    max_connections: int = setting(1024, "connections at once", ge=1, le=100_000)
    header_seconds: float = setting(10.0, "time to send the headers of a request", gt=0, le=600)
    body_seconds: float = setting(30.0, "time to send the body of a request", gt=0, le=3600)
    idle_seconds: float = setting(60.0, "time that a connection may rest between two requests", gt=0, le=3600)
    write_seconds: float = setting(30.0, "time that a caller may leave the answer unread", gt=0, le=3600)

    @pydantic.field_validator("api_key")
    @classmethod
    def _check_key(cls, key: str | None) -> str | None:
        if key is not None and not _is_key(key):
            raise ValueError("expected a key of 1 to 512 visible characters without spaces")  # and no word of what it was
        return key

    @pydantic.field_validator("cors_origins", mode="before")
    @classmethod
    def _list_origins(cls, given: Any) -> Any:
        """Return the origins as a list: on a command line they stand side by side with commas."""
        return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given

    @pydantic.field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: list[str] | None) -> list[str] | None:
        for origin in origins or []:
            scheme, _, rest = origin.partition("://")
            if origin != "*" and (scheme not in ("http", "https") or not rest or set(rest) & set("/?#@ ")):
                raise ValueError(f"expected origins such as https://chat.example:8443, found {origin!r:.80}")
        return origins


def load_keys(settings: ServeSettings) -> tuple[str, ...]:
    """Return every key that opens the server; none = it is open.

    Raises: ConfigError when the file of keys cannot be read, or when strangers could reach an open server.
    """
    keys = [] if settings.api_key is None else [settings.api_key]
    if settings.api_key_file is not None:
        keys += _read_keys(Path(settings.api_key_file))
    if not keys and not is_loopback(settings.host):
        raise ConfigError(
            f"host: {settings.host!r:.80} can be reached from other machines — give --api-key-file FILE (or --api-key KEY), or listen on "
            "127.0.0.1"
        )
    if not keys and "*" in (settings.cors_origins or []):
        raise ConfigError("cors_origins: '*' lets every web page use this server — give --api-key-file FILE, or name the origins")
    return tuple(keys)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _read_keys(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_KEY_FILE_BYTES:
            raise ConfigError(f"api_key_file: {path} is larger than {MAX_KEY_FILE_BYTES:,} bytes — expected one key a line")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"api_key_file: {path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    keys = [line.strip() for line in lines if line.strip()]
    bad = [number for number, line in enumerate(lines, 1) if line.strip() and not _is_key(line.strip())]
    if bad or not keys:
        where = f"line {bad[0]} is none" if bad else "it has none"
        raise ConfigError(f"api_key_file: {path}: expected keys of 1 to 512 visible characters, one a line; {where}")
    return keys


def _is_key(text: str) -> bool:
    return 1 <= len(text) <= 512 and text.isprintable() and not any(character.isspace() for character in text)
