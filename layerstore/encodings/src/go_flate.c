/* Go's compress/flate as it was from Go 1.7 to 1.26. Facts from Go 1.26.8 (src/compress/flate: deflate.go, deflatefast.go,
 * huffman_bit_writer.go): level 0 stores, -2 only codes literals, 1 looks for matches as Snappy does, 2 and 3 take the
 * first match of a hash chain's best, 4-9 look one byte further before they take it.
 *
 * Go steps forward at each write, this encoder only when its window is full. The two differ only where a write ends within
 * the last 262 bytes of a window and a token ends exactly there: never when all writes are multiples of 512 bytes. */
#include <stdlib.h>

#include "go_huffman.h"

enum {
    WINDOW = 32768,
    MATCH_MIN = 4,
    MATCH_MAX = 258,
    HASH_BITS = 17,
    TOKENS_MAX = 16384, /* of a block at levels 2-9 */
    HASH_OFFSET_MAX = 1 << 24,
    NOWHERE = 0x7fffffff,
    NEVER_SKIP = 0x7fffffff,

    FAST_TABLE_BITS = 14,
    FAST_DISTANCE_MAX = 32768,
    FAST_MARGIN = 15,
};

typedef struct {
    int good; /* a match of this length: look at a quarter of the chain only */
    int lazy; /* from this length on, don't look for a better one at the next byte */
    int nice; /* from this length on, look no further along the chain */
    int chain;
    int hash_within; /* levels 2 and 3 don't enter the inside of longer matches */
} level_parameters;

static const level_parameters levels[10] = {
    {0, 0, 0, 0, 0},
    {0, 0, 0, 0, 0},
    {4, 0, 16, 8, 5},
    {4, 0, 32, 32, 6},
    {4, 4, 16, 16, NEVER_SKIP},
    {8, 16, 32, 32, NEVER_SKIP},
    {8, 16, 128, 128, NEVER_SKIP},
    {8, 32, 128, 256, NEVER_SKIP},
    {32, 128, 258, 1024, NEVER_SKIP},
    {32, 258, 258, 4096, NEVER_SKIP},
};

typedef struct {
    uint32_t value;
    int32_t place;
} fast_entry;

typedef struct {
    bit_writer bits;
    int level;
    int sync;
    uint32_t literal_frequencies[GO_LITERALS], offset_frequencies[GO_OFFSETS];
    go_code literals[GO_LITERALS], offsets[GO_OFFSETS];
    go_dynamic_header header;
    uint32_t *tokens;
    int token_count;
    uint8_t *window; /* levels 2-9: two windows; else a block before this one, and this one */
    int filled;
    /* levels 2-9 */
    level_parameters parameters;
    int index;
    int block_start;
    int byte_waits; /* window[index - 1] has no token yet */
    int length, offset; /* the match at index - 1 */
    int insert_end;
    int32_t chain_head, hash_offset;
    uint32_t *heads, *chains;
    /* level 1 */
    fast_entry *fast;
    int32_t fast_place; /* what the start of the block is called in the table */
    int fast_before; /* bytes of the block before that may be matched */
} flate;

/* A block's tokens end with GO_END_OF_BLOCK. */
static void index_tokens(flate *z, int *literal_count, int *offset_count) {
    memset(z->literal_frequencies, 0, sizeof z->literal_frequencies);
    memset(z->offset_frequencies, 0, sizeof z->offset_frequencies);
    for (int i = 0; i < z->token_count; i++) {
        uint32_t token = z->tokens[i];
        if (token <= GO_END_OF_BLOCK) {
            z->literal_frequencies[token]++;
        } else {
            z->literal_frequencies[GO_LENGTH_CODES + go_length_codes[go_token_length(token)]]++;
            z->offset_frequencies[go_token_offset_code(token)]++;
        }
    }
    *literal_count = GO_LITERALS;
    while (z->literal_frequencies[*literal_count - 1] == 0)
        --*literal_count;
    *offset_count = GO_OFFSETS;
    while (*offset_count > 0 && z->offset_frequencies[*offset_count - 1] == 0)
        --*offset_count;
    if (*offset_count == 0) {
        z->offset_frequencies[0] = 1;
        *offset_count = 1;
    }
    go_build_code(z->literals, z->literal_frequencies, GO_LITERALS, 15, GO_PACKAGE_MERGE);
    go_build_code(z->offsets, z->offset_frequencies, GO_OFFSETS, 15, GO_PACKAGE_MERGE);
    go_prepare_header(&z->header, z->literals, *literal_count, z->offsets, *offset_count, GO_PACKAGE_MERGE);
}

