/* Streams of klauspost/compress's flate and of Go's compress/flate from 1.27 on, which was made from it, and the blocks of
 * klauspost/pgzip. Facts from github.com/klauspost/compress v1.12.3-v1.20.4 (flate/deflate.go), Go 1.27.3
 * (src/compress/flate/deflate.go) and github.com/klauspost/pgzip v1.2.6 (gzip.go).
 *
 * pgzip cuts its input into blocks and gives each to an encoder of its own, which knows the last 16 KiB of the block before,
 * and whose output ends with a sync flush. A block of at most 16 KiB leaves the next one without a dictionary. */
#include <stdlib.h>

#include "go_fast.h"
#include "go_lazy.h"

enum {
    TAIL = 16384,
    LITERALS_BLOCK = 32768, /* of level -2 */
    SMALL_BLOCK = 128,
};

typedef struct {
    block_rules rules;
    int small_with_history; /* what is flushed below 128 bytes is encoded as any other: klauspost from 1.20.4 */
    int level_default;
    int mismatch; /* see fast_finder: 2 in klauspost from 1.15.10, 0 before */
} variant;

static const variant klauspost_1_12 = {{GO_PACKAGE_MERGE, 0, 0, 0, 1}, 0, 5, 0};
static const variant klauspost_1_15_0 = {{GO_PACKAGE_MERGE, 1, 0, 0, 0}, 0, 5, 0};
static const variant klauspost_1_15 = {{GO_PACKAGE_MERGE, 1, 0, 0, 0}, 0, 5, 2};
static const variant klauspost_1_18_1 = {{GO_PACKAGE_MERGE, 0, 0, 0, 0}, 0, 5, 2};
static const variant klauspost_1_18_2 = {{GO_PACKAGE_MERGE, 0, 1, 0, 0}, 0, 5, 2};
static const variant klauspost_1_20_4 = {{GO_TREE_FIRST, 0, 1, 0, 0}, 1, 5, 2};
static const variant go_1_27 = {{GO_PACKAGE_MERGE, 0, 1, 0, 0}, 0, 6, 2};
/* The same sources, compiled for a processor with fused multiplication and addition; from 1.20.1 on that is ruled out. */
static const variant fused_klauspost_1_15 = {{GO_PACKAGE_MERGE, 1, 0, 1, 0}, 0, 5, 2};
static const variant fused_klauspost_1_18_1 = {{GO_PACKAGE_MERGE, 0, 0, 1, 0}, 0, 5, 2};
static const variant fused_klauspost_1_18_2 = {{GO_PACKAGE_MERGE, 0, 1, 1, 0}, 0, 5, 2};
static const variant fused_go_1_27 = {{GO_PACKAGE_MERGE, 0, 1, 1, 0}, 0, 6, 2};

typedef struct {
    const variant *kind;
    int level;
    block_writer blocks;
    block_tokens tokens;
    fast_finder fast;
    lazy_finder *lazy;
    int32_t filled, capacity;
    uint8_t window[GO_BLOCK_STORED_MAX]; /* not used at levels 7-9 */
    uint32_t block_size, block_filled; /* pgzip's */
    size_t tail_size;
    uint8_t tail[TAIL];
} stream;

static void stream_destroy(encoder *state) {
    stream *z = (stream *)state;
    fast_free(&z->fast);
    lazy_free(z->lazy);
    free(z);
}

static encoder *create(const variant *kind, int level, uint32_t block_size) {
    stream *z = calloc(1, sizeof *z);
    if (z == NULL)
        return NULL;
    if (level == -1)
        level = kind->level_default;
    z->kind = kind;
    z->level = level;
    z->block_size = block_size;
    z->capacity = level < 0 ? LITERALS_BLOCK : GO_BLOCK_STORED_MAX;
    blocks_init(&z->blocks, &kind->rules, level < 0 ? 10 : level >= 7 || kind->rules.filled ? 8 : 7);
    z->tokens.long_part = kind->rules.filled ? 255 : 258;
    int failed = 0;
    if (level >= 7)
        failed = (z->lazy = lazy_new(level)) == NULL;
    else if (level >= 1)
        failed = fast_init(&z->fast, level) < 0;
    z->fast.mismatch = kind->mismatch;
    if (failed) {
        stream_destroy((encoder *)z);
        return NULL;
    }
    return (encoder *)z;
}

