/* See go_fast.h. Facts from Go 1.27.3 (src/compress/flate: deflatefast.go, level1.go-level6.go) and from
 * github.com/klauspost/compress v1.12.3-v1.20.4 (flate: fast_encoder.go, level1.go-level6.go). */
#include <stdlib.h>

#include "go_fast.h"

enum {
    DISTANCE_LIMIT = 32768,
    HISTORY_MAX = 5 * GO_BLOCK_STORED_MAX,
    RENUMBER_AT = 0x7fffffff - HISTORY_MAX - GO_BLOCK_STORED_MAX,
    MARGIN = 11, /* bytes at the end of a block at which no match begins */
    MATCH_MAX = 258,
    TABLE_BITS = 15,
    TABLE_BITS_2 = 17, /* of level 2 */
    TABLE_BITS_3 = 16, /* of level 3 */
};

static inline uint32_t hash_4(uint64_t bytes) { return (uint32_t)((uint32_t)bytes * UINT32_C(2654435761)) >> (32 - TABLE_BITS); }

static inline uint32_t hash_5(uint64_t bytes, int bits) {
    return (uint32_t)(((bytes << 24) * UINT64_C(889523592379)) >> (64 - bits));
}

static inline uint32_t hash_7(uint64_t bytes) {
    return (uint32_t)(((bytes << 8) * UINT64_C(58295818150454627)) >> (64 - TABLE_BITS));
}

static inline void push(place_pair *pair, int32_t place) {
    pair->before = pair->now;
    pair->now = place;
}

static size_t count_places(int level) {
    return (size_t)1 << (level == 2 ? TABLE_BITS_2 : TABLE_BITS);
}

static size_t count_pairs(int level) {
    return (size_t)1 << (level == 3 ? TABLE_BITS_3 : TABLE_BITS);
}

int fast_init(fast_finder *finder, int level) {
    finder->level = level;
    finder->mismatch = 2;
    finder->base = GO_BLOCK_STORED_MAX;
    finder->history = malloc(HISTORY_MAX + 16);
    int failed = finder->history == NULL;
    if (level != 3)
        failed |= (finder->places = calloc(count_places(level), sizeof *finder->places)) == NULL;
    if (level == 4)
        failed |= (finder->long_places = calloc(count_places(level), sizeof *finder->long_places)) == NULL;
    if (level == 3 || level >= 5)
        failed |= (finder->pairs = calloc(count_pairs(level), sizeof *finder->pairs)) == NULL;
    return failed ? -1 : 0;
}

void fast_free(fast_finder *finder) {
    free(finder->history);
    free(finder->places);
    free(finder->long_places);
    free(finder->pairs);
}

void fast_reset(fast_finder *finder) {
    if (finder->base <= RENUMBER_AT)
        finder->base += DISTANCE_LIMIT + finder->size;
    finder->size = 0;
}

/* Keep the places' numbers small; those out of reach become 0. */
static void renumber(fast_finder *finder) {
    const int32_t reach = finder->size == 0 ? 0x7fffffff : finder->base + finder->size - DISTANCE_LIMIT;
    const int32_t less = finder->base - DISTANCE_LIMIT;
#define RENUMBERED(place) ((place) <= reach ? 0 : (place) - less)
    for (size_t i = 0; finder->places != NULL && i < count_places(finder->level); i++)
        finder->places[i] = RENUMBERED(finder->places[i]);
    for (size_t i = 0; finder->long_places != NULL && i < count_places(finder->level); i++)
        finder->long_places[i] = RENUMBERED(finder->long_places[i]);
    for (size_t i = 0; finder->pairs != NULL && i < count_pairs(finder->level); i++) {
        finder->pairs[i].now = RENUMBERED(finder->pairs[i].now);
        finder->pairs[i].before = RENUMBERED(finder->pairs[i].before);
    }
#undef RENUMBERED
    finder->base = DISTANCE_LIMIT;
}

