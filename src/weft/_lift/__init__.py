"""Transforms: the one lift and its instances; see the README in this folder.

Nothing is imported here: a program pays for the transforms that it uses.
"""
