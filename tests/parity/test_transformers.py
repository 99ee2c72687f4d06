"""The models of examples/pretrained against transformers: logits, generation, and saving back.

Tiny models of random weights, made there: nothing is downloaded.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import weft as nnx
from tests.examples.programs import load

torch = pytest.importorskip("torch", reason="PyTorch is not installed: its group is `torch`")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: its group is `transformers`"
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "pretrained"
WORDS, LENGTH = 61, 48
LANGUAGE = {
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=WORDS, n_positions=LENGTH, n_embd=32, n_layer=3, n_head=4, **TOKENS
    ),
    "llama": lambda: llama(num_key_value_heads=2),
    "llama with biases, tied": lambda: llama(
        attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=16
    ),
    "llama 3": lambda: llama(
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    ),
}
TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def llama(**options):
    return transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        **TOKENS,
        **options,
    )


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    return load("pretrained/__main__")


def make(kind, config, folder, **options):
    """A model of transformers with weights that are all random, saved in a folder."""
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = parameter.ndim == 1 and name.endswith("weight")
            parameter.normal_(1.0 if is_scale else 0.0, 0.4 if parameter.ndim == 2 else 0.2)
    model.save_pretrained(folder, **options)
    return model


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LANGUAGE)
@pytest.mark.parametrize("sharded", [False, True])
def test_language_models(name, sharded, example, tmp_path):
    kind = transformers.GPT2LMHeadModel if name == "gpt2" else transformers.LlamaForCausalLM
    options = {"max_shard_size": "20KB"} if sharded else {}
    theirs = make(kind, LANGUAGE[name](), tmp_path / "theirs", **options)
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists() == sharded
    model, config, report = example.load(tmp_path / "theirs")
    assert report.fits

    tokens = np.random.default_rng(0).integers(0, WORDS, (2, 9))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits
        continued = theirs.generate(
            torch.tensor(tokens),
            attention_mask=torch.ones(tokens.shape, dtype=int),
            max_new_tokens=24,
            do_sample=False,
            pad_token_id=0,
        )
    close(nnx.jit(type(model).__call__)(model, jnp.asarray(tokens)), expected)
    new, chances = example.generate(model, jnp.asarray(tokens), 24)
    assert new.tolist() == continued[:, 9:].tolist()
    assert len(set(new[0].tolist())) > 2 and chances.shape == (2, 24, WORDS)

    example.save(model, config, tmp_path / "ours")
    again, loading = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(loading[x] for x in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        assert torch.equal(again.eval()(torch.tensor(tokens)).logits, expected)


def test_vit(example, tmp_path):
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        image_size=12,
        patch_size=4,
        num_labels=7,
    )
    theirs = make(transformers.ViTForImageClassification, config, tmp_path / "theirs")
    model, config, report = example.load(tmp_path / "theirs")
    assert report.fits
    images = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)
    inputs = torch.tensor(np.moveaxis(images, -1, 1))
    with torch.no_grad():
        expected = theirs(inputs).logits
    close(nnx.jit(type(model).__call__)(model, images), expected)

    example.save(model, config, tmp_path / "ours")
    kind = transformers.ViTForImageClassification
    again, loading = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(loading[x] for x in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        assert torch.equal(again.eval()(inputs).logits, expected)


def test_half_precision(example, tmp_path):
    theirs = make(transformers.LlamaForCausalLM, llama(), tmp_path)
    theirs.bfloat16().save_pretrained(tmp_path)
    model, *_ = example.load(tmp_path)
    assert model.tokens.embedding.dtype == jnp.float32
    model, *_ = example.load(tmp_path, "bfloat16")
    assert {x.dtype.name for x in nnx.to_flat_state(nnx.state(model, nnx.Param)).leaves} == {
        "bfloat16"
    }


def test_an_older_file_without_prefix(example, tmp_path):
    """As those of the first GPT-2, which have buffers, too."""
    theirs = make(transformers.GPT2LMHeadModel, LANGUAGE["gpt2"](), tmp_path)
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "model.safetensors")
    weights = {name.removeprefix("transformer."): x for name, x in weights.items()}
    weights["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
    weights["lm_head.weight"] = weights["wte.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, _, report = example.load(tmp_path)
    assert len(report.ignored) == 1
    tokens = torch.arange(5)[None]
    with torch.no_grad():
        close(model(jnp.arange(5)[None]), theirs(tokens).logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type is one of .*, found 'bert'"),
        (
            {"activation_function": "relu"},
            "gpt2 has activation_function='gelu_new' here, found 're",
        ),
    ],
)
def test_other_configurations_are_refused(change, message, example, tmp_path):
    config = {**example.MODULES["gpt2"].TINY, **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        example.load(tmp_path)