/* Returns where the block begins in the history. */
static int32_t append(fast_finder *finder, const uint8_t *block, int32_t size) {
    if (finder->size + size > HISTORY_MAX) {
        int32_t moved = finder->size - DISTANCE_LIMIT;
        memmove(finder->history, finder->history + moved, DISTANCE_LIMIT);
        finder->base += moved;
        finder->size = DISTANCE_LIMIT;
    }
    int32_t start = finder->size;
    memcpy(finder->history + start, block, (size_t)size);
    finder->size += size;
    return start;
}

/* What each level's loop works on. */
typedef struct {
    const uint8_t *src;
    int32_t size, limit, base, start;
    block_tokens *tokens;
} search;

static inline int32_t match_long(const search *q, int32_t at, int32_t from) {
    return go_match_length(q->src + at, q->src + from, q->size - at);
}

/* Up to 254 bytes: the four before them are equal already. */
static inline int32_t match_limited(const search *q, int32_t at, int32_t from) {
    int32_t most = q->size - at;
    return go_match_length(q->src + at, q->src + from, most < MATCH_MAX - 4 ? most : MATCH_MAX - 4);
}

/* Whether the four bytes of `bytes`, which stand at `at`, also stand at `from`, and near enough. */
static inline int matches(const search *q, uint64_t bytes, int32_t at, int32_t from) {
    return at - from < DISTANCE_LIMIT && (uint32_t)bytes == go_load32(q->src + from);
}

/* Extend the match backwards over bytes that have no token yet, and write both. Returns the match's length. */
static inline int32_t emit(const search *q, int32_t done, int32_t at, int32_t from, int32_t length) {
    while (from > 0 && at > done && q->src[from - 1] == q->src[at - 1]) {
        at--;
        from--;
        length++;
    }
    if (done < at)
        tokens_add_literals(q->tokens, q->src + done, at - done);
    tokens_add_long_match(q->tokens, length, (uint32_t)(at - from));
    return length;
}

/* Each returns up to where there are tokens. They start at q->start. */

static int32_t search_1(fast_finder *finder, const search *q) {
    int32_t *places = finder->places;
    int32_t done = q->start, at = q->start;
    uint64_t bytes = go_load64(q->src + at);
    for (;;) {
        int32_t next, from;
        for (;;) {
            uint32_t hash = hash_5(bytes, TABLE_BITS);
            from = places[hash] - q->base;
            next = at + 2 + ((at - done) >> 5);
            if (next > q->limit)
                return done;
            uint64_t next_bytes = go_load64(q->src + next);
            places[hash] = at + q->base;
            hash = hash_5(next_bytes, TABLE_BITS);
            if (matches(q, bytes, at, from)) {
                places[hash] = next + q->base;
                break;
            }
            bytes = next_bytes;
            at = next++;
            from = places[hash] - q->base;
            next_bytes >>= 8;
            places[hash] = at + q->base;
            if (matches(q, bytes, at, from)) {
                places[hash] = next + q->base;
                break;
            }
            bytes = next_bytes;
            at = next;
        }
        for (;;) {
            int32_t forward = match_long(q, at + 4, from + 4) + 4;
            int32_t length = emit(q, done, at, from, forward);
            done = at + forward;
            at = next >= done ? next + 1 : done;
            if (at >= q->limit) {
                if (at + length + 8 < q->size)
                    places[hash_5(go_load64(q->src + at), TABLE_BITS)] = at + q->base;
                return done;
            }
            uint64_t around = go_load64(q->src + at - 2);
            places[hash_5(around, TABLE_BITS)] = q->base + at - 2;
            around >>= 16;
            uint32_t hash = hash_5(around, TABLE_BITS);
            from = places[hash] - q->base;
            places[hash] = q->base + at;
            if (at - from > DISTANCE_LIMIT || (uint32_t)around != go_load32(q->src + from)) {
                bytes = around >> 8;
                at++;
                break;
            }
        }
    }
}

