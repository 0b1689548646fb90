/* See go_lazy.h. Facts from Go 1.27.3 (src/compress/flate/deflate.go).
 *
 * Go steps forward when a write finds its window full, and so does this encoder: the output does not depend on how the
 * input is cut, except by flushes. */
#include <stdlib.h>

#include "go_lazy.h"

enum {
    WINDOW = 32768,
    MATCH_MIN = 4,
    MATCH_MAX = 258,
    HASH_BITS = 17,
    TOKENS_MAX = 32768,
    HASH_OFFSET_MAX = 1 << 28,
    NOWHERE = 0x7fffffff,
    LOOK_BACK = 2, /* a better match at the end of a found one may begin up to so many bytes later */
};

struct lazy_finder {
    int lazy, nice, chain;
    int priced; /* matches are weighed against what literals would cost */
    uint8_t window[2 * WINDOW + 8];
    int32_t filled, index, block_start, insert_end;
    int32_t length, offset; /* the match at index - 1 */
    int32_t chain_head, hash_offset;
    uint16_t literals_in_a_row; /* overflows on purpose, as Go's does */
    int byte_waits; /* window[index - 1] has no token yet */
    int32_t heads[1 << HASH_BITS], chains[WINDOW];
    go_code prices[256];
};

lazy_finder *lazy_new(int level) {
    static const int parameters[3][3] = {{12, 16, 24}, {30, 40, 64}, {258, 258, 1024}};
    lazy_finder *z = calloc(1, sizeof *z);
    if (z == NULL)
        return NULL;
    z->lazy = parameters[level - 7][0];
    z->nice = parameters[level - 7][1];
    z->chain = parameters[level - 7][2];
    z->priced = z->chain > 100;
    z->hash_offset = 1;
    z->length = MATCH_MIN - 1;
    z->chain_head = -1;
    return z;
}

void lazy_free(lazy_finder *z) { free(z); }

static inline uint32_t hash_4(const uint8_t *p) { return (uint32_t)(go_load32(p) * UINT32_C(2654435761)) >> (32 - HASH_BITS); }

size_t lazy_fill(lazy_finder *z, const uint8_t *data, size_t size) {
    if (z->index >= 2 * WINDOW - (MATCH_MIN + MATCH_MAX)) {
        memcpy(z->window, z->window + WINDOW, WINDOW);
        z->index -= WINDOW;
        z->filled -= WINDOW;
        z->block_start = z->block_start >= WINDOW ? z->block_start - WINDOW : NOWHERE;
        z->hash_offset += WINDOW;
        if (z->hash_offset > HASH_OFFSET_MAX) {
            int32_t less = z->hash_offset - 1;
            z->hash_offset = 1;
            z->chain_head -= less;
            for (int i = 0; i < 1 << HASH_BITS; i++)
                z->heads[i] = z->heads[i] > less ? z->heads[i] - less : 0;
            for (int i = 0; i < WINDOW; i++)
                z->chains[i] = z->chains[i] > less ? z->chains[i] - less : 0;
        }
    }
    size_t room = (size_t)(2 * WINDOW - z->filled);
    if (size > room)
        size = room;
    memcpy(z->window + z->filled, data, size);
    z->filled += (int32_t)size;
    return size;
}

static void write_block(lazy_finder *z, block_writer *blocks, block_tokens *tokens, int32_t end, int sync) {
    if (end > 0) {
        const uint8_t *data = z->block_start <= end ? z->window + z->block_start : NULL;
        size_t size = data == NULL ? 0 : (size_t)(end - z->block_start);
        z->block_start = end;
        blocks_write_dynamic(blocks, tokens, data, size, sync);
    }
    tokens_reset(tokens);
}

typedef struct {
    lazy_finder *z;
    block_writer *blocks;
    block_tokens *tokens;
    int sync;
} lazy_run;

static void add_literal(const lazy_run *run, uint8_t byte) {
    tokens_add_literals(run->tokens, &byte, 1);
    if (run->tokens->count == TOKENS_MAX)
        write_block(run->z, run->blocks, run->tokens, run->z->index, run->sync);
}

static inline void insert(lazy_finder *z, int32_t index) {
    int32_t *head = &z->heads[hash_4(z->window + index)];
    z->chains[index & (WINDOW - 1)] = *head;
    *head = index + z->hash_offset;
}

/* Insert the byte at `index`, and remember what stood at the head of its chain. */
static inline void insert_here(lazy_finder *z) {
    if (z->index < z->insert_end) {
        z->chain_head = z->heads[hash_4(z->window + z->index)];
        insert(z, z->index);
    }
}

/* Go looks up the whole distance where one less is meant, and its lookup of 32768 ends at the table's start. */
static inline int32_t priced_offset_bits(uint32_t distance) {
    return go_offset_extra_bits[go_offset_codes[distance < 256 ? distance : 256 + (distance >> 7 & 255)]];
}

static int32_t find_match(const lazy_finder *z, int32_t from, int32_t lookahead, int32_t *offset) {
    const uint8_t *window = z->window, *here = window + z->index;
    const int32_t most = lookahead < MATCH_MAX ? lookahead : MATCH_MAX;
    const int32_t nice = z->nice < most ? z->nice : most;
    const int32_t oldest = z->index > WINDOW ? z->index - WINDOW : 0;
    int32_t length = MATCH_MIN - 1, found = 0, best_gain = 4;
    uint8_t last = here[length];
    for (int tries = z->chain; tries > 0; tries--) {
        if (window[from + length] == last) {
            int32_t n = go_match_length(window + from, here, most);
            int better = n > length;
            if (better && z->priced) {
                int32_t gain = -3 - priced_offset_bits((uint32_t)(z->index - from)) -
                               go_length_extra_bits[go_length_codes[(n - 3) & 255]];
                for (int32_t i = 0; i < n; i++)
                    gain += z->prices[here[i]];
                better = gain > best_gain;
                if (better)
                    best_gain = gain;
            }
            if (better) {
                length = found = n;
                *offset = z->index - from;
                if (n >= nice)
                    break;
                last = here[n];
            }
        }
        if (from <= oldest)
            break;
        from = z->chains[from & (WINDOW - 1)] - z->hash_offset;
        if (from < oldest)
            break;
    }
    return found;
}

