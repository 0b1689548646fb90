/* What every encoder of this extension is: one raw DEFLATE stream (RFC 1951), streaming, exactly as another tool makes it.
 *
 * An encoder never sees gzip headers or trailers. It must give the same bytes on every processor, however its input is cut
 * into writes: no floating point, no dependence on byte order, and no undefined behaviour. */
#ifndef LAYERSTORE_ENCODER_H
#define LAYERSTORE_ENCODER_H

#include <stddef.h>
#include <stdint.h>

/* Output that grows. It is empty when `write` is called, and the caller owns it. */
typedef struct {
    uint8_t *data;
    size_t size;
    size_t capacity;
} sink;

/* Append bytes. Returns 0, or -1 when memory ran out. */
int sink_append(sink *out, const uint8_t *data, size_t size);

/* Make room for `size` more bytes and return where they go (the caller then adds to out->size), or NULL without memory. */
uint8_t *sink_reserve(sink *out, size_t size);

typedef struct encoder encoder; /* each kind casts it to its own state */

enum { ENCODER_NO_FLUSH = 0, ENCODER_SYNC_FLUSH = 1, ENCODER_FINISH = 2 };

typedef struct {
    const char *name;
    uint32_t number; /* frozen: part of the storage format, never reused, never given another meaning */
    int level_min;
    int level_max;
    /* NULL when memory ran out or when the block size is not one that this kind has (0: one stream, no blocks). */
    encoder *(*create)(int level, uint32_t block_size);
    /* Consume all of the input and append what comes out. Returns 0, or -1 when memory ran out: the encoder is then of no
     * more use. After ENCODER_FINISH only `destroy` may be called. */
    int (*write)(encoder *state, const uint8_t *data, size_t size, int flush, sink *out);
    void (*destroy)(encoder *state);
    uint32_t block_size_min; /* 0 and 0: this kind has no blocks, and block_size must be 0 */
    uint32_t block_size_max;
} encoder_kind;

/* The registry: module.c lists these. Numbers 1-15 belong to Go's encoders, 16-31 to zlib's family. */
extern const encoder_kind go_flate_kind;            /*  1: Go compress/flate up to 1.26 */
extern const encoder_kind go_flate_127_kind;        /*  2: Go compress/flate from 1.27 */
extern const encoder_kind go_klauspost_1_15_kind;   /*  3: klauspost/compress 1.15.10-1.18.0, and pgzip with it */
extern const encoder_kind go_klauspost_1_18_1_kind; /*  4: klauspost/compress 1.18.1, and pgzip with it */
extern const encoder_kind go_klauspost_1_18_2_kind; /*  5: klauspost/compress 1.18.2-1.20.3, and pgzip with it */
extern const encoder_kind go_klauspost_1_20_4_kind; /*  6: klauspost/compress 1.20.4, and pgzip with it */
extern const encoder_kind go_fused_flate_127_kind;  /*  7: as 2, compiled for arm64 */
extern const encoder_kind go_fused_klauspost_1_15_kind;   /*  8: as 3, compiled for arm64 */
extern const encoder_kind go_fused_klauspost_1_18_1_kind; /*  9: as 4, compiled for arm64 */
extern const encoder_kind go_fused_klauspost_1_18_2_kind; /* 10: as 5, compiled for arm64 */
extern const encoder_kind go_klauspost_1_15_0_kind; /* 11: klauspost/compress 1.15.0-1.15.9, and pgzip with it */
extern const encoder_kind go_klauspost_1_12_kind;   /* 12: klauspost/compress 1.12.3-1.13.6, and pgzip with it */
extern const encoder_kind zlib_kind;               /* 16: zlib's deflate, as Python's gzip uses it */
extern const encoder_kind pigz_kind;               /* 17: pigz with several threads */
extern const encoder_kind pigz_one_thread_kind;    /* 18: pigz -p 1 */
extern const encoder_kind pigz_independent_kind;   /* 19: pigz -i */
extern const encoder_kind gnu_gzip_kind;           /* 20: GNU gzip */

#endif
