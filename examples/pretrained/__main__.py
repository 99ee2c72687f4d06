"""Runs GPT-2, Llama and ViT with weights of others: any Hugging Face folder of safetensors.

A folder has `config.json` and `model.safetensors`, or an index of several files. Language models
continue tokens greedily, with a cache of keys and values; ViT tells what is in an image. Neither
PyTorch nor transformers is needed; a prompt as text needs the package `tokenizers`.

    python examples/pretrained
    python examples/pretrained ~/models/gpt2 --prompt "The answer is" --count 20
    python examples/pretrained ~/models/vit-base-patch16-224 --image cat.png

Without a folder it makes tiny models of random weights, saves them as such folders, loads them, and
compares. It prints what went where, and leaves `pretrained.png` in `--out`.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import gpt2
import jax
import jax.numpy as jnp
import llama
import numpy as np
import vit

import weft as nnx

MODULES = {"gpt2": gpt2, "llama": llama, "vit": vit}


def module_of(config: Mapping[str, Any]) -> ModuleType:
    """Returns the module that has the model of a configuration."""
    kind = config.get("model_type")
    if kind not in MODULES:
        raise ValueError(f"model_type is one of {sorted(MODULES)} here, found {kind!r}")
    for name, value in MODULES[kind].SUPPORTED.items():
        if config.get(name, value) != value:
            raise ValueError(f"{kind} has {name}={value!r} here, found {config[name]!r}")
    return MODULES[kind]


def load(folder: Path, dtype: Any = None) -> tuple[Any, dict[str, Any], nnx.WeightReport]:
    """Returns the model in a folder, its configuration and what went where.

    The model is made without memory first: its weights come one after another from the files.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = str(jnp.dtype(dtype or jnp.float32))
    module = module_of(config)
    model = nnx.eval_shape(lambda: module.Model(config, nnx.Rngs(0)))
    weights = nnx.load(folder)
    report = nnx.load_weights(
        model, weights, module.rules(config, weights.keys()), dtype=config["dtype"]
    )
    return model, config, report


def save(model: Any, config: Mapping[str, Any], folder: Path) -> None:
    """Writes a folder that `load` and transformers read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    nnx.save_weights(model, folder, module_of(config).rules(config))


@nnx.jit
def step(model: Any, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the next token and the probabilities of all, after the next one or several."""
    logits = model(tokens, decode=True)[:, -1].astype(jnp.float32)
    return logits.argmax(-1), nnx.softmax(logits)


def generate(model: Any, tokens: jax.Array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Continues tokens of shape (batch, length) greedily.

    Returns:
      The new tokens, of shape (batch, count), and the probabilities that they were chosen by.
    """
    batch, length = tokens.shape
    if length + count > model.max_length:
        raise ValueError(f"the model knows {model.max_length} positions, found {length + count}")
    blocks, dtype = model.blocks.stacked, model.norm.scale.dtype
    nnx.vmap(lambda block: block.attention.init_cache((batch, length + count, model.size), dtype))(
        blocks
    )
    new, chances = [], []
    for _ in range(count):
        token, chance = step(model, tokens)
        tokens = token[:, None]
        new.append(tokens)
        chances.append(chance)
    return np.concatenate(new, axis=1), np.stack(chances, axis=1)


def read_image(file: Path | None, size: int) -> jax.Array:
    """Returns an image of shape (1, size, size, 3) from -1 to 1; without a file of stripes."""
    if file is None:
        x = jnp.linspace(0, 20, size)
        image = jnp.stack([jnp.sin(x[:, None] + k * x) for k in range(3)], axis=-1)
        return image[None]
    from matplotlib.image import imread

    image = np.atleast_3d(imread(file))
    image = image / np.float32(255 if image.dtype == np.uint8 else 1)
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
    return jax.image.resize(jnp.asarray(image), (size, size, 3), "bilinear")[None] * 2 - 1


def run(model: Any, config: Mapping[str, Any], options: argparse.Namespace) -> np.ndarray:
    """Shows what a model makes of its input; returns probabilities of shape (steps, choices)."""
    if config["model_type"] == "vit":
        image = read_image(options.image, model.image_size).astype(config["dtype"])
        logits = nnx.jit(type(model).__call__)(model, image)
        chances = np.asarray(nnx.softmax(logits.astype(jnp.float32)))
        for i in chances[0].argsort()[::-1][:5]:
            print(f"{chances[0, i]:7.2%}  {config['id2label'][str(i)]}")
        return chances
    tokens, words = options.tokens, None
    if options.prompt is not None:
        from tokenizers import Tokenizer

        words = Tokenizer.from_file(str(options.folder / "tokenizer.json"))
        tokens = words.encode(options.prompt).ids
    new, chances = generate(model, jnp.asarray([tokens]), options.count)
    print(words.decode([*tokens, *new[0]]) if words else f"{tokens} → {new[0].tolist()}")
    return chances[0]


def plot(found: Mapping[str, np.ndarray], file: Path) -> None:
    """Draws for each model the probabilities of its five likeliest choices, at each step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(found), 4), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (name, chances) in zip(panels, found.items(), strict=True):
        best = np.sort(chances, axis=1)[:, :-6:-1]
        below = np.cumsum(best, axis=1) - best
        for rank in range(best.shape[1]):
            label = f"choice {rank + 1}" if axes is panels[0] else None
            axes.bar(range(len(best)), best[:, rank], 0.8, bottom=below[:, rank], label=label)
        axes.set(title=name, xlabel="step", ylabel="probability", ylim=(0, 1))
        if len(best) == 1:  # one image
            choices = [f"class {i}" for i in chances[0].argsort()[:-6:-1]]
            for choice, height, bottom in zip(choices, best[0], below[0], strict=True):
                axes.text(0, bottom + height / 2, choice, ha="center", va="center", color="white")
            axes.set(xlim=(-1, 1), xticks=[], xlabel="one image")
    figure.legend(loc="outside lower center", ncols=5)
    figure.savefig(file)


def main(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    found = {}
    if options.folder is not None:
        model, config, report = load(options.folder, options.dtype)
        print(report)
        found[options.folder.resolve().name] = run(model, config, options)
    else:
        for name, module in MODULES.items():
            config = {**module.TINY, "dtype": "float32"}
            made = module.Model(config, nnx.Rngs(0))
            save(made, config, options.out / name)
            model, config, report = load(options.out / name, options.dtype)
            print(report)
            states = [nnx.state(x, nnx.Param) for x in (made, model)]
            same = jax.tree.map(lambda a, b: bool((a == b.astype(a.dtype)).all()), *states)
            print(f"{sum(jax.tree.leaves(same))} of {len(jax.tree.leaves(same))} arrays came back")
            found[f"tiny {name}"] = run(model, config, options)
    plot(found, options.out / "pretrained.png")
    print(f"see {options.out / 'pretrained.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Runs models with weights of others.")
    parser.add_argument("folder", type=Path, nargs="?", help="with config.json and safetensors")
    parser.add_argument("--prompt", help="text to continue, by tokenizer.json of the folder")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 3], help="to continue")
    parser.add_argument("--count", type=int, default=16, help="how many tokens to generate")
    parser.add_argument("--image", type=Path, help="a picture for ViT")
    parser.add_argument("--dtype", help="what weights become, such as bfloat16")
    parser.add_argument("--out", type=Path, default=Path("runs/pretrained"), help="where to write")
    main(parser.parse_args())
