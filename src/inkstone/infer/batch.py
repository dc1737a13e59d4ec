"""Greedy answers to many prompts at once: prompts of equal length share a batch, so that no padding is needed."""

from collections import defaultdict
from collections.abc import Sequence

import torch

from inkstone.base.errors import RequestError
from inkstone.nn.transformer import Transformer

MAX_ROWS = 64


@torch.inference_mode()
def continue_greedily(model: Transformer, prompts: Sequence[list[int]], *, stop_ids: set[int], max_tokens: int) -> list[list[int]]:
    """Return for each prompt the most likely continuation, up to a stop id (left out), `max_tokens` or the end of the context.

    Raises: RequestError when a prompt is empty or as long as the context.
    """
    was_training = model.training
    model.eval()
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        if not 0 < len(prompt) < model.config.context:
            raise RequestError(f"prompt {index} has {len(prompt)} tokens; expected 1 to {model.config.context - 1}")
        by_length[len(prompt)].append(index)
    answers: list[list[int]] = [[] for _ in prompts]
    for indices in by_length.values():
        for first in range(0, len(indices), MAX_ROWS):
            rows = indices[first : first + MAX_ROWS]
            for row, answer in zip(rows, _continue([prompts[i] for i in rows], model, stop_ids, max_tokens), strict=True):
                answers[row] = answer
    model.train(was_training)
    return answers


def _continue(prompts: list[list[int]], model: Transformer, stop_ids: set[int], max_tokens: int) -> list[list[int]]:
    room = min(max_tokens, model.config.context - len(prompts[0]))
    cache = model.new_cache(len(prompts), len(prompts[0]) + room)
    tokens = torch.tensor(prompts, device=model.embed.weight.device)
    answers: list[list[int]] = [[] for _ in prompts]
    live = set(range(len(prompts)))
    for _ in range(room):
        tokens = model.logits(model(tokens, cache=cache)[:, -1]).argmax(-1, keepdim=True)
        for row in list(live):
            token = int(tokens[row, 0])
            if token in stop_ids:
                live.discard(row)
            else:
                answers[row].append(token)
        if not live:
            break
    return answers
