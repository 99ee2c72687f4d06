"""Every optimizer and every schedule of Optax: one trace over a run, and none for an equal one.

The names are those that Optax has. One that is neither made by the table nor excluded fails.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest

import weft as nnx

pytestmark = [  # some are called by the names that they had before
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Specifying a key will be required"),
]


def norm(updates: Any) -> Any:
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(updates))


def always(step: Any, **extra: Any) -> Any:
    return step >= 0


def labels(params: Any) -> Any:
    return jax.tree.map(lambda _: "a", params)


def halves(updates: Any, params: Any = None) -> Any:
    return jax.tree.map(lambda x: x / 2, updates)


def half(update: Any, param: Any = None) -> Any:
    return update / 2


def everywhere(params: Any) -> Any:
    return jax.tree.map(lambda _: True, params)


def schedule(count: Any) -> Any:
    return 0.1 / (count + 1)


def sgd(learning_rate: Any = 0.1) -> Any:
    return optax.sgd(optax.cosine_decay_schedule(learning_rate, 5))


# Makers of what functions ask for, by the name of the parameter.
PARAMETERS: dict[str, Callable[[], Any]] = {
    **dict.fromkeys(("inner", "tx", "optimizer", "base_optimizer", "fast_optimizer"), sgd),
    "adv_optimizer": lambda: optax.chain(optax.contrib.normalize(), optax.sgd(0.05)),
    **dict.fromkeys(("learning_rate", "value", "init_value", "peak_value"), lambda: 0.1),
    **dict.fromkeys(("clipping", "max_delta", "threshold", "max_norm", "eta"), lambda: 0.5),
    **dict.fromkeys(("decay", "decay_rate", "gamma", "step_size", "end_value"), lambda: 0.9),
    **dict.fromkeys(("decay_steps", "transition_steps", "max_linesearch_steps"), lambda: 5),
    **dict.fromkeys(("max_backtracking_steps", "sync_period", "warmup_steps"), lambda: 2),
    **dict.fromkeys(("l2_norm_clip", "slow_step_size", "power"), lambda: 0.5),
    "noise_multiplier": lambda: 0.1,
    "max_consecutive_errors": lambda: 3,
    "should_transform_fn": lambda: always,
    "inner_factory": lambda: sgd,
    "mask": lambda: everywhere,
    "freeze_mask": lambda: everywhere,
    "transforms": lambda: {"a": sgd(), "b": optax.adam(0.1)},
    "param_labels": lambda: labels,
    "step_size_fn": lambda: optax.linear_schedule(0.1, 0.0, 5),
    "measure_name": lambda: "norm",
    "measure": lambda: norm,
    "schedules": lambda: [optax.cosine_decay_schedule(0.1, 5), schedule],
    "boundaries": lambda: [2],
    "interpolate_type": lambda: "linear",
    "seed": lambda: 0,
    "cosine_kwargs": lambda: [
        {"init_value": 0.0, "peak_value": 0.1, "decay_steps": 5, "warmup_steps": 2}
    ],
}

# Positional arguments where those by name do not do.
POSITIONAL: dict[str, Callable[[], tuple[Any, ...]]] = {
    "chain": lambda: (optax.clip(1.0), sgd()),
    "named_chain": lambda: (("a", optax.clip(1.0)), ("b", sgd())),
    "stateless": lambda: (halves,),
    "stateless_with_tree_map": lambda: (half,),
    "scale_by_learning_rate": lambda: (optax.cosine_decay_schedule(0.1, 5),),
    "piecewise_constant_schedule": lambda: (0.1, {2: 0.5, 4: 0.1}),
    "piecewise_interpolate_schedule": lambda: ("cosine", 0.1, {2: 0.5, 4: 0.1}),
    "sgdr_schedule": lambda: (PARAMETERS["cosine_kwargs"](),),
}

# More arguments by name.
NAMED: dict[str, dict[str, Any]] = {
    "contrib.galore": {"rank": 1},
    "contrib.scale_by_galore": {"rank": 1},
    "contrib.sam": {"opaque_mode": False},
}

# What the results of these are: factories of optimizers.
FACTORIES = {"inject_hyperparams": 0.1, "inject_stateful_hyperparams": 0.1}

EXCLUDED: dict[str, set[str]] = {
    "a loss": {
        *("convex_kl_divergence", "cosine_distance", "cosine_similarity", "ctc_loss"),
        *("ctc_loss_with_forward_probs", "generalized_kl_divergence", "hinge_loss", "huber_loss"),
        *("kl_divergence", "l2_loss", "log_cosh", "ntxent", "safe_softmax_cross_entropy"),
        *("sigmoid_binary_cross_entropy", "sigmoid_focal_loss", "smooth_labels"),
        *("softmax_cross_entropy", "softmax_cross_entropy_with_integer_labels", "squared_error"),
    },
    "works on arrays, trees or states": {
        *("apply_updates", "bias_correction", "global_norm", "incremental_update"),
        *("init_empty_state", "matrix_inverse_pth_root", "multi_normal", "nnls"),
        *("per_example_global_norm_clip", "per_example_layer_norm_clip", "periodic_update"),
        *("power_iteration", "safe_increment", "safe_int32_increment", "safe_norm"),
        *("safe_root_mean_squares", "scale_gradient", "skip_large_updates", "skip_not_finite"),
        *("tree_map_params", "update_infinity_moment", "update_moment"),
        *("update_moment_per_elem_norm", "contrib.schedule_free_eval_params", "tree_cast_like"),
    },
    "transforms functions": {"microbatch", "value_and_grad_from_state"},
    "has parameters of its own": {"lookahead"},
    "gives its state another structure at the first step": {"monitor"},
    "is for optax.monitor": {"measure_with_ema"},
    "is for matrices alone, as a part of contrib.muon": {"contrib.scale_by_muon"},
    "a type": {"MaskOrFn", "OptState", "Params", "ScalarOrSchedule", "Schedule", "Updates"},
    "takes gradients of each example": {
        *("contrib.differentially_private_aggregate", "contrib.dpsgd"),
    },
    "needs a function of the parameters at each step": {
        *("contrib.hutchinson_estimator_diag_hessian", "contrib.sophia"),
    },
}

# Optimizers that want to know more at each step than the gradients.
EXTRA: dict[str, set[str]] = {
    "value": {
        *("polyak_sgd", "scale_by_polyak", "contrib.momo", "contrib.momo_adam"),
        "contrib.reduce_on_plateau",
    },
    "value, grad, value_fn": {
        *("lbfgs", "scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"),
    },
}


def public_names() -> dict[str, Any]:
    found = {}
    for module, prefix in ((optax, ""), (optax.contrib, "contrib.")):
        for name, value in vars(module).items():
            is_other = isinstance(value, (types.ModuleType, type)) or not callable(value)
            if not name.startswith("_") and not is_other:
                found[prefix + name] = value
    return found


NAMES = public_names()
TRIED = [*sorted(NAMES.keys() - set().union(*EXCLUDED.values())), "MultiSteps"]


def made(name: str) -> Any:
    """Makes what a name of Optax makes: a transformation or a schedule."""
    if name == "MultiSteps":
        return optax.MultiSteps(sgd(), 2)
    function = NAMES[name]
    if name in POSITIONAL:
        return function(*POSITIONAL[name](), **NAMED.get(name, {}))
    required = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    arguments = {each: PARAMETERS[each]() for each in required} | NAMED.get(name, {})
    result = function(**arguments)
    return result(FACTORIES[name]) if name in FACTORIES else result


def transformation(name: str) -> Any:
    result = made(name)
    return result if hasattr(result, "update") else optax.adam(result)


def step(name: str) -> Callable[..., Any]:
    extra = {kind for kind, names in EXTRA.items() if name in names}

    def step(model: Any, optimizer: Any, x: Any) -> Any:
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean(m(x) ** 2))(model)
        named: dict[str, Any] = {"value": loss} if extra else {}
        if extra == {"value, grad, value_fn"}:
            named |= {"grad": grads, "value_fn": norm}
        optimizer.update(model, grads, **named)
        return loss

    return step


def objects(name: str) -> tuple[Any, ...]:
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    return model, nnx.Optimizer(model, transformation(name), wrt=nnx.Param), jnp.ones((1, 2))


@pytest.mark.parametrize("name", TRIED)
def test_one_trace(name: str) -> None:
    function = step(name)
    jitted = nnx.jit(function)
    first = objects(name)
    graphdef = nnx.graphdef(first[1])
    for i in range(3):
        jitted.trace(*first)
        if i == 1:
            with jax.disable_jit():
                function(*first)
    jitted.trace(*objects(name))
    jitted.trace(*first)
    assert jitted.cache_info().traces == 1, jitted.cache_info().reasons
    assert nnx.graphdef(first[1]) == graphdef == nnx.graphdef(objects(name)[1])


def test_the_lists_name_what_there_is_once() -> None:
    lists = list(EXCLUDED.values())
    assert sum(map(len, lists)) == len(set().union(*lists))
    assert not set(POSITIONAL) & set().union(*lists)
