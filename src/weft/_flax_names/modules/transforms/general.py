"""Round trips by hand, under the name that code of the NNX API imports them from."""

from weft._flax_names.inputs import merge_inputs as merge_inputs, split_inputs as split_inputs
