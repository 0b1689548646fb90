/* How zlib and GNU gzip find matches: see zlib_deflate.h. Facts from zlib 1.3.1's and GNU gzip 1.12's deflate.c. */
#include "zlib_deflate.h"

#include <stdlib.h>
#include <string.h>

enum {
    HASH_SIZE = 32768,
    LOOK_AHEAD = ZLIB_LENGTH_MAX + ZLIB_LENGTH_MIN + 1, /* so much input is wanted before a match is searched */
    DISTANCE_MAX = ZLIB_WINDOW - LOOK_AHEAD,
    SLIDE_AT = ZLIB_WINDOW + DISTANCE_MAX, /* from here on the upper half of the buffer becomes the lower one */
    NOTHING = 0,                           /* ends a hash chain: position 0 of the buffer is never matched */
    SHORT_MATCH_DISTANCE_MAX = 4096,       /* a match of 3 bytes from further away is not worth it (lazy levels) */
    GUESS_AFTER = 4096,                    /* GNU gzip: after so many symbols each, guess whether the block should end */
    SLACK = 8,                             /* bytes that are compared 8 at a time are read beyond the buffer */
};

typedef struct {
    uint16_t good;  /* with a match so long at the byte before, only a quarter of the chain is followed */
    uint16_t lazy;  /* lazy levels: with a match so long, the next byte is not tried; others: longest match that is hashed */
    uint16_t nice;  /* a match so long ends the search */
    uint16_t chain; /* links that are followed */
    int is_lazy;
} level_rules;

static const level_rules rules_of_level[10] = {
    {0, 0, 0, 0, 0},       {4, 4, 8, 4, 0},        {4, 5, 16, 8, 0},       {4, 6, 32, 32, 0},       {4, 4, 16, 16, 1},
    {8, 16, 32, 32, 1},    {8, 16, 128, 128, 1},   {8, 32, 128, 256, 1},   {32, 128, 258, 1024, 1}, {32, 258, 258, 4096, 1},
};

struct zlib_deflate {
    level_rules rules;
    zlib_flavour flavour;
    int guesses; /* GNU gzip from level 3: end a block early when it compresses well without many matches */
    int ended;   /* GNU gzip: the end of the input has been seen, after which the window stays where it is */
    uint32_t at;           /* where in the buffer the next byte to encode is */
    uint32_t ahead;        /* bytes in the buffer from there */
    uint32_t not_hashed;   /* strings just before `at` that wait for the bytes behind them */
    int32_t block_start;   /* where the block starts; negative when that has left the buffer */
    uint32_t match_start;
    uint32_t match_length; /* lazy levels: of the match at the byte before; 2 for none */
    int literal_waits;     /* lazy levels: the byte before has not been written yet */
    int synced;            /* the last call was a ZLIB_SYNC: a second one right after it does nothing */
    uint16_t head[HASH_SIZE];
    uint16_t prev[ZLIB_WINDOW];
    uint8_t buffer[2 * ZLIB_WINDOW + SLACK];
    zlib_block block;
};

typedef struct {
    const uint8_t *data;
    size_t size;
    zlib_flush flush;
} input;

/* ---- the window --------------------------------------------------------------------------------------------------- */

/* Only the three bytes of the string have a part in it. */
static inline uint32_t hash_of(const uint8_t *bytes) {
    return ((uint32_t)bytes[0] << 10 ^ (uint32_t)bytes[1] << 5 ^ bytes[2]) & (HASH_SIZE - 1);
}

/* Put the string at `position` in front of its chain, and return what was there before. */
static inline uint32_t insert(zlib_deflate *state, uint32_t position) {
    uint16_t *head = &state->head[hash_of(state->buffer + position)];
    uint32_t before = *head;
    state->prev[position & (ZLIB_WINDOW - 1)] = (uint16_t)before;
    *head = (uint16_t)position;
    return before;
}

static void slide_positions(uint16_t *positions, size_t count) {
    for (size_t i = 0; i < count; i++)
        positions[i] = positions[i] >= ZLIB_WINDOW ? (uint16_t)(positions[i] - ZLIB_WINDOW) : NOTHING;
}

