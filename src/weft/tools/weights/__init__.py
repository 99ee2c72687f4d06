"""Weights of others, into models and out of them, by PyTorch's names or by rules.

Reading order: `source` (arrays by name), `layout` (what PyTorch would call the weights of a model),
`rules` (patterns of names), `links` (which arrays go where, and how they are converted), `plan`
(all links between a source and a model), `report` (what is shown of it), `load` and `save` (the
public functions). Nothing is imported here.
"""
