"""The client: repositories of registries as places that images come from and go to.

`RemoteRepository` is a place as `layerstore.places` has them. Whatever it asks of a registry goes through
`Connection.request`; a blob comes down in `Download` and goes up in `Uploads.send`, or as a difference in
`Differences`. `Traffic` counts what that cost. What is wrong is told in words (`problems`, `requests`); with which
option it is mended is for the caller to say. Credentials come from files that he names (`credentials`, `auth_file`).
"""
