"""The byte-level alphabet: every byte as one printable character, as byte-level vocabularies write it."""

import functools


@functools.cache
def character_of_byte() -> tuple[str, ...]:
    """Return the character that stands for each byte 0..255.

    Printable bytes stand for themselves; the others, in order, for U+0100 and up (Source: GPT-2's encoder).

    >>> character_of_byte()[ord("a")], character_of_byte()[ord(" ")]
    ('a', 'Ġ')
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    shifted = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(shifted)) for byte in range(256))


@functools.cache
def byte_of_character() -> dict[str, int]:
    """Return the inverse of `character_of_byte`."""
    return {character: byte for byte, character in enumerate(character_of_byte())}


def bytes_of_token(token: str) -> bytes:
    """Return the bytes that a byte-level token stands for; a token outside the alphabet stands for its own UTF-8."""
    try:
        return bytes(map(byte_of_character().__getitem__, token))
    except KeyError:
        return token.encode("utf-8", "replace")
