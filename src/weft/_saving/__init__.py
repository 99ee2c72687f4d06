"""Saved state: what objects hold as leaves with facts, and the file that keeps them.

Reading order: `facts` (what is known of a leaf besides its bytes) and `names` (its path), `leaves`
(objects as leaves, and back), `fit` and `place` (which saved leaf goes where, and as what), all of
which know nothing of files; then `dtypes`, `header`, `tensor_file` (the safetensors file),
`replacing` (writing it as a whole) and `save` (the public functions). Nothing is imported here.
"""
