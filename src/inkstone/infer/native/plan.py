"""A transformer as a list of operations for `kernels.c`: the same structures in Python, filled once, with pointers into tensors."""

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inkstone.nn.functional import rotary_table
from inkstone.nn.layers import Embedding, Linear, Norm
from inkstone.quant.packed import PackedWeight

if TYPE_CHECKING:
    from inkstone.nn.layers import Attention, Block
    from inkstone.nn.transformer import Transformer

_GROUP = 32  # GROUP of kernels.c
_LINEAR, _NORM, _ATTEND, _SWIGLU, _GATE = range(5)
_FLOAT32, _BFLOAT16, _INT8, _INT4 = range(4)
_ACTIVATIONS = {"swiglu": 0, "gelu_tanh": 1, "gelu": 2, "relu2": 3}
_KINDS = {torch.float32: _FLOAT32, torch.bfloat16: _BFLOAT16}
_SCHEMES = {"int8": _INT8, "int4": _INT4}
_int, _long, _float, _pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class _Operation(ctypes.Structure):
    _fields_ = [
        *((name, _int) for name in ("code", "kind", "activation", "adds", "num_in", "num_out", "layer", "window")),
        *((name, _int) for name in ("centered", "has_mix")),
        *((name, _float) for name in ("eps", "mix")),
        *((name, _pointer) for name in ("weight", "scale", "bias", "q_norm", "k_norm", "source", "target")),
    ]  # fmt: skip


class _Plan(ctypes.Structure):
    _fields_ = [
        *((name, _int) for name in ("num_ops", "num_threads", "num_heads", "num_kv_heads", "head_width")),
        *((name, _int) for name in ("cache_kind", "max_tokens", "unused")),
        *((name, _long) for name in ("layer_stride", "value_stride", "slot_stride", "head_stride")),
        *((name, _pointer) for name in ("cache", "cos", "sin", "codes", "code_scales", "scores", "first_values", "ops")),
        *((name, _int) for name in ("arrived", "generation", "next_even", "next_odd")),
    ]  # fmt: skip


def is_supported(network: "Transformer") -> bool:
    """Return whether every matrix of the network stands on a processor in a format that the kernels read."""
    floats = [module.weight for module in network.modules() if isinstance(module, Linear | Embedding)]
    packed = [module for module in network.modules() if isinstance(module, PackedWeight)]
    return (
        all(weight.device.type == "cpu" and weight.dtype in _KINDS for weight in floats)
        and all(module.weight.device.type == "cpu" and module.scheme in _SCHEMES for module in packed)
        and network.embed.weight.device.type == "cpu"
    )


