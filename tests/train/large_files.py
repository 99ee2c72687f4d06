"""Flips bits in a step as if its files were large: `large_files.py FOLDER TRIALS`.

Of large files the manifest has no checksums, as those of the arrays in them cover what counts. Each
flip has to be found, or to make no difference. Prints how many were found.

This is a process of its own: when one read fails, Orbax leaves the others running, and TensorStore
complains on stderr at any later time that nobody waits for them.
"""

import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import weft as nnx
from tests.saving.nets import assert_same, objects, values
from weft._saving import manifest
from weft.train import Checkpoints


def main(folder: str, trials: str) -> None:
    manifest._SMALL = -1  # as if all were large
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, **objects(1))
    chance, target, found = random.Random(0), objects(9), 0
    files = [file for file in sorted(Path(folder).rglob("*")) if file.is_file()]
    files = [file for file in files if file.stat().st_size]
    for trial in range(max(int(trials), len(files))):
        file = files[trial % len(files)]
        data = file.read_bytes()
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(changed)
        try:
            Checkpoints(folder).restore(1, **target)
        except nnx.CheckpointError as error:
            found += 1
            names = re.findall(r"x\.\w+|model\.\w+|optimizer\.\w+|rngs\.\w+", str(error))
            assert names or "manifest.json" in str(error), error  # which array, or which file
        else:  # in bytes of Orbax that say nothing of the arrays
            assert_same(values(target), values(objects(1)))
        file.write_bytes(data)
    print(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