static uint64_t tokens_cost(const flate *z, const go_code *literals, const go_code *offsets) {
    return go_code_cost(literals, z->literal_frequencies, GO_LITERALS) +
           go_code_cost(offsets, z->offset_frequencies, GO_OFFSETS);
}

static void write_stored_header(flate *z, unsigned size, int last) {
    if (bits_reserve(&z->bits, 16))
        return;
    bits_put(&z->bits, last != 0, 3);
    bits_align(&z->bits);
    bits_put(&z->bits, size | (uint64_t)(size ^ 0xffff) << 16, 32);
}

static void write_stored(flate *z, const uint8_t *data, int size) {
    write_stored_header(z, (unsigned)size, 0);
    bits_put_bytes(&z->bits, data, (size_t)size);
}

/* The block ends before window[end]: stored, with the fixed codes or with its own, whichever is smallest. */
static void write_block(flate *z, int end) {
    int literal_count, offset_count;
    int start = z->block_start;
    z->block_start = end;
    z->tokens[z->token_count++] = GO_END_OF_BLOCK;
    index_tokens(z, &literal_count, &offset_count);
    /* A block that began before the window moved on cannot be stored any more. */
    int storable = start <= end && end - start <= GO_BLOCK_STORED_MAX;
    uint64_t extra = 0;
    if (storable) {
        for (int i = 0; i < GO_LITERALS - GO_LENGTH_CODES; i++)
            extra += (uint64_t)z->literal_frequencies[GO_LENGTH_CODES + i] * go_length_extra_bits[i];
        for (int i = 0; i < GO_OFFSETS; i++)
            extra += (uint64_t)z->offset_frequencies[i] * go_offset_extra_bits[i];
    }
    const go_code *literals = go_fixed_literals(), *offsets = go_fixed_offsets();
    uint64_t size = 3 + tokens_cost(z, literals, offsets) + extra;
    uint64_t dynamic_size = z->header.size + tokens_cost(z, z->literals, z->offsets) + extra;
    if (dynamic_size < size) {
        size = dynamic_size;
        literals = z->literals;
        offsets = z->offsets;
    }
    if (storable && ((uint64_t)(end - start) + 5) * 8 < size) {
        write_stored(z, z->window + start, end - start);
    } else {
        if (literals == z->literals) {
            go_write_header(&z->bits, &z->header, literal_count, offset_count, 0);
        } else if (!bits_reserve(&z->bits, 16)) {
            bits_put(&z->bits, 2, 3);
        }
        go_write_tokens(&z->bits, z->tokens, (size_t)z->token_count, literals, offsets);
    }
    z->token_count = 0;
}

static int saves_little(uint64_t size, int stored_size) {
    return ((uint64_t)stored_size + 5) * 8 < size + (size >> 4);
}

/* Only literals, or stored. */
static void write_block_of_literals(flate *z, const uint8_t *data, int size) {
    static const go_code one_offset[GO_OFFSETS] = {1};
    memset(z->literal_frequencies, 0, sizeof z->literal_frequencies);
    for (int i = 0; i < size; i++)
        z->literal_frequencies[data[i]]++;
    z->literal_frequencies[GO_END_OF_BLOCK] = 1;
    go_build_code(z->literals, z->literal_frequencies, GO_LITERALS, 15, GO_PACKAGE_MERGE);
    go_prepare_header(&z->header, z->literals, GO_END_OF_BLOCK + 1, one_offset, 1, GO_PACKAGE_MERGE);
    /* Go counts one bit for an offset that is never written. */
    if (saves_little(z->header.size + go_code_cost(z->literals, z->literal_frequencies, GO_LITERALS) + 1, size)) {
        write_stored(z, data, size);
        return;
    }
    go_write_header(&z->bits, &z->header, GO_END_OF_BLOCK + 1, 1, 0);
    go_write_literals(&z->bits, data, (size_t)size, z->literals);
    if (!bits_reserve(&z->bits, 16))
        bits_put(&z->bits, z->literals[GO_END_OF_BLOCK] >> 8, go_code_length(z->literals[GO_END_OF_BLOCK]));
}

