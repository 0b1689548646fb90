/* How levels 7-9 of Go from 1.27 on find matches: by hash chains, looking one byte further before a match is taken. */
#ifndef LAYERSTORE_GO_LAZY_H
#define LAYERSTORE_GO_LAZY_H

#include "go_blocks.h"

typedef struct lazy_finder lazy_finder;

lazy_finder *lazy_new(int level); /* NULL without memory */
void lazy_free(lazy_finder *finder);
/* Take up to `size` bytes and return how many; then `lazy_step`. */
size_t lazy_fill(lazy_finder *finder, const uint8_t *data, size_t size);
/* Encode what is there; with `sync` all of it, else what has enough bytes behind it. Full blocks are written. */
void lazy_step(lazy_finder *finder, block_writer *blocks, block_tokens *tokens, int sync);

#endif
