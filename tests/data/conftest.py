"""What the data tests share: a tokenizer that is obviously right (one id a byte)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


class ByteTokenizer:
    """Ids 0..255 are bytes, 256 ends a document."""

    kind, vocab_size, eos_id, pad_id, fingerprint, special = "char", 257, 256, 256, "f" * 64, {"<|endoftext|>": 256}
    byte_lengths = np.array([1] * 256 + [0], dtype=np.int32)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: list[int]) -> str:
        return bytes(int(i) for i in ids if i != 256).decode()

    def save(self, folder: Path) -> Path:
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps({"fake": True}))
        return path


@pytest.fixture
def byte_tokenizer() -> ByteTokenizer:
    return ByteTokenizer()
