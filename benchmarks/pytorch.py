"""The two networks of train.py in PyTorch, which is no dependency: it is used where it is found."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import digits_network as digits
import numpy as np
from harness import Variant
from transformer import Size

# OpenMP's threads wait for each other in a busy loop, which costs tens of times the work as soon as
# another program has one of the processors. It is read when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def variants(torch: Any, step: Callable[[Any, Any], Any], batches: Any) -> list[Variant]:
    """Returns a step with as many threads as JAX takes, and with one, which may be faster."""
    endless = itertools.cycle(batches)

    def variant(threads: int) -> Variant:
        def arguments(count: int) -> list[Any]:
            torch.set_num_threads(threads)
            return [next(endless) for _ in range(count)]

        name = f"PyTorch, {threads} thread{'s' * (threads > 1)}"
        return Variant(name, step, arguments)

    return [variant(threads) for threads in sorted({1, os.cpu_count() or 1})]


def stepping(torch: Any, model: Any, optimizer: Any) -> Callable[[Any, Any], None]:
    """Returns a train step that is given an array of inputs and one of classes."""

    def call(x: np.ndarray, y: np.ndarray) -> None:
        optimizer.zero_grad()
        logits = model(torch.from_numpy(x))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), torch.from_numpy(y))
        loss.backward()
        optimizer.step()

    return call


def digits_step(torch: Any) -> Callable[[Any, Any], None]:
    """Returns a train step of the network that reads digits."""
    nn = torch.nn
    layers: list[Any] = []
    for i, (inputs, outputs) in enumerate(digits.CHANNELS):
        layers += [nn.Conv2d(inputs, outputs, 3, padding="same", bias=False)]
        layers += [nn.BatchNorm2d(outputs, momentum=0.1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i == 1 else []
    layers += [nn.Flatten(), nn.Dropout(digits.DROPOUT), nn.Linear(digits.FEATURES, digits.CLASSES)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), digits.RATE, weight_decay=digits.DECAY)
    step = stepping(torch, model, optimizer)
    return lambda x, y: step(x.transpose(0, 3, 1, 2), y.astype(np.int64))


def gpt_step(torch: Any, size: Size) -> Callable[[Any, Any], None]:
    """Returns a train step of the transformer."""
    nn, functional, width = torch.nn, torch.nn.functional, size.width

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.before_attention = nn.RMSNorm(width, eps=1e-6)
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.out = nn.Linear(width, width, bias=False)
            self.before_mlp = nn.RMSNorm(width, eps=1e-6)
            self.up = nn.Linear(width, 4 * width, bias=False)
            self.down = nn.Linear(4 * width, width, bias=False)

        def forward(self, x: Any) -> Any:
            qkv = self.qkv(self.before_attention(x)).unflatten(-1, (3, size.heads, -1))
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.out(y.transpose(1, 2).flatten(2))
            y = functional.gelu(self.up(self.before_mlp(x)), approximate="tanh")
            return x + self.down(y)

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(size.vocabulary, width)
            self.positions = nn.Embedding(size.length, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(size.blocks)))
            self.norm = nn.RMSNorm(width, eps=1e-6)
            self.head = nn.Linear(width, size.vocabulary, bias=False)

        def forward(self, x: Any) -> Any:
            x = self.embedding(x) + self.positions(torch.arange(x.shape[-1]))
            return self.head(self.norm(self.blocks(x)))

    model = Transformer()
    step = stepping(torch, model, torch.optim.Adam(model.parameters(), 1e-3))
    return lambda x, y: step(x, y.reshape(-1).astype(np.int64))