static int32_t search_2(fast_finder *finder, const search *q) {
    int32_t *places = finder->places;
    int32_t done = q->start, at = q->start;
    uint64_t bytes = go_load64(q->src + at);
    for (;;) {
        int32_t next = at, from;
        for (;;) {
            uint32_t hash = hash_5(bytes, TABLE_BITS_2);
            at = next;
            next = at + 2 + ((at - done) >> 5);
            if (next > q->limit)
                return done;
            from = places[hash] - q->base;
            uint64_t next_bytes = go_load64(q->src + next);
            places[hash] = at + q->base;
            hash = hash_5(next_bytes, TABLE_BITS_2);
            if (matches(q, bytes, at, from)) {
                places[hash] = next + q->base;
                break;
            }
            bytes = next_bytes;
            at = next++;
            from = places[hash] - q->base;
            next_bytes >>= 8;
            places[hash] = at + q->base;
            if (matches(q, bytes, at, from))
                break;
            bytes = next_bytes;
        }
        for (;;) {
            int32_t forward = match_long(q, at + 4, from + 4) + 4;
            int32_t length = emit(q, done, at, from, forward);
            done = at + forward;
            at = next >= done ? next + 1 : done;
            if (at >= q->limit) {
                if (at + length + 8 < q->size)
                    places[hash_5(go_load64(q->src + at), TABLE_BITS_2)] = at + q->base;
                return done;
            }
            for (int32_t i = at - length + 2; i < at - 5; i += 7) {
                uint64_t inside = go_load64(q->src + i);
                places[hash_5(inside, TABLE_BITS_2)] = q->base + i;
                places[hash_5(inside >> 16, TABLE_BITS_2)] = q->base + i + 2;
                places[hash_5(inside >> 32, TABLE_BITS_2)] = q->base + i + 4;
            }
            uint64_t around = go_load64(q->src + at - 2);
            places[hash_5(around, TABLE_BITS_2)] = q->base + at - 2;
            places[hash_5(around >> 8, TABLE_BITS_2)] = q->base + at - 1;
            uint32_t hash = hash_5(around >> 16, TABLE_BITS_2);
            from = places[hash] - q->base;
            places[hash] = q->base + at;
            if (at - from > DISTANCE_LIMIT || (uint32_t)(around >> 16) != go_load32(q->src + from)) {
                bytes = around >> 24;
                at++;
                break;
            }
        }
    }
}

static int32_t search_3(fast_finder *finder, const search *q) {
    place_pair *pairs = finder->pairs;
    int32_t done = q->start, at = q->start;
    uint64_t bytes = go_load64(q->src + at);
    for (;;) {
        int32_t next = at, from;
        for (;;) {
            uint32_t hash = hash_5(bytes, TABLE_BITS_3);
            at = next;
            next = at + 1 + ((at - done) >> 7);
            if (next > q->limit)
                return done;
            place_pair candidates = pairs[hash];
            uint64_t next_bytes = go_load64(q->src + next);
            int32_t nearest = q->base + at - (DISTANCE_LIMIT - 4); /* in reach, with four bytes to spare */
            push(&pairs[hash], at + q->base);
            if (candidates.now >= nearest) {
                from = candidates.now - q->base;
                int32_t before = candidates.before - q->base;
                if ((uint32_t)bytes == go_load32(q->src + from)) {
                    if (candidates.before >= nearest && (uint32_t)bytes == go_load32(q->src + before) &&
                        match_long(q, at + 4, before + 4) > match_long(q, at + 4, from + 4))
                        from = before;
                    break;
                }
                if (candidates.before > nearest && (uint32_t)bytes == go_load32(q->src + before)) {
                    from = before;
                    break;
                }
            }
            bytes = next_bytes;
        }
        for (;;) {
            int32_t forward = match_long(q, at + 4, from + 4) + 4;
            int32_t length = emit(q, done, at, from, forward);
            int32_t from_end = from + forward;
            done = at + forward;
            at = next >= done ? next + 1 : done;
            if (at >= q->limit) {
                if (from_end + 8 < q->size && from_end > 0)
                    push(&pairs[hash_5(go_load64(q->src + from_end), TABLE_BITS_3)], q->base + from_end);
                return done;
            }
            for (int32_t i = at - length + 2; i < at - 5; i += 6)
                push(&pairs[hash_5(go_load64(q->src + i), TABLE_BITS_3)], q->base + i);
            uint64_t around = go_load64(q->src + at - 2);
            push(&pairs[hash_5(around, TABLE_BITS_3)], q->base + at - 2);
            push(&pairs[hash_5(around >> 8, TABLE_BITS_3)], q->base + at - 1);
            bytes = around >> 16;
            place_pair *pair = &pairs[hash_5(bytes, TABLE_BITS_3)], candidates = *pair;
            push(pair, q->base + at);
            int32_t nearest = q->base + at - (DISTANCE_LIMIT - 4);
            if (candidates.now > nearest) {
                from = candidates.now - q->base;
                if ((uint32_t)bytes == go_load32(q->src + from))
                    continue;
                from = candidates.before - q->base;
                if (candidates.before > nearest && (uint32_t)bytes == go_load32(q->src + from))
                    continue;
            }
            bytes >>= 8;
            at++;
            break;
        }
    }
}