/* The tokens with their own code, or stored. Extra bits are not counted. */
static void write_block_dynamic(flate *z, const uint8_t *data, int size) {
    int literal_count, offset_count;
    z->tokens[z->token_count++] = GO_END_OF_BLOCK;
    index_tokens(z, &literal_count, &offset_count);
    if (saves_little(z->header.size + tokens_cost(z, z->literals, z->offsets), size)) {
        write_stored(z, data, size);
        return;
    }
    go_write_header(&z->bits, &z->header, literal_count, offset_count, 0);
    go_write_tokens(&z->bits, z->tokens, (size_t)z->token_count, z->literals, z->offsets);
}

/* Level 1. */

static uint32_t fast_hash(uint32_t value) { return (uint32_t)(value * UINT32_C(0x1e35a7bd)) >> (32 - FAST_TABLE_BITS); }

static void fast_renumber(flate *z) {
    const int32_t start = FAST_DISTANCE_MAX + 1;
    for (int i = 0; i < 1 << FAST_TABLE_BITS; i++) {
        if (z->fast_before == 0) {
            z->fast[i] = (fast_entry){0, 0};
        } else {
            int32_t place = z->fast[i].place - z->fast_place + start;
            z->fast[i].place = place < 0 ? 0 : place;
        }
    }
    z->fast_place = start;
}

static void add_literals(flate *z, const uint8_t *data, int size) {
    for (int i = 0; i < size; i++)
        z->tokens[z->token_count++] = data[i];
}

/* Matches of at least four bytes by a table of single entries, as Snappy finds them: the longer nothing was found, the
 * larger the steps. The block lies at `block`, the one before it directly in front. */
static void fast_tokens(flate *z, const uint8_t *block, int size) {
    const int32_t renumber_at = 0x7fffffff - 2 * GO_BLOCK_STORED_MAX;
    z->token_count = 0;
    if (z->fast_place >= renumber_at)
        fast_renumber(z);
    if (size < FAST_MARGIN + 2) {
        z->fast_place += GO_BLOCK_STORED_MAX;
        z->fast_before = 0;
        add_literals(z, block, size);
        return;
    }
    const int32_t here = z->fast_place, limit = size - FAST_MARGIN;
    int32_t done = 0, at = 0;
    uint32_t value = go_load32(block), hash = fast_hash(value);
    for (;;) {
        int32_t skip = 32, next = at;
        fast_entry candidate;
        for (;;) {
            at = next;
            int32_t step = skip >> 5;
            next = at + step;
            skip += step;
            if (next > limit)
                goto rest;
            candidate = z->fast[hash];
            uint32_t next_value = go_load32(block + next);
            z->fast[hash] = (fast_entry){value, at + here};
            hash = fast_hash(next_value);
            if (at - (candidate.place - here) <= FAST_DISTANCE_MAX && value == candidate.value)
                break;
            value = next_value;
        }
        add_literals(z, block + done, at - done);
        for (;;) {
            at += 4;
            int32_t from = candidate.place - here + 4, length = 0;
            if (from + z->fast_before >= 0) {
                int32_t most = MATCH_MAX - 4 < size - at ? MATCH_MAX - 4 : size - at;
                length = go_match_length(block + at, block + from, most);
            }
            z->tokens[z->token_count++] = go_match_token((uint32_t)(length + 4), (uint32_t)(at - from));
            at += length;
            done = at;
            if (at >= limit)
                goto rest;
            uint64_t bytes = go_load64(block + at - 1);
            z->fast[fast_hash((uint32_t)bytes)] = (fast_entry){(uint32_t)bytes, here + at - 1};
            bytes >>= 8;
            fast_entry *entry = &z->fast[fast_hash((uint32_t)bytes)];
            candidate = *entry;
            *entry = (fast_entry){(uint32_t)bytes, here + at};
            if (at - (candidate.place - here) > FAST_DISTANCE_MAX || (uint32_t)bytes != candidate.value) {
                value = (uint32_t)(bytes >> 8);
                hash = fast_hash(value);
                at++;
                break;
            }
        }
    }
rest:
    add_literals(z, block + done, size - done);
    z->fast_place += size;
    z->fast_before = size;
}

