"""The documents of the OCI image specification 1.1 and of Docker's "v2 schema 2", and the references that name images.

Nothing here knows how layers are stored; bytes and texts come in, checked values come out.
"""