static int32_t search_4(fast_finder *finder, const search *q) {
    int32_t *places = finder->places, *long_places = finder->long_places;
    int32_t done = q->start, at = q->start;
    uint64_t bytes = go_load64(q->src + at);
    for (;;) {
        int32_t next = at, from;
        for (;;) {
            uint32_t hash = hash_4(bytes), long_hash = hash_7(bytes);
            at = next;
            next = at + 1 + ((at - done) >> 6);
            if (next > q->limit)
                return done;
            int32_t near = places[hash] - q->base;
            from = long_places[long_hash] - q->base;
            uint64_t next_bytes = go_load64(q->src + next);
            places[hash] = long_places[long_hash] = at + q->base;
            if (matches(q, bytes, at, from))
                break;
            from = near;
            if (matches(q, bytes, at, from)) {
                int32_t other = long_places[hash_7(next_bytes)] - q->base;
                /* Its length is measured at its distance from the start, as the real encoder does. */
                if (matches(q, next_bytes, next, other) &&
                    match_long(q, next + 4, next - other + 4) > match_long(q, at + 4, from + 4)) {
                    at = next;
                    from = other;
                }
                break;
            }
            bytes = next_bytes;
        }
        int32_t forward = match_long(q, at + 4, from + 4) + 4;
        emit(q, done, at, from, forward);
        done = at + forward;
        at = next >= done ? next + 1 : done;
        if (at >= q->limit) {
            if (at + 8 < q->size) {
                uint64_t last = go_load64(q->src + at);
                places[hash_4(last)] = long_places[hash_7(last)] = at + q->base;
            }
            return done;
        }
        for (int32_t i = next; i < at - 1; i += 3) {
            uint64_t inside = go_load64(q->src + i);
            long_places[hash_7(inside)] = q->base + i;
            long_places[hash_7(inside >> 8)] = q->base + i + 1;
            places[hash_4(inside >> 8)] = q->base + i + 1;
        }
        uint64_t around = go_load64(q->src + at - 1);
        places[hash_4(around)] = long_places[hash_7(around)] = q->base + at - 1;
        bytes = around >> 8;
    }
}

/* Enter the next place under both hashes. */
#define STORE_NEXT() \
    do { \
        places[hash] = next + q->base; \
        push(&pairs[long_hash], next + q->base); \
    } while (0)

/* The first half of levels 5 and 6: a candidate under the hash of seven bytes, now or before. Returns 1 if there is one. */
static inline int long_candidate(const search *q, place_pair candidates, uint64_t bytes, int32_t at, int32_t *from,
                                 int32_t *length) {
    int32_t now = candidates.now - q->base, before = candidates.before - q->base;
    if (at - now >= DISTANCE_LIMIT)
        return 0;
    if ((uint32_t)bytes == go_load32(q->src + now)) {
        *from = now;
        if (matches(q, bytes, at, before)) {
            *length = match_limited(q, at + 4, now + 4) + 4;
            int32_t other = match_limited(q, at + 4, before + 4) + 4;
            if (other > *length) {
                *from = before;
                *length = other;
            }
        }
        return 1;
    }
    *from = before;
    return matches(q, bytes, at, before);
}

