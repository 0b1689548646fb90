/* How klauspost/compress, and Go from 1.27 on, write a block: they keep a Huffman code over several blocks' worth of input
 * while a new one would not pay, so that what they call a block need not be one in the stream. */
#ifndef LAYERSTORE_GO_BLOCKS_H
#define LAYERSTORE_GO_BLOCKS_H

#include "go_huffman.h"

/* What tells the versions apart, at every level. */
typedef struct {
    go_code_builder builder;
    /* Blocks that go on are given all 286 + 30 code lengths, trailing zeros and all: klauspost up to 1.18.0. */
    int all_lengths;
    /* The end of a block is counted even where it is not written yet: klauspost from 1.18.2 and Go 1.27, not 1.18.1. */
    int count_end;
    /* The estimate of a block's size was compiled to fused multiplications and additions. */
    int fused;
    /* Codes of blocks that go on are given every symbol, so that they fit whatever follows: klauspost up to 1.13.6. */
    int filled;
} block_rules;

/* The tokens of a block and how often their symbols occur. */
typedef struct {
    uint32_t literals[GO_LITERALS + 3]; /* with the end of the block and the length codes */
    uint32_t offsets[32];
    uint32_t count;
    int32_t long_part; /* how much of a very long match goes into one token: 258, or 255 in old versions */
    uint32_t items[GO_BLOCK_STORED_MAX + 1];
} block_tokens;

typedef struct {
    bit_writer bits;
    const block_rules *rules;
    unsigned penalty; /* a new code must save so much of the block, as a power of 1/2 */
    uint32_t open_header; /* size of the header of the block that has not ended yet, in bits; 0: none is open */
    int literals_only; /* the open block's code has no matches */
    uint32_t literal_frequencies[GO_LITERALS + 3], offset_frequencies[32];
    go_code literal_codes[2][GO_LITERALS];
    go_code *literals, *spare_literals;
    go_code offsets[GO_OFFSETS];
    go_dynamic_header header;
} block_writer;

void blocks_init(block_writer *blocks, const block_rules *rules, unsigned penalty);
void blocks_reset(block_writer *blocks);

static inline void tokens_reset(block_tokens *tokens) {
    if (tokens->count != 0) {
        memset(tokens->literals, 0, sizeof tokens->literals);
        memset(tokens->offsets, 0, sizeof tokens->offsets);
        tokens->count = 0;
    }
}

static inline void tokens_add_literals(block_tokens *tokens, const uint8_t *data, int32_t size) {
    uint32_t *place = tokens->items + tokens->count;
    for (int32_t i = 0; i < size; i++) {
        place[i] = data[i];
        tokens->literals[data[i]]++;
    }
    tokens->count += (uint32_t)size;
}

static inline void tokens_add_match(block_tokens *tokens, uint32_t length, uint32_t offset) {
    uint32_t token = go_match_token(length, offset);
    tokens->literals[GO_LENGTH_CODES + go_length_codes[length - 3]]++;
    tokens->offsets[go_token_offset_code(token)]++;
    tokens->items[tokens->count++] = token;
}

/* A match of any length: in parts of 258 (or 255), the last but one of 255 where less than three bytes would be left. */
static inline void tokens_add_long_match(block_tokens *tokens, int32_t length, uint32_t offset) {
    while (length > 0) {
        int32_t part = length <= 258 ? length : length > 258 + 3 ? tokens->long_part : 258 - 3;
        tokens_add_match(tokens, (uint32_t)part, offset);
        length -= part;
    }
}

/* Write tokens; `data` is what they stand for, or NULL when that has left the window. `sync`: the block ends here. */
void blocks_write_dynamic(block_writer *blocks, block_tokens *tokens, const uint8_t *data, size_t size, int sync);
/* Write bytes as literals, or stored. */
void blocks_write_literals(block_writer *blocks, const uint8_t *data, size_t size, int sync);
/* The header of a stored block of bytes that the caller writes; an empty last block is one with the fixed codes. */
void blocks_write_stored_header(block_writer *blocks, unsigned size, int last);
void blocks_write_stored(block_writer *blocks, const uint8_t *data, size_t size);

#endif