/* The block is complete, or ends here because the stream is flushed. */
static void finish_fast_block(flate *z) {
    uint8_t *block = z->window + GO_BLOCK_STORED_MAX;
    int size = z->filled;
    if (size == 0)
        return;
    z->filled = 0;
    if (z->level == 0) {
        write_stored(z, block, size);
    } else if (z->level < 0) {
        write_block_of_literals(z, block, size);
    } else if (size < 128) {
        if (size <= 16)
            write_stored(z, block, size);
        else
            write_block_of_literals(z, block, size);
        z->fast_before = 0;
        z->fast_place += FAST_DISTANCE_MAX;
        if (z->fast_place >= 0x7fffffff - 2 * GO_BLOCK_STORED_MAX)
            fast_renumber(z);
    } else {
        fast_tokens(z, block, size);
        if (z->token_count > size - (size >> 4))
            write_block_of_literals(z, block, size);
        else
            write_block_dynamic(z, block, size);
        memcpy(block - size, block, (size_t)size);
    }
}

/* Levels 2-9. */

static uint32_t chain_hash(const uint8_t *p) {
    uint32_t value = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    return (uint32_t)(value * UINT32_C(0x1e35a7bd)) >> (32 - HASH_BITS);
}

/* The longest match at `index` along the chain that begins at `from`; returns its length, or 0. A match of only four
 * bytes counts only if it is near. */
static int find_match(const flate *z, int index, int from, int lookahead, int *offset) {
    const uint8_t *window = z->window, *here = window + index;
    int most = lookahead < MATCH_MAX ? lookahead : MATCH_MAX;
    int nice = z->parameters.nice < most ? z->parameters.nice : most;
    int tries = z->parameters.chain, oldest = index - WINDOW, found = 0;
    int length = MATCH_MIN - 1;
    if (length >= z->parameters.good)
        tries >>= 2;
    uint8_t last = here[length];
    for (; tries > 0; tries--) {
        if (window[from + length] == last) {
            int n = go_match_length(window + from, here, most);
            if (n > length && (n > MATCH_MIN || index - from <= 4096)) {
                length = found = n;
                *offset = index - from;
                if (n >= nice)
                    break;
                last = here[n];
            }
        }
        if (from == oldest)
            break; /* its place in the chain is taken by `index` */
        from = (int)z->chains[from & (WINDOW - 1)] - z->hash_offset;
        if (from < oldest || from < 0)
            break;
    }
    return found;
}

static inline void insert(flate *z, int index) {
    uint32_t *head = &z->heads[chain_hash(z->window + index)];
    z->chains[index & (WINDOW - 1)] = *head;
    *head = (uint32_t)(index + z->hash_offset);
}

static void add_token(flate *z, uint32_t token, int block_end) {
    z->tokens[z->token_count++] = token;
    if (z->token_count == TOKENS_MAX)
        write_block(z, block_end);
}

static void deflate(flate *z) {
    const int greedy = z->parameters.hash_within != NEVER_SKIP;
    if (z->filled - z->index < MATCH_MIN + MATCH_MAX && !z->sync)
        return;
    z->insert_end = z->filled - (MATCH_MIN - 1);
    while (!z->bits.failed) {
        int lookahead = z->filled - z->index;
        if (lookahead < MATCH_MIN + MATCH_MAX) {
            if (!z->sync)
                return;
            if (lookahead == 0) {
                if (z->byte_waits) {
                    z->byte_waits = 0;
                    z->tokens[z->token_count++] = z->window[z->index - 1];
                }
                if (z->token_count > 0)
                    write_block(z, z->index);
                return;
            }
        }
        if (z->index < z->insert_end) {
            uint32_t *head = &z->heads[chain_hash(z->window + z->index)];
            z->chain_head = (int32_t)*head;
            z->chains[z->index & (WINDOW - 1)] = *head;
            *head = (uint32_t)(z->index + z->hash_offset);
        }
        /* Otherwise the chain of an earlier byte is searched once more: Go does so too. */
        int before_length = z->length, before_offset = z->offset;
        z->length = MATCH_MIN - 1;
        z->offset = 0;
        int oldest = z->index > WINDOW ? z->index - WINDOW : 0;
        int from = z->chain_head - z->hash_offset;
        if (from >= oldest && (greedy ? lookahead > MATCH_MIN - 1
                                      : lookahead > before_length && before_length < z->parameters.lazy)) {
            int offset = 0, length = find_match(z, z->index, from, lookahead, &offset);
            if (length != 0) {
                z->length = length;
                z->offset = offset;
            }
        }
        if (greedy ? z->length >= MATCH_MIN : before_length >= MATCH_MIN && z->length <= before_length) {
            if (greedy) {
                before_length = z->length;
                before_offset = z->offset;
            }
            uint32_t token = go_match_token((uint32_t)before_length, (uint32_t)before_offset);
            if (z->length <= z->parameters.hash_within) {
                int end = z->index + before_length - (greedy ? 0 : 1), index = z->index + 1;
                for (; index < end && index < z->insert_end; index++)
                    insert(z, index);
                z->index = index < end ? end : index;
                if (!greedy) {
                    z->byte_waits = 0;
                    z->length = MATCH_MIN - 1;
                }
            } else {
                z->index += z->length;
            }
            add_token(z, token, z->index);
        } else {
            int literal = greedy ? z->index : z->index - 1;
            if (greedy || z->byte_waits)
                add_token(z, z->window[literal], literal + 1);
            z->index++;
            z->byte_waits = !greedy;
        }
    }
}

