"""Training: the loop, the optimizer, metrics and averages of parameters.

Reading order: `optimizer` (an Optax transformation whose state lives in Variables), `train_state`
(the same as an immutable pytree, without Variables), `ema` (an exponential moving average of a
model), `learner` (all of it as one object, with `groups` of parameters and a `loss_scale`),
`metrics` (sums over batches that become figures); then `run`, the loop, and what it is made of, of
which every part can be used alone: `loader` and `feed` (batches and the place among them),
`scan_steps` (several in one call), `values` and `history` (what is logged), `progress` and `sinks`
(where it is shown), `whole` (numbers that a caller gives), `nan_guard` and `undo`, `signals`,
`lock`, `agreement` (of several processes), `commits` over `checkpoints`, `profile_window`.

Each name is imported when it is first used; type checkers read them in `__init__.pyi`.
"""

from weft._core.elsewhere import names_in as _names_in

__all__, __getattr__, __dir__ = _names_in(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "weft.train": "metrics optimizer",
        "weft.train.checkpoints": "Checkpoints",
        "weft.train.history": "History is_stale",
        "weft.train.learner": "Learner",
        "weft.train.loader": "Loader",
        "weft.train.lock": "FolderInUseError",
        "weft.train.loss_scale": "LossScale",
        "weft.train.nan_guard": "NaNError nonfinite_paths",
        "weft.train.progress": "Bar bar",
        "weft.train.run": "Run",
        "weft.train.scan_steps": "scanned",
        "weft.train.signals": "StopSignals",
        "weft.train.sinks": "CSV Plot TensorBoard",
        "weft.train.values": "mean",
    },
)