static void write_small(stream *z) {
    if (z->filled <= 32)
        blocks_write_stored(&z->blocks, z->window, (size_t)z->filled);
    else
        blocks_write_literals(&z->blocks, z->window, (size_t)z->filled, 1);
}

/* Levels 1-6. `closing`: nothing follows, so that nothing need be remembered. */
static void finish_fast_window(stream *z, int sync, int closing) {
    const size_t size = (size_t)z->filled;
    const int small = z->filled < SMALL_BLOCK;
    if (small && !z->kind->small_with_history) {
        write_small(z);
        fast_reset(&z->fast);
        return;
    }
    if (small && closing && z->fast.size == 0) {
        write_small(z);
        return;
    }
    fast_encode(&z->fast, z->window, z->filled, &z->tokens);
    const int none = z->tokens.count == 0;
    if (z->filled < FAST_BLOCK_MIN || (none && !small))
        blocks_write_stored(&z->blocks, z->window, size);
    else if (none || (int32_t)z->tokens.count > z->filled - (z->filled >> 4))
        blocks_write_literals(&z->blocks, z->window, size, sync);
    else
        blocks_write_dynamic(&z->blocks, &z->tokens, z->window, size, sync);
    tokens_reset(&z->tokens);
}

static void step(stream *z, int sync, int closing) {
    if (z->lazy != NULL) {
        lazy_step(z->lazy, &z->blocks, &z->tokens, sync);
        return;
    }
    if (z->filled == 0)
        return;
    if (z->level > 0)
        finish_fast_window(z, sync, closing);
    else if (z->level == 0)
        blocks_write_stored(&z->blocks, z->window, (size_t)z->filled);
    else
        blocks_write_literals(&z->blocks, z->window, (size_t)z->filled, sync);
    z->filled = 0;
}

/* A full window is encoded when more follows, not before: the end of the stream may make a difference to it. */
static void feed(stream *z, const uint8_t *data, size_t size) {
    while (size > 0 && !z->blocks.bits.failed) {
        size_t part;
        if (z->lazy != NULL) {
            part = lazy_fill(z->lazy, data, size);
            if (part == 0) {
                step(z, 0, 0);
                continue;
            }
        } else {
            if (z->filled == z->capacity)
                step(z, 0, 0);
            part = (size_t)(z->capacity - z->filled);
            if (part > size)
                part = size;
            memcpy(z->window + z->filled, data, part);
            z->filled += (int32_t)part;
        }
        data += part;
        size -= part;
    }
}

static void sync_flush(stream *z) {
    step(z, 1, 0);
    blocks_write_stored_header(&z->blocks, 0, 0);
}

static void finish(stream *z) {
    step(z, 1, 1);
    blocks_write_stored_header(&z->blocks, 0, 1);
}

/* pgzip's block ends; the next one begins with its tail. */
static void next_block(stream *z) {
    sync_flush(z);
    blocks_reset(&z->blocks);
    size_t tail_size = z->block_filled > TAIL ? TAIL : 0;
    z->block_filled = 0;
    z->tail_size = 0;
    if (z->level > 0) {
        fast_reset(&z->fast);
        fast_encode(&z->fast, z->tail, (int32_t)tail_size, &z->tokens);
        tokens_reset(&z->tokens);
    }
}