static void slide(zlib_deflate *state) {
    memcpy(state->buffer, state->buffer + ZLIB_WINDOW, ZLIB_WINDOW);
    state->at -= ZLIB_WINDOW;
    state->match_start -= ZLIB_WINDOW; /* wraps when there is no match; then nobody reads it */
    state->block_start -= ZLIB_WINDOW;
    slide_positions(state->head, HASH_SIZE);
    slide_positions(state->prev, ZLIB_WINDOW);
}

/* Hash the strings that a flush had to leave out, as far as there are bytes for them. */
static void insert_left_out(zlib_deflate *state) {
    while (state->not_hashed > 0 && state->ahead + state->not_hashed >= ZLIB_LENGTH_MIN) {
        insert(state, state->at - state->not_hashed);
        state->not_hashed--;
    }
}

/* Take as much input as the buffer has room for. */
static void read_input(zlib_deflate *state, input *in) {
    size_t room = 2 * ZLIB_WINDOW - state->at - state->ahead;
    size_t size = in->size < room ? in->size : room;
    if (size == 0)
        return;
    memcpy(state->buffer + state->at + state->ahead, in->data, size);
    in->data += size;
    in->size -= size;
    state->ahead += (uint32_t)size;
    insert_left_out(state);
}

/* Get more to look ahead, as one does who has the whole input: before the flush, the window only moves when it is full. */
static void fill_buffer(zlib_deflate *state, input *in) {
    read_input(state, in);
    int full = state->at + state->ahead == 2 * ZLIB_WINDOW;
    if (state->ahead < LOOK_AHEAD && state->at >= SLIDE_AT && (full || in->flush != ZLIB_MORE)) {
        slide(state);
        read_input(state, in);
    }
    if (state->flavour == GNU_GZIP && state->ahead < LOOK_AHEAD && in->flush == ZLIB_FINISH) {
        state->ended = 1;
        memset(state->buffer + state->at + state->ahead, 0, ZLIB_LENGTH_MIN - 1);
    }
}

typedef enum { READY, STARVED, EXHAUSTED } readiness;

static inline readiness look_ahead(zlib_deflate *state, input *in) {
    if (state->ahead < LOOK_AHEAD) {
        if (!state->ended)
            fill_buffer(state, in);
        if (state->ahead < LOOK_AHEAD && in->flush == ZLIB_MORE)
            return STARVED;
        if (state->ahead == 0)
            return EXHAUSTED;
    }
    return READY;
}

/* ---- matches ------------------------------------------------------------------------------------------------------ */

