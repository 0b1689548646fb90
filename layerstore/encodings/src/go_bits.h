/* What the encoders of Go's family share: little-endian loads, the length of a match, and a writer of bits.
 *
 * Nothing here can be seen in the output except the bits themselves, least significant first (RFC 1951, 3.1.1). */
#ifndef LAYERSTORE_GO_BITS_H
#define LAYERSTORE_GO_BITS_H

#include <stdint.h>
#include <string.h>

#include "encoder.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define GO_BIG_ENDIAN 1
#else
#define GO_BIG_ENDIAN 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define go_trailing_zeros(x) ((unsigned)__builtin_ctzll(x))
#define GO_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
static inline unsigned go_trailing_zeros(uint64_t x) {
    unsigned count = 0;
    while ((x & 0xff) == 0) {
        x >>= 8;
        count += 8;
    }
    return count; /* only whole bytes are ever asked for */
}
#define GO_UNLIKELY(x) (x)
#endif

static inline uint32_t go_load32(const uint8_t *p) {
    uint32_t value;
    memcpy(&value, p, sizeof value);
#if GO_BIG_ENDIAN
    value = __builtin_bswap32(value);
#endif
    return value;
}

static inline uint64_t go_load64(const uint8_t *p) {
    uint64_t value;
    memcpy(&value, p, sizeof value);
#if GO_BIG_ENDIAN
    value = __builtin_bswap64(value);
#endif
    return value;
}

static inline void go_store64(uint8_t *p, uint64_t value) {
#if GO_BIG_ENDIAN
    value = __builtin_bswap64(value);
#endif
    memcpy(p, &value, sizeof value);
}

/* How many of the first `limit` bytes at a and b are equal. Both may be read up to `limit`. */
static inline int32_t go_match_length(const uint8_t *a, const uint8_t *b, int32_t limit) {
    int32_t n = 0;
    while (n + 8 <= limit) {
        uint64_t difference = go_load64(a + n) ^ go_load64(b + n);
        if (difference != 0)
            return n + (int32_t)(go_trailing_zeros(difference) >> 3);
        n += 8;
    }
    while (n < limit && a[n] == b[n])
        n++;
    return n;
}

/* Fewer than 8 bits wait in `held` between two calls. Whoever writes has made room first. */
typedef struct {
    uint64_t held;
    unsigned count;
    sink *out;
    int failed; /* memory ran out: nothing more is written */
} bit_writer;

/* Room for so many bytes more, and for a store of eight beyond them. */
static inline int bits_reserve(bit_writer *bits, size_t size) {
    if (!bits->failed && sink_reserve(bits->out, size + 16) == NULL)
        bits->failed = 1;
    return bits->failed;
}

/* At most 56 bits at once. */
static inline void bits_put(bit_writer *bits, uint64_t value, unsigned count) {
    bits->held |= value << bits->count;
    bits->count += count;
    go_store64(bits->out->data + bits->out->size, bits->held);
    unsigned whole = bits->count >> 3;
    bits->out->size += whole;
    bits->held = whole == 8 ? 0 : bits->held >> (8 * whole);
    bits->count &= 7;
}

static inline void bits_align(bit_writer *bits) {
    if (bits->count != 0)
        bits_put(bits, 0, 8 - bits->count);
}

static inline void bits_put_bytes(bit_writer *bits, const uint8_t *data, size_t size) {
    if (sink_append(bits->out, data, size) < 0)
        bits->failed = 1;
}

#endif
