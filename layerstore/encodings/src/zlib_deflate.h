/* Our own DEFLATE encoder that makes the bytes of zlib's deflate (levels 1-9, default strategy, window of 32 KiB,
 * memLevel 8) or of its elder brother in GNU gzip.
 *
 * What their output depends on (window, hash chains, lazy rules, size of a block, shape of the Huffman codes) was taken from
 * zlib 1.2.11-1.3.1 and GNU gzip 1.12 (deflate.c, trees.c); these versions of zlib make the same bytes at these levels. No
 * code of theirs is in here. */
#ifndef LAYERSTORE_ZLIB_DEFLATE_H
#define LAYERSTORE_ZLIB_DEFLATE_H

#include "encoder.h"

enum {
    ZLIB_WINDOW = 32768,
    ZLIB_SYMBOLS = 16383, /* a block ends with so many literals and matches: zlib's lit_bufsize - 1 */
    GNU_SYMBOLS = 32767,  /* GNU gzip's LIT_BUFSIZE - 1 */
    ZLIB_LITERAL_CODES = 286,
    ZLIB_DISTANCE_CODES = 30,
    ZLIB_LENGTH_MIN = 3,
    ZLIB_LENGTH_MAX = 258,
};

typedef enum { ZLIB, GNU_GZIP } zlib_flavour;

typedef enum {
    ZLIB_MORE,   /* keep what needs a longer look ahead */
    ZLIB_BLOCK,  /* Z_BLOCK: end the block, stay between two bytes */
    ZLIB_SYNC,   /* Z_SYNC_FLUSH: end the block, then an empty stored block up to the next whole byte */
    ZLIB_FINISH, /* Z_FINISH */
} zlib_flush;

/* Bits that do not make a whole byte yet (fewer than 8 between two calls). */
typedef struct {
    uint64_t hold;
    unsigned count;
} zlib_bits;

typedef struct {
    uint16_t code; /* reversed, as it is sent: least significant bit first */
    uint16_t length;
} zlib_code;

/* The symbols of the block that is being collected, and the tables to count and to write them. */
typedef struct {
    uint32_t symbols[GNU_SYMBOLS]; /* distance << 16 | literal, or length - 3; distance 0 for a literal */
    uint32_t count;
    uint32_t pause;  /* at so many symbols look whether the block should end */
    uint32_t matches;
    uint16_t literal_frequency[ZLIB_LITERAL_CODES];
    uint16_t distance_frequency[ZLIB_DISTANCE_CODES];
    zlib_code fixed_literal[ZLIB_LITERAL_CODES + 2];
    uint8_t length_code[256];   /* of length - 3 */
    uint8_t distance_code[512]; /* of distance - 1 below 256, and of 256 + (distance - 1 >> 7) */
    zlib_bits bits;
} zlib_block;

void zlib_block_init(zlib_block *block);

/* Forget the symbols and the bits: a new stream begins. */
void zlib_block_reset(zlib_block *block);

/* Write the collected symbols in the shortest of the three forms of a block, and start the next block. `stored` are the
 * bytes that the symbols stand for, or NULL when they have left the window. Returns 0, or -1 without memory. */
int zlib_block_write(zlib_block *block, const uint8_t *stored, size_t stored_size, int last, sink *out);

/* An empty stored block: it ends on a whole byte. */
int zlib_block_write_empty_stored(zlib_block *block, sink *out);

/* Empty blocks of 10 bits with the fixed code until a whole byte is reached; the bits left over must be an even number. */
int zlib_block_write_empty_fixed(zlib_block *block, sink *out);

static inline unsigned zlib_distance_code(const zlib_block *block, unsigned distance) {
    unsigned below = distance - 1;
    return below < 256 ? block->distance_code[below] : block->distance_code[256 + (below >> 7)];
}

/* The sum of the extra bits of the distances so far. */
uint32_t zlib_block_count_distance_bits(const zlib_block *block);

/* Return true when block->pause is reached. */
static inline int zlib_block_add_literal(zlib_block *block, uint8_t literal) {
    block->symbols[block->count++] = literal;
    block->literal_frequency[literal]++;
    return block->count == block->pause;
}

static inline int zlib_block_add_match(zlib_block *block, unsigned distance, unsigned length) {
    unsigned above = length - ZLIB_LENGTH_MIN;
    block->symbols[block->count++] = (uint32_t)distance << 16 | above;
    block->literal_frequency[257 + block->length_code[above]]++;
    block->distance_frequency[zlib_distance_code(block, distance)]++;
    block->matches++;
    return block->count == block->pause;
}

typedef struct zlib_deflate zlib_deflate;

/* NULL without memory or when the level is none of 1-9. */
zlib_deflate *zlib_deflate_create(int level, zlib_flavour flavour);
void zlib_deflate_destroy(zlib_deflate *state);

/* Start a new stream at the same level. */
void zlib_deflate_reset(zlib_deflate *state);

/* Let the stream, which has just been created or reset, refer back to ZLIB_WINDOW bytes before its start. */
void zlib_deflate_set_dictionary(zlib_deflate *state, const uint8_t *dictionary);

/* Consume all of the input. How the input of one flush is cut into calls makes no difference: the result is zlib's when it
 * is given everything up to the flush in one call. (zlib itself differs for other feeding only when it runs out of input
 * 262 bytes before the end of its window and the one position 32,506 bytes back has the same hash; feeding in multiples
 * of 512 bytes never does. The same is true of GNU gzip, which knows no flush but ZLIB_FINISH.) Returns 0, or -1 without
 * memory. */
int zlib_deflate_write(zlib_deflate *state, const uint8_t *data, size_t size, zlib_flush flush, sink *out);

/* Go on to the next whole byte as pigz does after ZLIB_BLOCK: with empty fixed blocks when they reach it and `stored` is
 * false, else with one empty stored block. */
int zlib_deflate_align(zlib_deflate *state, int stored, sink *out);

#endif
