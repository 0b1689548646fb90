"""Container layers: the one writable layer on top of an image, in which every change goes.

It is a directory in the form of an upper directory of overlayfs, so that the kernel can go on where this package ends.
"""