static inline uint64_t load_8(const uint8_t *bytes) {
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline uint16_t load_2(const uint8_t *bytes) {
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

/* How many bytes are equal, up to ZLIB_LENGTH_MAX. */
static inline uint32_t count_equal(const uint8_t *a, const uint8_t *b) {
    uint32_t length = 0;
    while (length < ZLIB_LENGTH_MAX - 2 && load_8(a + length) == load_8(b + length))
        length += 8;
    while (length < ZLIB_LENGTH_MAX && a[length] == b[length])
        length++;
    return length;
}

/* The longest match at state->at along the chain from `candidate`, the nearest among the longest; its start goes to
 * state->match_start when it is longer than `length`, which it must be to count.
 *
 * Bytes behind the input may be compared. zlib ends the search with the first match that reaches them, so they never change
 * the result. GNU gzip goes on, and prefers a match that is longer by what happens to stand there: two zeros and what the
 * window held before, which is why the whole of it is moved by `slide`. */
static uint32_t find_match(zlib_deflate *state, uint32_t candidate, uint32_t length) {
    const uint8_t *here = state->buffer + state->at;
    uint32_t limit = state->at > DISTANCE_MAX ? state->at - DISTANCE_MAX : NOTHING;
    uint32_t nice = state->rules.nice;
    if (state->flavour == ZLIB && nice > state->ahead)
        nice = state->ahead;
    uint32_t links = length >= state->rules.good ? state->rules.chain >> 2 : state->rules.chain;
    uint16_t first = load_2(here);
    uint16_t end = load_2(here + length - 1);
    do {
        const uint8_t *there = state->buffer + candidate;
        if (load_2(there + length - 1) == end && load_2(there) == first) {
            uint32_t equal = count_equal(here, there);
            if (equal > length) {
                state->match_start = candidate;
                length = equal;
                if (length >= nice)
                    break;
                end = load_2(here + length - 1);
            }
        }
        candidate = state->prev[candidate & (ZLIB_WINDOW - 1)];
    } while (candidate > limit && --links != 0);
    return length < state->ahead ? length : state->ahead;
}

static void start_symbols(zlib_deflate *state) {
    state->block.pause = state->guesses ? GUESS_AFTER : state->flavour == GNU_GZIP ? GNU_SYMBOLS : ZLIB_SYMBOLS;
}

static int write_block(zlib_deflate *state, int last, sink *out) {
    const uint8_t *stored = state->block_start >= 0 ? state->buffer + state->block_start : NULL;
    size_t size = (size_t)((int64_t)state->at - state->block_start);
    state->block_start = (int32_t)state->at;
    start_symbols(state);
    return zlib_block_write(&state->block, stored, size, last, out);
}

/* GNU gzip: few matches, and yet less than half of the size? */
static int should_end(const zlib_deflate *state) {
    const zlib_block *block = &state->block;
    uint64_t in_size = (uint64_t)((int64_t)state->at - state->block_start);
    uint64_t out_size = (8 * (uint64_t)block->count + 5 * block->matches + zlib_block_count_distance_bits(block)) >> 3;
    return block->matches < block->count / 2 && out_size < in_size / 2;
}

/* The block has reached its pause: does it end with the symbol that was just added? state->at is still where the encoder
 * stood when it added it. */
static int ends(zlib_deflate *state) {
    zlib_block *block = &state->block;
    if (!state->guesses || block->count == GNU_SYMBOLS || should_end(state))
        return 1;
    block->pause = block->count + GUESS_AFTER <= GNU_SYMBOLS ? block->count + GUESS_AFTER : GNU_SYMBOLS;
    return 0;
}

/* Both return true when the block ends, and is to be written as soon as the encoder has gone on. */
static inline int add_literal(zlib_deflate *state, uint8_t literal) {
    return zlib_block_add_literal(&state->block, literal) && ends(state);
}

static inline int add_match(zlib_deflate *state, uint32_t distance, uint32_t length) {
    return zlib_block_add_match(&state->block, distance, length) && ends(state);
}

/* May a match be searched from there? GNU gzip searches none where a comparison could go beyond the buffer. */
static inline int is_near(const zlib_deflate *state, uint32_t position) {
    return position != NOTHING && state->at - position <= DISTANCE_MAX && state->at <= SLIDE_AT;
}

/* Levels 1-3: take every match, and hash the strings inside it only when it is short. Returns 1 when all of the input has
 * been encoded, 0 when some waits for more, -1 without memory. */
static int encode_fast(zlib_deflate *state, input *in, sink *out) {
    for (;;) {
        readiness ready = look_ahead(state, in);
        if (ready != READY)
            return ready == EXHAUSTED;
        uint32_t candidate = state->ahead >= ZLIB_LENGTH_MIN ? insert(state, state->at) : NOTHING;
        uint32_t length = is_near(state, candidate) ? find_match(state, candidate, ZLIB_LENGTH_MIN - 1) : 0;
        int full;
        if (length >= ZLIB_LENGTH_MIN) {
            full = add_match(state, state->at - state->match_start, length);
            state->ahead -= length;
            if (length <= state->rules.lazy && state->ahead >= ZLIB_LENGTH_MIN)
                for (uint32_t i = 1; i < length; i++)
                    insert(state, state->at + i);
            state->at += length;
        } else {
            full = add_literal(state, state->buffer[state->at]);
            state->ahead--;
            state->at++;
        }
        if (full && write_block(state, 0, out) < 0)
            return -1;
    }
}

/* Write the match that was found at the byte before, and go behind it. */
static int take_match(zlib_deflate *state, uint32_t start, uint32_t length) {
    uint32_t last_string = state->at + state->ahead - ZLIB_LENGTH_MIN; /* the last one that has all of its bytes */
    int full = add_match(state, state->at - 1 - start, length);
    uint32_t end = state->at - 1 + length;
    uint32_t hash_end = end <= last_string ? end : last_string + 1;
    for (uint32_t position = state->at + 1; position < hash_end; position++)
        insert(state, position);
    state->ahead -= length - 1;
    state->at = end;
    state->literal_waits = 0;
    state->match_length = ZLIB_LENGTH_MIN - 1;
    return full;
}

/* Levels 4-9: take a match only when the next byte has no longer one. Returns as encode_fast. */
static int encode_lazy(zlib_deflate *state, input *in, sink *out) {
    for (;;) {
        readiness ready = look_ahead(state, in);
        if (ready != READY)
            return ready == EXHAUSTED;
        uint32_t candidate = state->ahead >= ZLIB_LENGTH_MIN ? insert(state, state->at) : NOTHING;
        uint32_t previous_length = state->match_length;
        uint32_t previous_start = state->match_start;
        uint32_t length = ZLIB_LENGTH_MIN - 1;
        if (previous_length < state->rules.lazy && is_near(state, candidate)) {
            length = find_match(state, candidate, previous_length);
            if (length == ZLIB_LENGTH_MIN && state->at - state->match_start > SHORT_MATCH_DISTANCE_MAX)
                length = ZLIB_LENGTH_MIN - 1;
        }
        state->match_length = length;
        if (previous_length >= ZLIB_LENGTH_MIN && length <= previous_length) {
            if (take_match(state, previous_start, previous_length) && write_block(state, 0, out) < 0)
                return -1;
            continue;
        }
        if (state->literal_waits) {
            if (add_literal(state, state->buffer[state->at - 1]) && write_block(state, 0, out) < 0)
                return -1;
        }
        state->literal_waits = 1;
        state->at++;
        state->ahead--;
    }
}

/* ---- streams ------------------------------------------------------------------------------------------------------ */

void zlib_deflate_reset(zlib_deflate *state) {
    state->at = 0;
    state->ahead = 0;
    state->not_hashed = 0;
    state->block_start = 0;
    state->match_start = 0;
    state->match_length = ZLIB_LENGTH_MIN - 1;
    state->literal_waits = 0;
    state->synced = 0;
    memset(state->head, 0, sizeof state->head);
    zlib_block_reset(&state->block);
    start_symbols(state);
}

zlib_deflate *zlib_deflate_create(int level, zlib_flavour flavour) {
    if (level < 1 || level > 9)
        return NULL;
    zlib_deflate *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    state->rules = rules_of_level[level];
    state->flavour = flavour;
    state->guesses = flavour == GNU_GZIP && level > 2;
    zlib_block_init(&state->block);
    zlib_deflate_reset(state);
    return state;
}

void zlib_deflate_destroy(zlib_deflate *state) {
    free(state);
}

void zlib_deflate_set_dictionary(zlib_deflate *state, const uint8_t *dictionary) {
    memcpy(state->buffer, dictionary, ZLIB_WINDOW);
    for (uint32_t position = 0; position + ZLIB_LENGTH_MIN <= ZLIB_WINDOW; position++)
        insert(state, position);
    state->at = ZLIB_WINDOW;
    state->block_start = ZLIB_WINDOW;
    state->not_hashed = ZLIB_LENGTH_MIN - 1;
}

int zlib_deflate_write(zlib_deflate *state, const uint8_t *data, size_t size, zlib_flush flush, sink *out) {
    input in = {data, size, flush};
    if (size > 0 || flush == ZLIB_MORE)
        state->synced = 0;
    int done = state->rules.is_lazy ? encode_lazy(state, &in, out) : encode_fast(state, &in, out);
    if (done < 1 || flush == ZLIB_MORE)
        return done < 0 ? -1 : 0;
    if (state->literal_waits) {
        add_literal(state, state->buffer[state->at - 1]); /* may fill the block, which ends anyway */
        state->literal_waits = 0;
    }
    state->not_hashed = state->at < ZLIB_LENGTH_MIN - 1 ? state->at : ZLIB_LENGTH_MIN - 1;
    if (flush == ZLIB_FINISH)
        return write_block(state, 1, out);
    if (state->block.count > 0 && write_block(state, 0, out) < 0)
        return -1;
    if (flush == ZLIB_SYNC && !state->synced) {
        state->synced = 1;
        return zlib_block_write_empty_stored(&state->block, out);
    }
    return 0;
}

int zlib_deflate_align(zlib_deflate *state, int stored, sink *out) {
    if (stored || state->block.bits.count % 2 != 0)
        return zlib_block_write_empty_stored(&state->block, out);
    return zlib_block_write_empty_fixed(&state->block, out);
}
