/* How levels 1-6 of klauspost/compress, and of Go from 1.27 on, find matches: by tables of the last one or two places
 * where the next few bytes stood. */
#ifndef LAYERSTORE_GO_FAST_H
#define LAYERSTORE_GO_FAST_H

#include "go_blocks.h"

typedef struct {
    int32_t now, before;
} place_pair;

typedef struct {
    int level;
    int32_t mismatch; /* level 5: bytes that may differ at the start of a match that is found by its end */
    uint8_t *history;
    int32_t size; /* of the history */
    int32_t base; /* what the history's first byte is called in the tables */
    int32_t *places, *long_places; /* by the hash of 4 or 5 bytes, by that of 7 */
    place_pair *pairs;
} fast_finder;

int fast_init(fast_finder *finder, int level); /* 0, or -1 without memory */
void fast_free(fast_finder *finder);
/* Forget what came before: nothing before the next block can be matched. */
void fast_reset(fast_finder *finder);
/* Find the block's tokens. None: there were no matches, or the block is shorter than FAST_BLOCK_MIN. */
void fast_encode(fast_finder *finder, const uint8_t *block, int32_t size, block_tokens *tokens);

enum { FAST_BLOCK_MIN = 13 };

#endif
