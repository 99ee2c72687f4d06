"""The names of `weft.nn`, and where each is defined.

Without the functions `lora` and `stack`, whose names modules have here: `nnx.lora`, `nnx.stack`.
"""

from weft.nn import initializers as initializers
from weft.nn.activations import PReLU as PReLU, celu as celu, elu as elu, gelu as gelu, glu as glu
from weft.nn.activations import hard_sigmoid as hard_sigmoid, hard_silu as hard_silu
from weft.nn.activations import hard_swish as hard_swish, hard_tanh as hard_tanh
from weft.nn.activations import identity as identity, leaky_relu as leaky_relu
from weft.nn.activations import log_sigmoid as log_sigmoid, log_softmax as log_softmax
from weft.nn.activations import logsumexp as logsumexp, one_hot as one_hot, relu as relu
from weft.nn.activations import relu6 as relu6, selu as selu, sigmoid as sigmoid, silu as silu
from weft.nn.activations import soft_sign as soft_sign, softmax as softmax, softplus as softplus
from weft.nn.activations import standardize as standardize, swish as swish, tanh as tanh
from weft.nn.adaptive_pooling import AdaptiveAvgPool as AdaptiveAvgPool
from weft.nn.adaptive_pooling import AdaptiveMaxPool as AdaptiveMaxPool
from weft.nn.adaptive_pooling import GlobalAvgPool as GlobalAvgPool, GlobalMaxPool as GlobalMaxPool
from weft.nn.attention import MultiHeadAttention as MultiHeadAttention
from weft.nn.attention_masks import combine_masks as combine_masks
from weft.nn.attention_masks import make_attention_mask as make_attention_mask
from weft.nn.attention_masks import make_causal_mask as make_causal_mask
from weft.nn.batch_norm import BatchNorm as BatchNorm
from weft.nn.bidirectional import Bidirectional as Bidirectional
from weft.nn.conv import Conv as Conv
from weft.nn.conv_transpose import ConvTranspose as ConvTranspose
from weft.nn.cross_entropy import linear_cross_entropy as linear_cross_entropy
from weft.nn.dot_product import dot_product_attention as dot_product_attention
from weft.nn.dropout import Dropout as Dropout
from weft.nn.einsum import Einsum as Einsum
from weft.nn.embed import Embed as Embed
from weft.nn.gru import GRUCell as GRUCell
from weft.nn.initializers import Initializer as Initializer
from weft.nn.linear import Linear as Linear, LinearGeneral as LinearGeneral
from weft.nn.lora import LoRA as LoRA, LoRALinear as LoRALinear, LoRAParam as LoRAParam
from weft.nn.lstm import LSTMCell as LSTMCell, OptimizedLSTMCell as OptimizedLSTMCell
from weft.nn.normalization import GroupNorm as GroupNorm, InstanceNorm as InstanceNorm
from weft.nn.normalization import LayerNorm as LayerNorm, RMSNorm as RMSNorm
from weft.nn.pooling import AvgPool as AvgPool, MaxPool as MaxPool, MinPool as MinPool
from weft.nn.pooling import avg_pool as avg_pool, max_pool as max_pool, min_pool as min_pool
from weft.nn.pooling import pool as pool
from weft.nn.recurrent import RNN as RNN
from weft.nn.recurrent_cell import RNNCellBase as RNNCellBase
from weft.nn.restack import unstack as unstack
from weft.nn.rope import RoPE as RoPE
from weft.nn.rope import dot_product_attention_with_rope as dot_product_attention_with_rope
from weft.nn.shape import Flatten as Flatten, Identity as Identity
from weft.nn.simple_cell import SimpleCell as SimpleCell
from weft.nn.spectral_norm import SpectralNorm as SpectralNorm
from weft.nn.stack import Stack as Stack
from weft.nn.weight_norm import WeightNorm as WeightNorm
