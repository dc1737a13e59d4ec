"""Laws over every preset and switch: causal, cached decoding equals the full forward, documents do not meet, windows end."""

import math

import pytest
import torch

from inkstone.nn.config import PRESETS, ModelConfig
from inkstone.nn.layers import sinusoidal_table
from inkstone.nn.transformer import Transformer

torch.set_num_threads(1)
VOCAB, CONTEXT = 31, 20
TINY = {"num_layers": 3, "num_heads": 4, "width": 16, "context": CONTEXT, "vocab_size": VOCAB, "ffn_width": 24}
EVERYTHING = {"num_kv_heads": 2, "window": 4, "full_every": 3, "attention_gate": True, "value_residual": True, "ngram_buckets": 13,
              "logit_softcap": 3.0, "bias": True, "tie_embeddings": False, "head_width": 6}  # fmt: skip
SWITCHES = {
    "grouped queries": {"num_kv_heads": 2},
    "one key head": {"num_kv_heads": 1},
    "window": {"window": 3},
    "window of one": {"window": 1},
    "window, some full": {"window": 3, "full_every": 2},
    "gate": {"attention_gate": True},
    "value residual": {"value_residual": True},
    "bigrams": {"ngram_buckets": 7},
    "n-grams": {"ngram_buckets": VOCAB * VOCAB, "ngram_max": 4},
    "softcap": {"logit_softcap": 2.0},
    "post norm": {"norm_place": "post"},
    "post layernorm": {"norm_place": "post", "norm": "layernorm", "bias": True},
    "layernorm without bias": {"norm": "layernorm"},
    "sinusoidal": {"position": "sinusoidal"},
    "learned": {"position": "learned"},
    "no positions": {"position": "none"},
    "untied": {"tie_embeddings": False},
    "relu2": {"activation": "relu2"},
    "gelu": {"activation": "gelu", "bias": True},
    "no qk norm": {"qk_norm": False},
    "wide heads": {"head_width": 10},
    "everything": EVERYTHING,
    "everything, learned, post": EVERYTHING
    | {"position": "learned", "norm_place": "post", "norm": "layernorm", "activation": "gelu"},
}
CONFIGS = {f"preset {name}": {"preset": name} for name in PRESETS} | SWITCHES


def slow_ngram_row(ids, length, buckets):
    """The row of the n-gram that ends `ids`, with Python's unbounded integers cut to 64 bits by hand."""
    code = ids[-1]
    for back in range(1, length):
        code = signed(code * VOCAB + ids[-1 - back])
    if VOCAB**length > buckets:
        code = (signed(code * -7046029254386353131) >> 31) % buckets
    return code + (length - 2) * buckets


def signed(value):
    return (value + 2**63) % 2**64 - 2**63


def build(changes, **more):
    """A model whose weights are all random, so that no switch hides behind a zero."""
    model = Transformer(ModelConfig(**TINY | changes | more))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1.0 if "norm.weight" in name else 0.0, 0.3, generator=generator)
    return model.eval()


def random_tokens(*shape, seed=0):
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model, tokens, documents=None, cache=None):
    return model.logits(model(tokens, documents, cache))


@pytest.fixture(params=CONFIGS)
def changes(request):
    return CONFIGS[request.param]


def close(found, expected, atol=2e-4):
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-3)


# Causality


def test_a_later_token_does_not_change_earlier_logits(changes):
    model, tokens = build(changes), random_tokens(2, 12)
    before = logits(model, tokens)
    for at in (1, 7, 11):
        changed = tokens.clone()
        changed[:, at:] = (changed[:, at:] + 1 + random_tokens(2, 12 - at, seed=at) % (VOCAB - 1)) % VOCAB
        after = logits(model, changed)
        assert torch.equal(before[:, :at], after[:, :at])
        assert not torch.equal(before[:, at], after[:, at])


@pytest.mark.parametrize("changes", [{}, {"window": 70}, EVERYTHING])
@pytest.mark.parametrize("num", [129, 600])
def test_long_rows_are_causal_across_attention_blocks(num, changes):
    model, tokens = build(changes, context=num, num_layers=2), random_tokens(1, num)
    before = logits(model, tokens)
    for at in (63, 64, 65, 128, num - 1):
        changed = tokens.clone()
        changed[:, at:] = (changed[:, at:] + 1) % VOCAB
        assert torch.equal(before[:, :at], logits(model, changed)[:, :at])


def test_every_earlier_token_is_seen():
    model, tokens = build({}), random_tokens(1, 10)
    before = logits(model, tokens)[0, -1]
    for at in range(10):
        changed = tokens.clone()
        changed[0, at] = (changed[0, at] + 1) % VOCAB
        assert not torch.equal(before, logits(model, changed)[0, -1])


@pytest.mark.parametrize("window", [1, 2, 5])
def test_a_window_ends_where_it_says(window):
    model, tokens = build({"window": window, "num_layers": 1}), random_tokens(1, 12)
    before = logits(model, tokens)[0, -1]
    for at in range(12):
        changed = tokens.clone()
        changed[0, at] = (changed[0, at] + 1) % VOCAB
        assert torch.equal(before, logits(model, changed)[0, -1]) == (at <= 11 - window)