static void remember(stream *z, const uint8_t *data, size_t size) {
    if (size >= TAIL) {
        memcpy(z->tail, data + size - TAIL, TAIL);
        z->tail_size = TAIL;
        return;
    }
    size_t kept = z->tail_size < TAIL - size ? z->tail_size : TAIL - size;
    memmove(z->tail, z->tail + z->tail_size - kept, kept);
    memcpy(z->tail + kept, data, size);
    z->tail_size = kept + size;
}

static int stream_write(encoder *state, const uint8_t *data, size_t size, int flush, sink *out) {
    stream *z = (stream *)state;
    z->blocks.bits.out = out;
    if (z->block_size == 0) {
        feed(z, data, size);
        if (flush == ENCODER_SYNC_FLUSH)
            sync_flush(z);
    } else {
        while (size > 0 && !z->blocks.bits.failed) {
            size_t part = z->block_size - z->block_filled;
            if (part > size)
                part = size;
            feed(z, data, part);
            remember(z, data, part);
            z->block_filled += (uint32_t)part;
            data += part;
            size -= part;
            if (z->block_filled == z->block_size)
                next_block(z);
        }
        if (flush == ENCODER_SYNC_FLUSH)
            next_block(z);
        else if (flush == ENCODER_FINISH)
            sync_flush(z);
    }
    if (flush == ENCODER_FINISH)
        finish(z);
    return z->blocks.bits.failed ? -1 : 0;
}

enum { PGZIP_BLOCK_MIN = TAIL + 1, PGZIP_BLOCK_MAX = 1 << 30 };

#define KIND(symbol, variant, name, number, level_min, level_max, block_min, block_max) \
    static encoder *symbol##_create(int level, uint32_t block_size) { return create(&variant, level, block_size); } \
    const encoder_kind symbol##_kind = {name, number, level_min, level_max, symbol##_create, stream_write, stream_destroy, \
                                        block_min, block_max}

KIND(go_flate_127, go_1_27, "go-flate-1.27", 2, -2, 9, 0, 0);
KIND(go_klauspost_1_15, klauspost_1_15, "klauspost-1.15.10", 3, -2, 6, PGZIP_BLOCK_MIN, PGZIP_BLOCK_MAX);
KIND(go_klauspost_1_18_1, klauspost_1_18_1, "klauspost-1.18.1", 4, -2, 6, PGZIP_BLOCK_MIN, PGZIP_BLOCK_MAX);
KIND(go_klauspost_1_18_2, klauspost_1_18_2, "klauspost-1.18.2", 5, -2, 6, PGZIP_BLOCK_MIN, PGZIP_BLOCK_MAX);
KIND(go_klauspost_1_20_4, klauspost_1_20_4, "klauspost-1.20.4", 6, -2, 6, PGZIP_BLOCK_MIN, PGZIP_BLOCK_MAX);
KIND(go_fused_flate_127, fused_go_1_27, "go-flate-1.27-fused", 7, -2, 9, 0, 0);
KIND(go_fused_klauspost_1_15, fused_klauspost_1_15, "klauspost-1.15.10-fused", 8, -2, 6, PGZIP_BLOCK_MIN, PGZIP_BLOCK_MAX);
KIND(go_fused_klauspost_1_18_1, fused_klauspost_1_18_1, "klauspost-1.18.1-fused", 9, -2, 6, PGZIP_BLOCK_MIN,
     PGZIP_BLOCK_MAX);
KIND(go_fused_klauspost_1_18_2, fused_klauspost_1_18_2, "klauspost-1.18.2-fused", 10, -2, 6, PGZIP_BLOCK_MIN,
     PGZIP_BLOCK_MAX);
KIND(go_klauspost_1_15_0, klauspost_1_15_0, "klauspost-1.15.0", 11, 5, 5, PGZIP_BLOCK_MIN, PGZIP_BLOCK_MAX);
KIND(go_klauspost_1_12, klauspost_1_12, "klauspost-1.12.3", 12, 5, 5, PGZIP_BLOCK_MIN, PGZIP_BLOCK_MAX);
