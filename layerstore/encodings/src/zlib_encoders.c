/* The encoders of zlib's family, as module.c lists them: zlib itself, the three ways in which pigz uses it, and GNU gzip.
 *
 * pigz (facts from its versions 2.4-2.8 with zlib 1.2.6 or newer) cuts the input into blocks and ends each but the last with
 * Z_BLOCK and empty blocks up to a whole byte. With several threads each block is a stream of its own that has the 32 KiB
 * before it as a dictionary; with one (`-p 1`) all blocks are one stream; with `-i` no block refers to another, and two
 * empty stored blocks mark its end, whatever the number of threads. */
#include "encoder.h"
#include "zlib_deflate.h"

#include <stdlib.h>
#include <string.h>

enum {
    PIGZ_BLOCK = 131072, /* without `-b` */
    PIGZ_BLOCK_MIN = 32768,
    PIGZ_BLOCK_MAX = 1 << 30,
};

/* ---- zlib ----------------------------------------------------------------------------------------------------------- */

static encoder *create_zlib(int level, uint32_t block_size) {
    return block_size == 0 ? (encoder *)zlib_deflate_create(level, ZLIB) : NULL;
}

static int write_zlib(encoder *state, const uint8_t *data, size_t size, int flush, sink *out) {
    zlib_flush how = flush == ENCODER_FINISH ? ZLIB_FINISH : flush == ENCODER_SYNC_FLUSH ? ZLIB_SYNC : ZLIB_MORE;
    return zlib_deflate_write((zlib_deflate *)state, data, size, how, out);
}

static void destroy_zlib(encoder *state) {
    zlib_deflate_destroy((zlib_deflate *)state);
}

const encoder_kind zlib_kind = {
    .name = "zlib",
    .number = 16,
    .level_min = 1,
    .level_max = 9,
    .create = create_zlib,
    .write = write_zlib,
    .destroy = destroy_zlib,
};

/* ---- GNU gzip ------------------------------------------------------------------------------------------------------- */

static encoder *create_gnu_gzip(int level, uint32_t block_size) {
    return block_size == 0 ? (encoder *)zlib_deflate_create(level, GNU_GZIP) : NULL;
}

/* A sync flush is ignored, as GNU gzip has none. */
static int write_gnu_gzip(encoder *state, const uint8_t *data, size_t size, int flush, sink *out) {
    return zlib_deflate_write((zlib_deflate *)state, data, size, flush == ENCODER_FINISH ? ZLIB_FINISH : ZLIB_MORE, out);
}

const encoder_kind gnu_gzip_kind = {
    .name = "gnu-gzip",
    .number = 20,
    .level_min = 1,
    .level_max = 9,
    .create = create_gnu_gzip,
    .write = write_gnu_gzip,
    .destroy = destroy_zlib,
};

/* ---- pigz ----------------------------------------------------------------------------------------------------------- */

typedef enum { THREADS, ONE_THREAD, INDEPENDENT } pigz_way;

typedef struct {
    zlib_deflate *deflate;
    pigz_way way;
    uint32_t block_size;
    uint32_t block_used;               /* bytes of the block that has been begun */
    uint8_t dictionary[ZLIB_WINDOW];   /* the last bytes of the block, when the next one needs them */
} pigz;

static encoder *create_pigz(int level, uint32_t block_size, pigz_way way) {
    if (block_size == 0)
        block_size = PIGZ_BLOCK;
    if (block_size < PIGZ_BLOCK_MIN || block_size > PIGZ_BLOCK_MAX)
        return NULL;
    pigz *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    state->way = way;
    state->block_size = block_size;
    state->deflate = zlib_deflate_create(level, ZLIB);
    if (state->deflate == NULL) {
        free(state);
        return NULL;
    }
    return (encoder *)state;
}

/* End a full block that another one follows. */
static int end_block(pigz *state, sink *out) {
    int independent = state->way == INDEPENDENT;
    if (zlib_deflate_write(state->deflate, NULL, 0, ZLIB_BLOCK, out) < 0)
        return -1;
    if (zlib_deflate_align(state->deflate, independent, out) < 0)
        return -1;
    if (independent && zlib_deflate_align(state->deflate, independent, out) < 0)
        return -1;
    if (state->way != ONE_THREAD)
        zlib_deflate_reset(state->deflate);
    if (state->way == THREADS)
        zlib_deflate_set_dictionary(state->deflate, state->dictionary);
    state->block_used = 0;
    return 0;
}

/* Keep what of the block's last ZLIB_WINDOW bytes lies in `data`, which begins at `block_used`. */
static void keep_dictionary(pigz *state, const uint8_t *data, size_t size) {
    size_t start = state->block_size - ZLIB_WINDOW;
    size_t used = state->block_used;
    size_t skipped = used < start ? start - used : 0;
    if (skipped < size)
        memcpy(state->dictionary + (used + skipped - start), data + skipped, size - skipped);
}

/* A sync flush is ignored, as pigz has none. */
static int write_pigz(encoder *self, const uint8_t *data, size_t size, int flush, sink *out) {
    pigz *state = (pigz *)self;
    while (size > 0) {
        if (state->block_used == state->block_size && end_block(state, out) < 0)
            return -1;
        size_t room = state->block_size - state->block_used;
        size_t part = size < room ? size : room;
        if (zlib_deflate_write(state->deflate, data, part, ZLIB_MORE, out) < 0)
            return -1;
        if (state->way == THREADS)
            keep_dictionary(state, data, part);
        state->block_used += (uint32_t)part;
        data += part;
        size -= part;
    }
    return flush == ENCODER_FINISH ? zlib_deflate_write(state->deflate, NULL, 0, ZLIB_FINISH, out) : 0;
}

static void destroy_pigz(encoder *self) {
    pigz *state = (pigz *)self;
    if (state != NULL)
        zlib_deflate_destroy(state->deflate);
    free(state);
}

static encoder *create_pigz_threads(int level, uint32_t block_size) {
    return create_pigz(level, block_size, THREADS);
}

static encoder *create_pigz_one_thread(int level, uint32_t block_size) {
    return create_pigz(level, block_size, ONE_THREAD);
}

static encoder *create_pigz_independent(int level, uint32_t block_size) {
    return create_pigz(level, block_size, INDEPENDENT);
}

const encoder_kind pigz_kind = {
    .name = "pigz",
    .number = 17,
    .level_min = 1,
    .level_max = 9,
    .create = create_pigz_threads,
    .write = write_pigz,
    .destroy = destroy_pigz,
    .block_size_min = PIGZ_BLOCK_MIN,
    .block_size_max = PIGZ_BLOCK_MAX,
};

const encoder_kind pigz_one_thread_kind = {
    .name = "pigz-one-thread",
    .number = 18,
    .level_min = 1,
    .level_max = 9,
    .create = create_pigz_one_thread,
    .write = write_pigz,
    .destroy = destroy_pigz,
    .block_size_min = PIGZ_BLOCK_MIN,
    .block_size_max = PIGZ_BLOCK_MAX,
};

const encoder_kind pigz_independent_kind = {
    .name = "pigz-independent",
    .number = 19,
    .level_min = 1,
    .level_max = 9,
    .create = create_pigz_independent,
    .write = write_pigz,
    .destroy = destroy_pigz,
    .block_size_min = PIGZ_BLOCK_MIN,
    .block_size_max = PIGZ_BLOCK_MAX,
};