# The cache


@pytest.mark.parametrize("sizes", [[1] * 12, [12], [5, 1, 1, 5], [1, 4, 7], [11, 1]], ids=str)
def test_cached_decode_equals_full_forward(changes, sizes):
    model, tokens = build(changes), random_tokens(2, 12)
    cache = model.new_cache(2, 12)
    pieces = [logits(model, piece, cache=cache) for piece in tokens.split(sizes, dim=1)]
    assert cache.length == 12
    close(torch.cat(pieces, 1), logits(model, tokens))


def test_a_truncated_cache_forgets(changes):
    model, tokens, other = build(changes), random_tokens(2, 12), random_tokens(2, 12, seed=9)
    cache = model.new_cache(2, 14)
    logits(model, torch.cat([tokens[:, :6], other[:, 6:]], 1), cache=cache)
    cache.truncate(6, tokens[:, 6 - (model.config.ngram_max - 1) : 6])
    close(logits(model, tokens[:, 6:], cache=cache), logits(model, tokens)[:, 6:])


@pytest.mark.parametrize("changes", [{}, {"position": "none"}, {"window": 3}])
def test_positions_without_a_table_go_beyond_the_context(changes):
    model, tokens = build(changes), random_tokens(1, CONTEXT + 5)
    cache = model.new_cache(1, CONTEXT + 5)
    pieces = [logits(model, piece, cache=cache) for piece in tokens.split(4, dim=1)]
    close(torch.cat(pieces, 1), logits(model, tokens))


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_positions_with_a_table_end_at_the_context(position):
    model = build({"position": position})
    logits(model, random_tokens(1, CONTEXT))
    with pytest.raises(AssertionError, match=f"context {CONTEXT}"):
        logits(model, random_tokens(1, CONTEXT + 1))


def test_rows_of_a_batch_do_not_meet(changes):
    model, tokens = build(changes), random_tokens(3, 9)
    together = logits(model, tokens)
    for row in range(3):
        close(together[row : row + 1], logits(model, tokens[row : row + 1]), atol=1e-5)


# Documents

LENGTHS = [3, 1, 6, 2]


def test_documents_in_a_row_do_not_see_each_other(changes):
    model, tokens = build(changes), random_tokens(2, 12)
    documents = torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS)).expand(2, -1).int()
    before = logits(model, tokens, documents)
    for number in range(4):
        inside = documents == number
        changed = torch.where(inside, tokens, (tokens + 1) % VOCAB)
        assert torch.equal(before[inside], logits(model, changed, documents)[inside])


def test_documents_in_a_row_equal_documents_alone(changes):
    model = build(changes)
    if model.config.position in ("learned", "sinusoidal"):
        model.config = model.config.model_copy(update={"position": "none"})
        model.position = None
    tokens = random_tokens(1, 12)
    documents = torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS))[None].int()
    alone = [logits(model, piece) for piece in tokens.split(LENGTHS, dim=1)]
    close(logits(model, tokens, documents), torch.cat(alone, 1))


def test_one_document_equals_none(changes):
    model, tokens = build(changes), random_tokens(2, 12)
    close(logits(model, tokens, torch.full((2, 12), 4, dtype=torch.int32)), logits(model, tokens), atol=1e-5)


# Training


def test_every_parameter_has_a_gradient(changes):
    model = build(changes).train()
    model.logits(model(random_tokens(2, 12))).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    still = {name for name, p in model.named_parameters() if not p.grad.any()}
    # Over one key the softmax is 1, whatever query and key are.
    assert still == {name for name in still if model.config.window == 1 and name.endswith(("q_norm.weight", "k_norm.weight"))}


def test_the_gradient_is_the_slope_of_the_loss(changes):
    model = build(changes)
    model.config = model.config.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0})
    tokens, generator = random_tokens(1, 8), torch.Generator().manual_seed(3)
    weight = torch.randn(1, 8, VOCAB, generator=generator)
    model.compute_dtype = torch.float64
    model.double()
    (model(tokens) @ model.head_weight.T * weight).sum().backward()
    parameters = list(model.parameters())
    steps = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    slope = sum(float((p.grad * step).sum()) for p, step in zip(parameters, steps, strict=True))
    ends = []
    with torch.no_grad():
        for sign in (1, -1):
            for p, step in zip(parameters, steps, strict=True):
                p.add_(step, alpha=sign * 1e-5)
            ends.append(float((model(tokens) @ model.head_weight.T * weight).sum()))
            for p, step in zip(parameters, steps, strict=True):
                p.add_(step, alpha=-sign * 1e-5)
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("kind", [{"dropout": 0.5}, {"attention_dropout": 0.5}])
def test_dropout_works_in_training_only(kind):
    model, tokens = build(kind), random_tokens(2, 12)
    assert torch.equal(logits(model, tokens), logits(model, tokens))
    close(logits(model, tokens), logits(build({}), tokens), atol=1e-6)
    model.train()
    torch.manual_seed(1)
    first, second = logits(model, tokens), logits(model, tokens)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(first, logits(model, tokens))