static int32_t search_5(fast_finder *finder, const search *q) {
    const int32_t mismatch = finder->mismatch;
    int32_t *places = finder->places;
    place_pair *pairs = finder->pairs;
    int32_t done = q->start, at = q->start;
    uint64_t bytes = go_load64(q->src + at);
    for (;;) {
        int32_t next = at, length = 0, from;
        for (;;) {
            uint32_t hash = hash_4(bytes), long_hash = hash_7(bytes);
            at = next;
            next = at + 1 + ((at - done) >> 6);
            if (next > q->limit)
                return done;
            int32_t near = places[hash] - q->base;
            place_pair candidates = pairs[long_hash];
            uint64_t next_bytes = go_load64(q->src + next);
            places[hash] = at + q->base;
            push(&pairs[long_hash], at + q->base);
            hash = hash_4(next_bytes);
            long_hash = hash_7(next_bytes);
            if (long_candidate(q, candidates, bytes, at, &from, &length)) {
                STORE_NEXT();
                break;
            }
            from = near;
            if (matches(q, bytes, at, from)) {
                length = match_limited(q, at + 4, from + 4) + 4;
                candidates = pairs[long_hash];
                STORE_NEXT();
                int32_t other = candidates.now - q->base;
                if (next - other < DISTANCE_LIMIT) {
                    int32_t longer = 0;
                    if ((uint32_t)next_bytes == go_load32(q->src + other))
                        longer = match_limited(q, next + 4, other + 4) + 4;
                    if (longer <= length) {
                        other = candidates.before - q->base;
                        longer = matches(q, next_bytes, next, other) ? match_limited(q, next + 4, other + 4) + 4 : 0;
                    }
                    if (longer > length) {
                        at = next;
                        from = other;
                        length = longer;
                    }
                }
                break;
            }
            bytes = next_bytes;
        }
        if (length == 0)
            length = match_long(q, at + 4, from + 4) + 4;
        else if (length == MATCH_MAX)
            length += match_long(q, at + length, from + length);
        /* Perhaps what follows a short match follows something longer elsewhere. */
        if (length < 30 && at + length < q->limit) {
            int32_t other = pairs[hash_7(go_load64(q->src + at + length))].now - q->base - length + mismatch;
            int32_t distance = at + mismatch - other;
            if (other >= 0 && distance < DISTANCE_LIMIT && distance > 0) {
                int32_t longer = match_long(q, at + mismatch, other);
                if (longer > length) {
                    from = other;
                    length = longer;
                    at += mismatch;
                }
            }
        }
        int32_t end = at + length;
        length = emit(q, done, at, from, length);
        done = end;
        at = next >= done ? next + 1 : done;
        if (at >= q->limit)
            return done;
        int32_t i = at - length + 1;
        if (i < at - 1) {
            uint64_t inside = go_load64(q->src + i);
            places[hash_4(inside)] = q->base + i;
            push(&pairs[hash_7(inside)], q->base + i);
            push(&pairs[hash_7(inside >> 8)], q->base + i + 1);
            places[hash_4(inside >> 16)] = q->base + i + 2;
            for (i += 4; i < at - 1; i += 3) {
                inside = go_load64(q->src + i);
                push(&pairs[hash_7(inside)], q->base + i);
                places[hash_4(inside >> 8)] = q->base + i + 1;
            }
        }
        uint64_t around = go_load64(q->src + at - 1);
        places[hash_4(around)] = q->base + at - 1;
        push(&pairs[hash_7(around)], q->base + at - 1);
        bytes = around >> 8;
    }
}

