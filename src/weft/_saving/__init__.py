"""Saved state: what objects hold as leaves with facts, and the files that keep them.

Reading order: `facts` (what is known of a leaf besides its bytes) and `names` (its path), `leaves`
(objects as leaves, and back), `fit`, `collect` and `place` (what is saved; which saved leaf goes
where, and as what), all of which know nothing of files.

One file: `dtypes`, `header`, `tensor_file` (the safetensors file), `replacing` (writing it as a
whole) and `save` (the public functions). The folders of a run, which `train.Checkpoints` keeps:
`shards` (arrays in parts with checksums), `storage` (Orbax), `manifest` (all that is not in the
arrays), `steps` (the folders), `processes` (what several tell each other), `write_step` and
`read_step`. Nothing is imported here.
"""