def test_dropout_takes_its_share_at_each_of_its_places(monkeypatch):
    from inkstone.nn import layers, transformer

    seen = []
    for module in (layers, transformer):
        monkeypatch.setattr(module, "drop", lambda x, p, training: seen.append((p, training)) or x)
    model = build({"dropout": 0.25}).train()
    logits(model, random_tokens(1, 4))
    assert seen == [(0.25, True)] * (1 + 2 * TINY["num_layers"])


# Figures of the whole


def test_the_softcap_is_a_hyperbolic_tangent():
    model, tokens = build({"logit_softcap": 2.0}), random_tokens(2, 12)
    raw = logits(build({}), tokens)
    assert raw.abs().max() > 2
    close(logits(model, tokens), 2 * torch.tanh(raw / 2), atol=1e-5)


def test_bfloat16_activations_give_float32_logits_near_float32s(changes):
    model, tokens = build(changes), random_tokens(2, 12)
    exact = logits(model, tokens)
    model.compute_dtype = torch.bfloat16
    with torch.no_grad():
        hidden = model(tokens)
    found = model.logits(hidden)
    assert (hidden.dtype, found.dtype, next(model.parameters()).dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert (found - exact).square().mean().sqrt() < 0.06 * exact.square().mean().sqrt()


def test_sinusoids_are_vaswanis():
    table = sinusoidal_table(7, 6)
    for position in range(7):
        for pair in range(3):
            angle = position / 10000 ** (2 * pair / 6)
            assert table[position, 2 * pair] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * pair + 1] == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_tied_head_is_the_embedding_and_an_untied_one_is_not():
    tied, model = build({}), build({"tie_embeddings": False})
    assert tied.head_weight is tied.embed.weight
    assert model.head_weight is model.head.weight


# A reference that is obviously right, a number at a time


def slow_logits(model, ids):
    """Return the logits of one row, with loops over positions and heads, for the switches that no other library has."""
    p = {name: value.detach().double() for name, value in model.named_parameters()}
    config = model.config
    H, K, E = config.num_heads, config.num_kv_heads, config.head_width
    rms = lambda x, w: x / (x.square().mean() + config.norm_eps).sqrt() * w  # noqa: E731
    stream = []
    for t, token in enumerate(ids):
        x = p["embed.weight"][token]
        if config.ngram_buckets:
            for length in range(2, config.ngram_max + 1):
                x = x + p["ngram.weight"][slow_ngram_row([0] * length + ids[: t + 1], length, config.ngram_buckets)]
        stream.append(x)
    first_values = None
    for layer in range(config.num_layers):
        w = {name.removeprefix(f"blocks.{layer}."): value for name, value in p.items() if name.startswith(f"blocks.{layer}.")}
        inner = [rms(x, w["attn_norm.weight"]) for x in stream]
        rows = [w["attn.qkv.weight"] @ x + w["attn.qkv.bias"] for x in inner]
        values = [row[(H + K) * E :].view(K, E) for row in rows]
        first_values = values if layer == 0 else first_values
        if layer and config.value_residual:
            values = [v + w["attn.value_mix"] * (first - v) for v, first in zip(values, first_values, strict=True)]
        reach = config.layer_window(layer) or len(ids)
        for t in range(len(ids)):
            heads = []
            for h in range(H):
                group = h * K // H
                query = turned(rms(rows[t][h * E : (h + 1) * E], w["attn.q_norm.weight"]), t, config)
                seen = range(max(0, t - reach + 1), t + 1)
                keys = [
                    turned(rms(rows[s][(H + group) * E : (H + group + 1) * E], w["attn.k_norm.weight"]), s, config) for s in seen
                ]
                share = torch.softmax(torch.stack([query @ key for key in keys]) / math.sqrt(E), 0)
                heads.append(sum(a * values[s][group] for a, s in zip(share, seen, strict=True)))
            mixed = torch.cat(heads)
            if config.attention_gate:
                mixed = mixed * torch.sigmoid(w["attn.gate.weight"] @ inner[t] + w["attn.gate.bias"])
            stream[t] = stream[t] + w["attn.out.weight"] @ mixed + w["attn.out.bias"]
        for t, x in enumerate(stream):
            gate, value = (w["mlp.up.weight"] @ rms(x, w["mlp_norm.weight"]) + w["mlp.up.bias"]).chunk(2)
            stream[t] = x + w["mlp.down.weight"] @ (gate * torch.sigmoid(gate) * value) + w["mlp.down.bias"]
    out = torch.stack([p["head.weight"] @ rms(x, p["final_norm.weight"]) for x in stream])
    return config.logit_softcap * torch.tanh(out / config.logit_softcap)


def turned(x, position, config):
    out, half = x.clone(), len(x) // 2
    for i in range(half):
        angle = position * config.rope_base ** (-2 * i / len(x))
        out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return out


def test_every_switch_at_once_equals_the_slow_reference():
    model, tokens = build(EVERYTHING), random_tokens(1, 9)
    close(logits(model, tokens)[0].double(), slow_logits(model, tokens[0].tolist()), atol=1e-4)