/* Room for input: the second window becomes the first. */
static void move_window(flate *z) {
    if (z->index < 2 * WINDOW - (MATCH_MIN + MATCH_MAX))
        return;
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
            z->heads[i] = z->heads[i] > (uint32_t)less ? z->heads[i] - (uint32_t)less : 0;
        for (int i = 0; i < WINDOW; i++)
            z->chains[i] = z->chains[i] > (uint32_t)less ? z->chains[i] - (uint32_t)less : 0;
    }
}

static void flate_destroy(encoder *state) {
    flate *z = (flate *)state;
    free(z->tokens);
    free(z->window);
    free(z->heads);
    free(z->chains);
    free(z->fast);
    free(z);
}

static encoder *flate_create(int level, uint32_t block_size) {
    (void)block_size;
    flate *z = calloc(1, sizeof *z);
    if (z == NULL)
        return NULL;
    z->level = level = level == -1 ? 6 : level;
    int chained = level >= 2;
    z->window = calloc(1, (chained ? 2 * WINDOW : 2 * GO_BLOCK_STORED_MAX) + 8);
    z->tokens = malloc((chained ? TOKENS_MAX + 1 : GO_BLOCK_STORED_MAX + 1) * sizeof *z->tokens);
    if (chained) {
        z->heads = calloc((size_t)1 << HASH_BITS, sizeof *z->heads);
        z->chains = calloc(WINDOW, sizeof *z->chains);
        z->parameters = levels[level];
        z->hash_offset = 1;
        z->length = MATCH_MIN - 1;
        z->chain_head = -1;
    } else if (level == 1) {
        z->fast = calloc((size_t)1 << FAST_TABLE_BITS, sizeof *z->fast);
        z->fast_place = GO_BLOCK_STORED_MAX;
    }
    if (z->window == NULL || z->tokens == NULL || (chained && (z->heads == NULL || z->chains == NULL)) ||
        (level == 1 && z->fast == NULL)) {
        flate_destroy((encoder *)z);
        return NULL;
    }
    return (encoder *)z;
}

static void flate_step(flate *z) {
    if (z->level >= 2)
        deflate(z);
    else if (z->filled == GO_BLOCK_STORED_MAX || z->sync)
        finish_fast_block(z);
}

static int flate_write(encoder *state, const uint8_t *data, size_t size, int flush, sink *out) {
    flate *z = (flate *)state;
    z->bits.out = out;
    uint8_t *start = z->level >= 2 ? z->window : z->window + GO_BLOCK_STORED_MAX;
    const int capacity = z->level >= 2 ? 2 * WINDOW : GO_BLOCK_STORED_MAX;
    while (size > 0 && !z->bits.failed) {
        if (z->filled == capacity) {
            flate_step(z);
            if (z->level >= 2)
                move_window(z);
        }
        size_t part = (size_t)(capacity - z->filled);
        if (part > size)
            part = size;
        memcpy(start + z->filled, data, part);
        z->filled += (int)part;
        data += part;
        size -= part;
    }
    if (flush != ENCODER_NO_FLUSH) {
        z->sync = 1;
        flate_step(z);
        z->sync = 0;
        write_stored_header(z, 0, flush == ENCODER_FINISH);
        if (z->level >= 2)
            move_window(z);
    }
    return z->bits.failed ? -1 : 0;
}

const encoder_kind go_flate_kind = {"go-flate", 1, -2, 9, flate_create, flate_write, flate_destroy, 0, 0};
