"""Layers and the functions they are made of: one family per file.

Each is imported when it is first used; type checkers read the names in `__init__.pyi`.
"""

from weft._core.elsewhere import names_in as _names_in

__all__, __getattr__, __dir__ = _names_in(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "weft.nn": "initializers",
        "weft.nn.activations": """
            PReLU celu elu gelu glu hard_sigmoid hard_silu hard_swish hard_tanh identity leaky_relu
            log_sigmoid log_softmax logsumexp one_hot relu relu6 selu sigmoid silu soft_sign softmax
            softplus standardize swish tanh
        """,
        "weft.nn.adaptive_pooling": "AdaptiveAvgPool AdaptiveMaxPool GlobalAvgPool GlobalMaxPool",
        "weft.nn.attention": "MultiHeadAttention",
        "weft.nn.attention_masks": "combine_masks make_attention_mask make_causal_mask",
        "weft.nn.batch_norm": "BatchNorm",
        "weft.nn.bidirectional": "Bidirectional",
        "weft.nn.conv": "Conv",
        "weft.nn.conv_transpose": "ConvTranspose",
        "weft.nn.cross_entropy": "linear_cross_entropy",
        "weft.nn.dot_product": "dot_product_attention",
        "weft.nn.dropout": "Dropout",
        "weft.nn.einsum": "Einsum",
        "weft.nn.embed": "Embed",
        "weft.nn.gru": "GRUCell",
        "weft.nn.initializers": "Initializer",
        "weft.nn.linear": "Linear LinearGeneral",
        "weft.nn.lora": "LoRA LoRALinear LoRAParam",
        "weft.nn.lstm": "LSTMCell OptimizedLSTMCell",
        "weft.nn.normalization": "GroupNorm InstanceNorm LayerNorm RMSNorm",
        "weft.nn.pooling": "AvgPool MaxPool MinPool avg_pool max_pool min_pool pool",
        "weft.nn.recurrent": "RNN",
        "weft.nn.recurrent_cell": "RNNCellBase",
        "weft.nn.restack": "unstack",
        "weft.nn.rope": "RoPE dot_product_attention_with_rope",
        "weft.nn.shape": "Flatten Identity",
        "weft.nn.simple_cell": "SimpleCell",
        "weft.nn.spectral_norm": "SpectralNorm",
        "weft.nn.stack": "Stack",
        "weft.nn.weight_norm": "WeightNorm",
    },
)
