"""Training: the optimizer, metrics and averages of parameters.

Reading order: `optimizer` (an Optax transformation whose state lives in Variables), `train_state`
(the same as an immutable pytree, without Variables), `ema` (an exponential moving average of a
model), `metrics` (sums over batches that become figures), `checkpoints` (the steps of a run on
disk). Nothing is imported here, because `optimizer` and `train_state` load Optax and the rest does
not need it.
"""
