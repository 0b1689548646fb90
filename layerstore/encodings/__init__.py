"""How a compressed blob is made again, bit for bit, from its uncompressed layer."""
