"""What is on disk: packs of frames, and the LMDB index over them. FORMAT.md, beside this file, is normative."""
