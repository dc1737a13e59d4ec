"""What text costs without a neural network: `xz -9`, and an n-gram model of bytes. Both in bits per byte, as models are measured."""

import lzma

import numpy as np
import numpy.typing as npt

# Bytes that the n-gram model sees, the one to predict among them; six bytes are also two Chinese characters. Measured at orders 5, 6
# and 7, in bits per byte: tinyshakespeare (1.0 MB of training) 2.278, 2.248, 2.258; Hongloumeng (2 MB) 2.129, 2.092, 2.074.
ORDER = 6
NGRAM_NAME = f"{ORDER}-gram"
MAX_ORDER = 8  # an n-gram is packed into 64 bits
MAX_TRAIN_BYTES = 4_000_000  # a larger text is sampled, in pieces spread evenly over it
NUM_PIECES = 64


def baselines(train: bytes, val: bytes) -> dict[str, dict[str, float]]:
    """Return `{name: {"bits_per_byte": …}}` of held-out text for every baseline.

    Raises: ValueError when `val` is empty.
    """
    return {
        "xz -9": {"bits_per_byte": xz_bits_per_byte(val)},
        NGRAM_NAME: {"bits_per_byte": NGramModel(train).bits_per_byte(val)},
    }


def xz_bits_per_byte(text: bytes) -> float:
    """Return the bits per byte of the text as `xz -9` packs it, its container included.

    Raises: ValueError when the text is empty.
    """
    if not text:
        raise ValueError("expected some text to compress, found none")
    return 8 * len(lzma.compress(text, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=9)) / len(text)


class NGramModel:
    """An interpolated Kneser-Ney model of bytes, one absolute discount an order.

    For each order n it keeps the distinct n-grams as sorted 64-bit keys with their counts, and for each history its total and its
    number of different followers. The highest order counts occurrences; a lower one counts in how many different contexts an
    n-gram occurs, which is what it is asked when the longer history was never seen.

    Memory: about 60 bytes a training byte at most, so 240 MB at `MAX_TRAIN_BYTES`.
    Source: Kneser and Ney 1995; Chen and Goodman, An Empirical Study of Smoothing Techniques (1999), section 2.7.
    """

    def __init__(self, train: bytes, *, order: int = ORDER, max_train_bytes: int = MAX_TRAIN_BYTES) -> None:
        """Count the n-grams of `train`, or of an even sample of it where it is longer than `max_train_bytes`.

        Raises: ValueError for an order outside 1 … 8.
        """
        if not 1 <= order <= MAX_ORDER:
            raise ValueError(f"expected an order of 1 to {MAX_ORDER}, found {order}")
        self.order = order
        self._tables: list[_Table] = []  # of orders 1 … order
        data = np.frombuffer(_sample(train, max_train_bytes), dtype=np.uint8)
        grams, counts = np.unique(_keys(data, order), return_counts=True)
        for length in range(order, 0, -1):
            self._tables.insert(0, _Table(grams, counts))
            if length > 1:
                # One n-gram less its first byte, counted once for every byte that was seen before it.
                grams, counts = np.unique(grams & _mask(length - 1), return_counts=True)

    def bits_per_byte(self, text: bytes) -> float:
        """Return the mean of -log2 p(byte | the bytes before it in this text); unseen bytes have a probability too.

        Raises: ValueError when the text is empty.
        """
        if not text:
            raise ValueError("expected some text to measure, found none")
        return float(-np.log2(self.probabilities(text)).mean())

    def probabilities(self, text: bytes) -> npt.NDArray[np.float64]:
        """Return p(byte | the bytes before it) of every byte. The first bytes have a shorter history. Shapes: (N,)."""
        data = np.frombuffer(text, dtype=np.uint8)
        p_N = np.full(len(data), 1 / 256)
        for length, table in enumerate(self._tables, start=1):
            if length > len(data):
                break
            p_N[length - 1 :] = table.interpolate(_keys(data, length), p_N[length - 1 :])
        return p_N


class _Table:
    """The n-grams of one order, and their histories."""

    def __init__(self, grams: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]) -> None:
        self.grams, self.counts = grams, counts
        self.histories, starts = np.unique(grams >> np.uint64(8), return_index=True)
        self.totals = np.add.reduceat(counts, starts) if len(starts) else counts
        self.followers = np.diff(np.append(starts, len(grams)))
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        # Ney, Essen and Kneser 1994: the discount that leave-one-out would choose. Where every n-gram is frequent it is 0, and
        # where none occurs twice it is 1, at which a seen n-gram would weigh nothing; both ends are kept off, so that no p is 0.
        self.discount = min(0.95, max(0.05, once / (once + 2 * twice) if once else 0.0))

    def interpolate(self, keys_N: npt.NDArray[np.uint64], lower_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return this order's probabilities of n-grams whose next lower order's are `lower_N`. Shapes: both (N,)."""
        if not len(self.grams):
            return lower_N
        count_N = _look_up(self.grams, self.counts, keys_N)
        history_N = keys_N >> np.uint64(8)
        total_N = _look_up(self.histories, self.totals, history_N)
        followers_N = _look_up(self.histories, self.followers, history_N)
        seen_N = np.maximum(total_N, 1)
        mixed_N = (np.maximum(count_N - self.discount, 0) + self.discount * followers_N * lower_N) / seen_N
        return np.where(total_N > 0, mixed_N, lower_N)


def _keys(data_N: npt.NDArray[np.uint8], length: int) -> npt.NDArray[np.uint64]:
    """Return every run of `length` bytes as one number, the newest byte lowest. Shapes: (N - length + 1,)."""
    num_keys = max(0, len(data_N) - length + 1)
    keys = np.zeros(num_keys, dtype=np.uint64)
    for offset in range(length):
        keys = (keys << np.uint64(8)) | data_N[offset : offset + num_keys].astype(np.uint64)
    return keys


def _look_up(
    names: npt.NDArray[np.uint64], values: npt.NDArray[np.int64], wanted_N: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """Return the values of the wanted names, 0 for those that are not there; `names` are sorted."""
    place_N = np.minimum(np.searchsorted(names, wanted_N), len(names) - 1)
    return np.where(names[place_N] == wanted_N, values[place_N], 0)


def _mask(length: int) -> np.uint64:
    return np.uint64((1 << (8 * length)) - 1)


def _sample(text: bytes, most: int) -> bytes:
    """Return at most about `most` bytes of the text, as even pieces from all over it."""
    if len(text) <= most:
        return text
    size = max(1, most // NUM_PIECES)
    starts = [piece * (len(text) - size) // (NUM_PIECES - 1) for piece in range(NUM_PIECES)]
    return b"".join(text[start : start + size] for start in starts)