/* A found match may be followed by something that follows a longer one elsewhere: take that, at the cost of one or two
 * literals if they differ. */
static void extend_at_end(const lazy_run *run, int32_t *length, int32_t *offset, int32_t lookahead) {
    lazy_finder *z = run->z;
    const int32_t start = z->index - 1;
    if (*length >= MATCH_MAX - LOOK_BACK || start + *length >= z->insert_end)
        return;
    const int32_t oldest = z->index > WINDOW ? z->index - WINDOW : 0;
    const int32_t end = (lookahead < MATCH_MAX + LOOK_BACK ? lookahead : MATCH_MAX + LOOK_BACK) + start;
    const int32_t other = z->heads[hash_4(z->window + start + *length)] - z->hash_offset - *length;
    if (start - other == *offset || other <= oldest + LOOK_BACK)
        return;
    int32_t longer = go_match_length(z->window + start + LOOK_BACK, z->window + other + LOOK_BACK, end - start - LOOK_BACK);
    if (longer <= *length)
        return;
    *length = longer;
    *offset = start - other;
    for (int32_t i = LOOK_BACK - 1; i >= 0; i--) {
        if (*length >= MATCH_MAX || z->window[start + i] != z->window[other + i]) {
            for (int32_t j = 0; j <= i; j++) {
                add_literal(run, z->window[start + j]);
                z->index++;
                insert_here(z);
            }
            return;
        }
        ++*length;
    }
}

/* The more literals there were in a row, the more of them follow without a search. */
static void skip_literals(const lazy_run *run) {
    lazy_finder *z = run->z;
    int32_t more = (int32_t)z->literals_in_a_row - z->chain;
    if (more <= 0)
        return;
    for (int32_t n = 1 + (more >> 6); n > 0 && z->index < z->filled - 1; n--) {
        add_literal(run, z->window[z->index - 1]);
        insert_here(z);
        z->index++;
    }
    add_literal(run, z->window[z->index - 1]);
    z->byte_waits = 0;
}

static void price_literals(lazy_finder *z) {
    uint32_t frequencies[256] = {0};
    int32_t size = z->filled - z->index;
    if (size > TOKENS_MAX)
        size = TOKENS_MAX;
    for (int32_t i = 0; i < size; i++)
        frequencies[z->window[z->index + i]]++;
    go_build_code(z->prices, frequencies, 256, 15, GO_PACKAGE_MERGE);
    for (int i = 0; i < 256; i++) {
        unsigned length = go_code_length(z->prices[i]);
        z->prices[i] = length == 0 ? 1 : length;
    }
}

void lazy_step(lazy_finder *z, block_writer *blocks, block_tokens *tokens, int sync) {
    const lazy_run run = {z, blocks, tokens, sync};
    if (z->filled - z->index < MATCH_MIN + MATCH_MAX && !sync)
        return;
    if (z->filled != z->index && z->priced)
        price_literals(z);
    z->insert_end = z->filled - (MATCH_MIN - 1);
    while (!blocks->bits.failed) {
        int32_t lookahead = z->filled - z->index;
        if (lookahead < MATCH_MIN + MATCH_MAX) {
            if (!sync)
                return;
            if (lookahead == 0) {
                if (z->byte_waits) {
                    tokens_add_literals(tokens, &z->window[z->index - 1], 1);
                    z->byte_waits = 0;
                }
                if (tokens->count > 0)
                    write_block(z, blocks, tokens, z->index, sync);
                return;
            }
        }
        insert_here(z);
        int32_t before_length = z->length, before_offset = z->offset;
        z->length = MATCH_MIN - 1;
        z->offset = 0;
        int32_t oldest = z->index > WINDOW ? z->index - WINDOW : 0, from = z->chain_head - z->hash_offset;
        if (from >= oldest && lookahead > before_length && before_length < z->lazy) {
            int32_t offset = 0, length = find_match(z, from, lookahead, &offset);
            if (length != 0) {
                z->length = length;
                z->offset = offset;
            }
        }
        if (before_length >= MATCH_MIN && z->length <= before_length) {
            extend_at_end(&run, &before_length, &before_offset, lookahead);
            tokens_add_match(tokens, (uint32_t)before_length, (uint32_t)before_offset);
            int32_t end = z->index + before_length - 1;
            for (int32_t i = z->index + 1; i < end && i < z->insert_end; i++)
                insert(z, i);
            z->index = end;
            z->byte_waits = 0;
            z->length = MATCH_MIN - 1;
            if (tokens->count == TOKENS_MAX)
                write_block(z, blocks, tokens, z->index, sync);
            z->literals_in_a_row = 0;
            continue;
        }
        if (z->length >= MATCH_MIN)
            z->literals_in_a_row = 0;
        if (z->byte_waits) {
            z->literals_in_a_row++;
            add_literal(&run, z->window[z->index - 1]);
            z->index++;
            skip_literals(&run);
        } else {
            z->index++;
            z->byte_waits = 1;
        }
    }
}