static int32_t search_6(fast_finder *finder, const search *q) {
    int32_t *places = finder->places;
    place_pair *pairs = finder->pairs;
    int32_t done = q->start, at = q->start, repeated = 1; /* the distance of the last match */
    uint64_t bytes = go_load64(q->src + at);
    for (;;) {
        int32_t next = at, length = 0, from;
        for (;;) {
            uint32_t hash = hash_4(bytes), long_hash = hash_7(bytes);
            at = next;
            next = at + 1 + ((at - done) >> 7);
            if (next > q->limit)
                return done;
            int32_t near = places[hash] - q->base;
            place_pair candidates = pairs[long_hash];
            uint64_t next_bytes = go_load64(q->src + next);
            places[hash] = at + q->base;
            push(&pairs[long_hash], at + q->base);
            hash = hash_4(next_bytes);
            long_hash = hash_7(next_bytes);
            if (long_candidate(q, candidates, bytes, at, &from, &length)) {
                STORE_NEXT();
                break;
            }
            from = near;
            if (matches(q, bytes, at, from)) {
                length = match_limited(q, at + 4, from + 4) + 4;
                candidates = pairs[long_hash];
                STORE_NEXT();
                int32_t other = at - repeated + 1, longer;
                if (go_load32(q->src + other) == (uint32_t)(bytes >> 8)) {
                    longer = match_limited(q, at + 5, other + 4) + 4;
                    if (longer > length) {
                        from = other;
                        length = longer;
                        at++;
                        break;
                    }
                }
                other = candidates.now - q->base;
                if (next - other < DISTANCE_LIMIT) {
                    if (go_load32(q->src + other) == (uint32_t)next_bytes) {
                        longer = match_limited(q, next + 4, other + 4) + 4;
                        if (longer > length) {
                            from = other;
                            at = next;
                            length = longer;
                        }
                    }
                    other = candidates.before - q->base;
                    if (matches(q, next_bytes, next, other)) {
                        longer = match_limited(q, next + 4, other + 4) + 4;
                        if (longer > length) {
                            from = other;
                            at = next;
                            length = longer;
                        }
                    }
                }
                break;
            }
            bytes = next_bytes;
        }
        if (length == 0)
            length = match_long(q, at + 4, from + 4) + 4;
        else if (length == MATCH_MAX)
            length += match_long(q, at + length, from + length);
        if (at + length < q->limit) {
            place_pair candidates = pairs[hash_7(go_load64(q->src + at + length))];
            int32_t second = at + 2, other = candidates.now - q->base - length + 2;
            if (second - other < DISTANCE_LIMIT) {
                if (second > other && other >= 0) {
                    int32_t longer = match_long(q, second, other);
                    if (longer > length) {
                        from = other;
                        length = longer;
                        at = second;
                    }
                }
                other = candidates.before - q->base - length + 2; /* the length may be the new one */
                if (second > other && second - other < DISTANCE_LIMIT && other >= 0) {
                    int32_t longer = match_long(q, second, other);
                    if (longer > length) {
                        from = other;
                        length = longer;
                        at = second;
                    }
                }
            }
        }
        int32_t end = at + length;
        repeated = at - from;
        emit(q, done, at, from, length);
        done = end;
        at = next >= done ? next + 1 : done;
        if (at >= q->limit) {
            for (int32_t i = next + 1; i < q->size - 8; i += 2) {
                uint64_t inside = go_load64(q->src + i);
                places[hash_4(inside)] = q->base + i;
                push(&pairs[hash_7(inside)], q->base + i);
            }
            return done;
        }
        for (int32_t i = next + 1; i < at - 1; i += 2) {
            uint64_t inside = go_load64(q->src + i);
            place_pair *pair = &pairs[hash_7(inside)], *second = &pairs[hash_7(inside >> 8)];
            places[hash_4(inside)] = q->base + i;
            push(pair, q->base + i);
            push(second, q->base + i + 1);
        }
        bytes = go_load64(q->src + at);
    }
}

void fast_encode(fast_finder *finder, const uint8_t *block, int32_t size, block_tokens *tokens) {
    typedef int32_t searcher(fast_finder *, const search *);
    static searcher *const searchers[] = {search_1, search_2, search_3, search_4, search_5, search_6};
    if (finder->base >= RENUMBER_AT)
        renumber(finder);
    int32_t start = append(finder, block, size);
    if (size < FAST_BLOCK_MIN)
        return;
    const search q = {finder->history, finder->size, finder->size - MARGIN, finder->base, start, tokens};
    int32_t done = searchers[finder->level - 1](finder, &q);
    if (tokens->count > 0)
        tokens_add_literals(tokens, finder->history + done, finder->size - done);
}