class Program:
    """The operations of the blocks, or of the projection to the vocabulary, over buffers for up to `max_rows` rows.

    It keeps every tensor alive that it points into; the network's weights must not be replaced meanwhile.
    """

    def __init__(self, library: ctypes.CDLL, network: "Transformer", max_rows: int, num_threads: int) -> None:
        assert library.struct_sizes(0) == ctypes.sizeof(_Operation) and library.struct_sizes(1) == ctypes.sizeof(_Plan)
        self._run, self._config, self._max_rows = library.run, network.config, max_rows
        self._run.argtypes, self._run.restype = [_pointer, _int, _pointer, _pointer], None
        self._operations: list[_Operation] = []
        self._kept: list[Any] = []
        self._widest = 0
        self._plan = _Plan(num_threads=num_threads)
        self._where = torch.zeros(2, max_rows, dtype=torch.int32)

    def buffer(self, width: int) -> Tensor:
        """Return (max_rows, width) float32 zeros that live as long as the program."""
        made = torch.zeros(self._max_rows, width)
        self._kept.append(made)
        return made

    def run(self, rows: int, slots: Sequence[int] = (), positions: Sequence[int] = ()) -> None:
        """Walk the operations over the first `rows` rows of the buffers."""
        if slots:
            self._where[0, :rows] = torch.tensor(slots, dtype=torch.int32)
            self._where[1, :rows] = torch.tensor(positions, dtype=torch.int32)
        self._run(ctypes.addressof(self._plan), rows, self._where[0].data_ptr(), self._where[1].data_ptr())

    def seal(self) -> None:
        """Hand the operations over; nothing can be added afterwards."""
        self._array = (_Operation * len(self._operations))(*self._operations)
        self._plan.num_ops, self._plan.ops = len(self._operations), ctypes.addressof(self._array)
        self._plan.codes = self._pointer(torch.zeros(self._max_rows, self._widest, dtype=torch.int8))
        self._plan.code_scales = self._pointer(torch.zeros(self._max_rows, self._widest // 4 + 1))

    def project(self, layer: Any, source: Tensor, target: Tensor, *, activation: str = "swiglu", adds: bool = False) -> None:
        """target = or += activation(source @ weight.T + bias)."""
        is_packed = isinstance(layer, PackedWeight)
        num_out, num_in = layer.shape if is_packed else layer.weight.shape
        operation = self._add(
            _LINEAR, source, target, kind=_SCHEMES[layer.scheme] if is_packed else _KINDS[layer.weight.dtype], num_in=num_in,
            num_out=num_out, activation=_ACTIVATIONS[activation], adds=adds, weight=self._pointer(layer.weight),
        )  # fmt: skip
        if is_packed:
            operation.scale = self._pointer(layer.scale)
            self._widest = max(self._widest, num_in)
        if getattr(layer, "bias", None) is not None:
            operation.bias = self._pointer(layer.bias.detach().float())

    def normalize(self, norm: Norm, source: Tensor, target: Tensor) -> None:
        """target = norm(source); both may be one buffer."""
        operation = self._add(
            _NORM, source, target, num_in=source.shape[1], num_out=source.shape[1], centered=norm.centered, eps=norm.eps,
            weight=self._pointer(norm.weight.detach().float()),
        )  # fmt: skip
        if norm.bias is not None:
            operation.bias = self._pointer(norm.bias.detach().float())

    def attend(self, attention: "Attention", window: int, qkv: Tensor, target: Tensor) -> None:
        """Finish queries and keys, write keys and values to their slots, and mix the values that each row may see."""
        operation = self._add(_ATTEND, qkv, target, layer=attention.layer, window=window)
        if attention.q_norm is not None and attention.k_norm is not None:
            operation.eps = attention.q_norm.eps
            operation.q_norm = self._pointer(attention.q_norm.weight.detach().float())
            operation.k_norm = self._pointer(attention.k_norm.weight.detach().float())
        if attention.value_mix is not None:
            operation.has_mix, operation.mix = 1, float(attention.value_mix.detach())

    def gate(self, source: Tensor, target: Tensor, *, swiglu: bool) -> None:
        """target = silu(first half of source) * second half, or target *= sigmoid(source)."""
        self._add(_SWIGLU if swiglu else _GATE, source, target, num_in=source.shape[1], num_out=target.shape[1])

    def use_cache(self, store: Tensor) -> None:
        """Attention reads and writes this (L, 2, slots, K, S, E) store."""
        config, plan = self._config, self._plan
        plan.num_heads, plan.num_kv_heads, plan.head_width = config.num_heads, config.num_kv_heads, config.head_width
        plan.cache, plan.cache_kind, plan.max_tokens = self._pointer(store), _KINDS[store.dtype], store.shape[4]
        plan.layer_stride, plan.value_stride, plan.slot_stride, plan.head_stride = store.stride()[:4]
        plan.scores = self._pointer(torch.zeros(plan.num_threads, store.shape[4] + 8))
        if config.position == "rope":
            cos, sin = rotary_table(config.context, config.head_width, config.rope_base, torch.float32, "cpu")
            plan.cos, plan.sin = self._pointer(cos), self._pointer(sin)
        if config.value_residual:
            plan.first_values = self._pointer(self.buffer(config.num_kv_heads * config.head_width))

    def _add(self, code: int, source: Tensor, target: Tensor, **fields: Any) -> _Operation:
        operation = _Operation(code=code, source=source.data_ptr(), target=target.data_ptr(), **fields)
        self._operations.append(operation)
        return operation

    def _pointer(self, tensor: Tensor) -> int:
        tensor = tensor.detach()
        assert tensor.is_contiguous() and tensor.device.type == "cpu"
        self._kept.append(tensor)
        return tensor.data_ptr()


def blocks_program(library: ctypes.CDLL, network: "Transformer", store: Tensor, *, max_rows: int, num_threads: int) -> tuple[
    Program, Tensor, Tensor
]:  # fmt: skip
    """Return (program, input_RD, hidden_RD): all blocks and the final norm, over the cache `store`."""
    config = network.config
    program = Program(library, network, max_rows, num_threads)
    program.use_cache(store)
    heads_width = config.num_heads * config.head_width
    x, normed, hidden = (program.buffer(config.width) for _ in range(3))
    qkv = program.buffer(heads_width + 2 * config.num_kv_heads * config.head_width)
    mixed, gate = program.buffer(heads_width), program.buffer(heads_width)
    inner = program.buffer(config.ffn_width)
    up = program.buffer(2 * config.ffn_width) if config.activation == "swiglu" else inner
    for layer, block in enumerate(network.blocks):
        _add_block(program, block, config.layer_window(layer), (x, normed, qkv, mixed, gate, up, inner))  # type: ignore[arg-type]
    if network.final_norm is not None:
        program.normalize(network.final_norm, x, hidden)
    program.seal()
    return program, x, hidden if network.final_norm is not None else x


def _add_block(program: Program, block: "Block", window: int, buffers: tuple[Tensor, ...]) -> None:
    x, normed, qkv, mixed, gate, up, inner = buffers
    attention, mlp = block.attn, block.mlp
    source = x if block.post else normed
    if not block.post:
        program.normalize(block.attn_norm, x, normed)
    program.project(attention.qkv, source, qkv)
    program.attend(attention, window, qkv, mixed)
    if attention.gate is not None:
        program.project(attention.gate, source, gate)
        program.gate(gate, mixed, swiglu=False)
    program.project(attention.out, mixed, x, adds=True)
    program.normalize(block.attn_norm if block.post else block.mlp_norm, x, x if block.post else normed)
    program.project(mlp.up, source, up, activation=mlp.activation)
    if mlp.activation == "swiglu":
        program.gate(up, inner, swiglu=True)
    program.project(mlp.down, inner, x, adds=True)
    if block.post:
        program.normalize(block.mlp_norm, x, x)


def head_program(
    library: ctypes.CDLL, network: "Transformer", *, max_rows: int, num_threads: int
) -> tuple[Program, Tensor, Tensor]:
    """Return (program, hidden_RD, logits_RV) of the projection to the vocabulary, before a soft cap."""
    program = Program(library, network, max_rows, num_threads)
    hidden, logits = program.buffer(network.config.width), program.buffer(network.config.vocab_size)
    program.project(network.embed if network.head is None else network.head, hidden, logits)
    program.seal()
    return program, hidden, logits
