"""The programs here are written for flax.nnx: tests run them."""

collect_ignore = ["programs"]
