"""Images as mounted file systems, and containers as overlayfs on top of them.

A server process of its own answers the kernel over FUSE, so that the process that mounts never waits for itself.
`client` starts the server and does the mounts; everything else but `errors` belongs to the server or to both.
"""
