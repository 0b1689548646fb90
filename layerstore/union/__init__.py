"""The union view: a stack of layers as one read-only file system, without unpacking and without root.

Skeletons say what is where; contents are read only when they are asked for.
"""
