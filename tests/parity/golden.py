"""Writes tests/data/pretrained: folders of transformers, and what its models make of some inputs.

    python tests/parity/golden.py     # with the groups `torch` and `transformers`

They are read where neither is installed, by tests/examples/test_pretrained.py.
"""

from pathlib import Path

import safetensors.torch
import torch
import transformers

FOLDER = Path(__file__).parents[1] / "data" / "pretrained"
TOKENS = {"vocab_size": 23, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def randomize(model):
    """Draws all weights, such that the model does not always say the same."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = parameter.ndim == 1 and name.endswith("weight")
            parameter.normal_(1.0 if is_scale else 0.0, 0.5 if parameter.ndim == 2 else 0.2)
    return model.eval()


def save(name, model, **arrays):
    model.save_pretrained(FOLDER / name)
    (FOLDER / name / "generation_config.json").unlink(missing_ok=True)
    arrays = {key: value.contiguous() for key, value in arrays.items()}
    safetensors.torch.save_file(arrays, FOLDER / f"{name}.safetensors")


@torch.no_grad()
def language(name, model):
    tokens = torch.randint(0, TOKENS["vocab_size"], (2, 5))
    options = {"attention_mask": torch.ones_like(tokens), "do_sample": False, "pad_token_id": 0}
    new = model.generate(tokens, max_new_tokens=12, **options)[:, 5:]
    save(name, model, inputs=tokens, logits=model(tokens).logits, new=new)


@torch.no_grad()
def main():
    torch.manual_seed(0)
    gpt2 = transformers.GPT2Config(n_positions=24, n_embd=8, n_layer=2, n_head=2, **TOKENS)
    language("gpt2", randomize(transformers.GPT2LMHeadModel(gpt2)))
    llama = transformers.LlamaConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=24,
        **TOKENS,
    )
    language("llama", randomize(transformers.LlamaForCausalLM(llama)))
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    vit = randomize(transformers.ViTForImageClassification(config))
    images = torch.randn(2, 3, 8, 8)
    save("vit", vit, inputs=images, logits=vit(images).logits)


if __name__ == "__main__":
    main()
