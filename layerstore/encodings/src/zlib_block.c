/* One DEFLATE block as zlib writes it: the choice of its form, and the shape of its Huffman codes.
 *
 * Huffman codes of the same total length are many; which one zlib finds follows from the order in which its heap hands out
 * nodes of equal frequency (the shallower first, and else by position in the heap) and from how codes that are too long are
 * shortened. Facts from zlib 1.3.1's trees.c and from RFC 1951. GNU gzip 1.12 does the same. */
#include "zlib_deflate.h"

#include <string.h>

enum {
    CODE_BITS_MAX = 15,
    LENGTH_CODE_BITS_MAX = 7,
    LENGTH_CODES = 19,         /* the alphabet that the lengths of the two other codes are written in */
    NODES_MAX = 2 * ZLIB_LITERAL_CODES + 1,
    END_OF_BLOCK = 256,
    COPY_PREVIOUS = 16,
    ZEROS_SHORT = 17,
    ZEROS_LONG = 18,
    STORED = 0,
    FIXED = 1,
    DYNAMIC = 2,
};

static const uint8_t length_extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                         2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint8_t length_base[29] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  10, 12,  14,  16,  20, 24,
                                        28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 255};
static const uint8_t distance_extra[30] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                           6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
static const uint16_t distance_base[30] = {0,   1,    2,    3,    4,    6,    8,    12,   16,    24,
                                           32,  48,   64,   96,   128,  192,  256,  384,  512,   768,
                                           1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576};
static const uint8_t length_code_order[LENGTH_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
static const uint8_t length_code_extra[LENGTH_CODES] = {[COPY_PREVIOUS] = 2, [ZEROS_SHORT] = 3, [ZEROS_LONG] = 7};

/* A Huffman code over an alphabet. */
typedef struct {
    zlib_code codes[ZLIB_LITERAL_CODES];
    int last;      /* the largest symbol that occurs */
    uint32_t bits; /* of all codes that the frequencies ask for, without extra bits */
} huffman;

/* ---- bits ------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t hold;
    unsigned count;
    uint8_t *next;
} writer;

/* At most 32 bits; at most 31 are held before. */
static inline void put(writer *to, uint32_t value, unsigned count) {
    to->hold |= (uint64_t)value << to->count;
    to->count += count;
    if (to->count >= 32) {
        to->next[0] = (uint8_t)to->hold;
        to->next[1] = (uint8_t)(to->hold >> 8);
        to->next[2] = (uint8_t)(to->hold >> 16);
        to->next[3] = (uint8_t)(to->hold >> 24);
        to->next += 4;
        to->hold >>= 32;
        to->count -= 32;
    }
}

static inline void put_code(writer *to, zlib_code code) {
    put(to, code.code, code.length);
}

static void put_whole_bytes(writer *to) {
    for (; to->count >= 8; to->count -= 8) {
        *to->next++ = (uint8_t)to->hold;
        to->hold >>= 8;
    }
}

static void put_padding(writer *to) {
    put_whole_bytes(to);
    if (to->count > 0)
        *to->next++ = (uint8_t)to->hold;
    to->hold = 0;
    to->count = 0;
}

/* Room for so many bits and what is held; NULL in `next` without memory. */
static writer start_writing(const zlib_block *block, sink *out, uint64_t bits) {
    writer to = {block->bits.hold, block->bits.count, sink_reserve(out, (size_t)(bits / 8) + 16)};
    return to;
}

static void end_writing(zlib_block *block, sink *out, writer *to) {
    put_whole_bytes(to);
    block->bits.hold = to->hold;
    block->bits.count = to->count;
    out->size = (size_t)(to->next - out->data);
}

/* ---- Huffman codes ---------------------------------------------------------------------------------------------- */

typedef struct {
    uint16_t frequency[NODES_MAX];
    uint16_t parent[NODES_MAX];
    uint8_t depth[NODES_MAX];
    uint8_t length[NODES_MAX];
    int heap[NODES_MAX]; /* from 1: the least frequent node first */
    int heap_size;
    int sorted[NODES_MAX]; /* the nodes in the order in which they left the heap, which is by frequency */
    int sorted_size;
} tree;

static inline int is_before(const tree *t, int a, int b) {
    return t->frequency[a] < t->frequency[b] || (t->frequency[a] == t->frequency[b] && t->depth[a] <= t->depth[b]);
}

static void sift_down(tree *t, int hole) {
    int node = t->heap[hole];
    for (int child = 2 * hole; child <= t->heap_size; child = 2 * hole) {
        if (child < t->heap_size && is_before(t, t->heap[child + 1], t->heap[child]))
            child++;
        if (is_before(t, node, t->heap[child]))
            break;
        t->heap[hole] = t->heap[child];
        hole = child;
    }
    t->heap[hole] = node;
}

/* Collect the symbols that occur, at least two of them. Returns the largest. */
static int fill_heap(tree *t, const uint16_t *frequency, int alphabet) {
    int last = -1;
    t->heap_size = 0;
    t->sorted_size = 0;
    for (int symbol = 0; symbol < alphabet; symbol++) {
        t->frequency[symbol] = frequency[symbol];
        t->depth[symbol] = 0;
        t->length[symbol] = 0;
        if (frequency[symbol] != 0) {
            t->heap[++t->heap_size] = symbol;
            last = symbol;
        }
    }
    while (t->heap_size < 2) {
        int symbol = last < 2 ? ++last : 0;
        t->heap[++t->heap_size] = symbol;
        t->frequency[symbol] = 1;
    }
    for (int i = t->heap_size / 2; i >= 1; i--)
        sift_down(t, i);
    return last;
}

/* Join the two least frequent nodes until one is left. */
static void join_nodes(tree *t, int alphabet) {
    int node = alphabet;
    do {
        int first = t->heap[1];
        t->heap[1] = t->heap[t->heap_size--];
        sift_down(t, 1);
        int second = t->heap[1];
        t->sorted[t->sorted_size++] = first;
        t->sorted[t->sorted_size++] = second;
        uint8_t depth = t->depth[first] >= t->depth[second] ? t->depth[first] : t->depth[second];
        t->frequency[node] = (uint16_t)(t->frequency[first] + t->frequency[second]);
        t->depth[node] = (uint8_t)(depth + 1);
        t->parent[first] = (uint16_t)node;
        t->parent[second] = (uint16_t)node;
        t->heap[1] = node++;
        sift_down(t, 1);
    } while (t->heap_size >= 2);
    t->sorted[t->sorted_size++] = t->heap[1];
}

/* The length of every symbol's code, none longer than `longest`; `counts` becomes the number of codes of each length. */
static void set_lengths(tree *t, int alphabet, int longest, uint16_t *counts) {
    int too_long = 0;
    memset(counts, 0, (CODE_BITS_MAX + 1) * sizeof *counts);
    t->length[t->sorted[t->sorted_size - 1]] = 0;
    for (int i = t->sorted_size - 2; i >= 0; i--) {
        int node = t->sorted[i];
        int length = t->length[t->parent[node]] + 1;
        if (length > longest) {
            length = longest;
            too_long++;
        }
        t->length[node] = (uint8_t)length;
        if (node < alphabet)
            counts[length]++;
    }
    if (too_long == 0)
        return;
    for (; too_long > 0; too_long -= 2) { /* a shorter code makes room for two that are one bit longer */
        int length = longest - 1;
        while (counts[length] == 0)
            length--;
        counts[length]--;
        counts[length + 1] = (uint16_t)(counts[length + 1] + 2);
        counts[longest]--;
    }
    int i = 0;
    for (int length = longest; length > 0; length--) { /* the rarest symbols get the longest codes */
        for (int left = counts[length]; left > 0; i++) {
            if (t->sorted[i] < alphabet) {
                t->length[t->sorted[i]] = (uint8_t)length;
                left--;
            }
        }
    }
}

static unsigned reverse(unsigned code, int length) {
    unsigned reversed = 0;
    for (; length > 0; length--, code >>= 1)
        reversed = reversed << 1 | (code & 1);
    return reversed;
}

/* RFC 1951, 3.2.2: codes from lengths. */
static void set_codes(zlib_code *codes, int symbols, const uint16_t *counts) {
    unsigned next[CODE_BITS_MAX + 1] = {0};
    unsigned code = 0;
    for (int length = 1; length <= CODE_BITS_MAX; length++) {
        code = (code + (length > 1 ? counts[length - 1] : 0u)) << 1;
        next[length] = code;
    }
    for (int symbol = 0; symbol < symbols; symbol++) {
        int length = codes[symbol].length;
        codes[symbol].code = length == 0 ? 0 : (uint16_t)reverse(next[length]++, length);
    }
}

static void build_huffman(huffman *result, const uint16_t *frequency, int alphabet, int longest) {
    tree t;
    uint16_t counts[CODE_BITS_MAX + 1];
    result->last = fill_heap(&t, frequency, alphabet);
    join_nodes(&t, alphabet);
    set_lengths(&t, alphabet, longest, counts);
    result->bits = 0;
    for (int symbol = 0; symbol < alphabet; symbol++) {
        result->codes[symbol].length = t.length[symbol];
        result->bits += (uint32_t)frequency[symbol] * t.length[symbol];
    }
    set_codes(result->codes, alphabet, counts);
}

/* ---- the lengths of the codes, as a dynamic block sends them ------------------------------------------------------ */

typedef struct {
    uint8_t symbol[ZLIB_LITERAL_CODES + ZLIB_DISTANCE_CODES];
    uint8_t extra[ZLIB_LITERAL_CODES + ZLIB_DISTANCE_CODES];
    size_t count;
    uint16_t frequency[LENGTH_CODES];
    uint32_t extra_bits;
} length_list;

static void add_length(length_list *list, int symbol, int extra) {
    list->symbol[list->count] = (uint8_t)symbol;
    list->extra[list->count++] = (uint8_t)extra;
    list->frequency[symbol]++;
    list->extra_bits += length_code_extra[symbol];
}

/* Runs are cut greedily: 3-138 zeros, a length and then 3-6 copies of it; what is shorter is written out. */
static void add_lengths(length_list *list, const huffman *code) {
    int previous = -1;
    for (int symbol = 0; symbol <= code->last;) {
        int length = code->codes[symbol].length;
        int copy = length != 0 && length == previous;
        int run_max = length == 0 ? 138 : copy ? 6 : 7;
        int run = 1;
        while (run < run_max && symbol + run <= code->last && code->codes[symbol + run].length == length)
            run++;
        if (run < (length == 0 || copy ? 3 : 4)) {
            for (int i = 0; i < run; i++)
                add_length(list, length, 0);
        } else if (length != 0) {
            if (!copy)
                add_length(list, length, 0);
            add_length(list, COPY_PREVIOUS, run - (copy ? 3 : 4));
        } else if (run <= 10) {
            add_length(list, ZEROS_SHORT, run - 3);
        } else {
            add_length(list, ZEROS_LONG, run - 11);
        }
        symbol += run;
        previous = length;
    }
}

/* How many lengths of the third code are sent: all up to the last one that is not zero, and at least 4. */
static int count_length_codes(const huffman *lengths) {
    int count = LENGTH_CODES;
    while (count > 4 && lengths->codes[length_code_order[count - 1]].length == 0)
        count--;
    return count;
}

static void put_codes(writer *to, const huffman *literals, const huffman *distances, const huffman *lengths,
                      const length_list *list) {
    int sent = count_length_codes(lengths);
    put(to, (uint32_t)(literals->last + 1 - 257), 5);
    put(to, (uint32_t)distances->last, 5);
    put(to, (uint32_t)(sent - 4), 4);
    for (int i = 0; i < sent; i++)
        put(to, lengths->codes[length_code_order[i]].length, 3);
    for (size_t i = 0; i < list->count; i++) {
        put_code(to, lengths->codes[list->symbol[i]]);
        put(to, list->extra[i], length_code_extra[list->symbol[i]]);
    }
}

/* ---- blocks ----------------------------------------------------------------------------------------------------- */

static void start_block(zlib_block *block) {
    block->count = 0;
    block->matches = 0;
    memset(block->literal_frequency, 0, sizeof block->literal_frequency);
    memset(block->distance_frequency, 0, sizeof block->distance_frequency);
    block->literal_frequency[END_OF_BLOCK] = 1;
}

void zlib_block_reset(zlib_block *block) {
    block->bits.hold = 0;
    block->bits.count = 0;
    start_block(block);
}

void zlib_block_init(zlib_block *block) {
    uint16_t counts[CODE_BITS_MAX + 1] = {[7] = 24, [8] = 152, [9] = 112};
    memset(block, 0, sizeof *block);
    for (int code = 0; code < 28; code++)
        for (int i = 0; i < 1 << length_extra[code]; i++)
            block->length_code[length_base[code] + i] = (uint8_t)code;
    block->length_code[255] = 28; /* length 258 has a code of its own */
    for (int code = 0; code < 16; code++)
        for (int i = 0; i < 1 << distance_extra[code]; i++)
            block->distance_code[distance_base[code] + i] = (uint8_t)code;
    for (int code = 16; code < ZLIB_DISTANCE_CODES; code++)
        for (int i = 0; i < 1 << (distance_extra[code] - 7); i++)
            block->distance_code[256 + (distance_base[code] >> 7) + i] = (uint8_t)code;
    for (int i = 0; i < ZLIB_LITERAL_CODES + 2; i++)
        block->fixed_literal[i].length = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    set_codes(block->fixed_literal, ZLIB_LITERAL_CODES + 2, counts);
    zlib_block_reset(block);
}

static void put_symbols(const zlib_block *block, writer *to, const zlib_code *literals, const zlib_code *distances) {
    for (uint32_t i = 0; i < block->count; i++) {
        unsigned low = block->symbols[i] & 0xffff;
        unsigned distance = block->symbols[i] >> 16;
        if (distance == 0) {
            put_code(to, literals[low]);
            continue;
        }
        unsigned code = block->length_code[low];
        zlib_code sent = literals[257 + code];
        put(to, sent.code | (uint32_t)(low - length_base[code]) << sent.length, sent.length + length_extra[code]);
        code = zlib_distance_code(block, distance);
        sent = distances[code];
        put(to, sent.code | (uint32_t)(distance - 1 - distance_base[code]) << sent.length,
            sent.length + distance_extra[code]);
    }
    put_code(to, literals[END_OF_BLOCK]);
}

uint32_t zlib_block_count_distance_bits(const zlib_block *block) {
    uint32_t bits = 0;
    for (int code = 0; code < ZLIB_DISTANCE_CODES; code++)
        bits += (uint32_t)block->distance_frequency[code] * distance_extra[code];
    return bits;
}

static uint32_t count_extra_bits(const zlib_block *block) {
    uint32_t bits = zlib_block_count_distance_bits(block);
    for (int code = 0; code < 29; code++)
        bits += (uint32_t)block->literal_frequency[257 + code] * length_extra[code];
    return bits;
}

static uint32_t count_fixed_bits(const zlib_block *block) {
    uint32_t bits = 0;
    for (int symbol = 0; symbol < ZLIB_LITERAL_CODES; symbol++)
        bits += (uint32_t)block->literal_frequency[symbol] * block->fixed_literal[symbol].length;
    for (int code = 0; code < ZLIB_DISTANCE_CODES; code++)
        bits += (uint32_t)block->distance_frequency[code] * 5;
    return bits;
}

static int write_stored(zlib_block *block, const uint8_t *data, size_t size, int last, sink *out) {
    writer to = start_writing(block, out, 64 + 8 * (uint64_t)size);
    if (to.next == NULL)
        return -1;
    put(&to, STORED << 1 | (last ? 1 : 0), 3);
    put_padding(&to);
    put(&to, (uint32_t)size, 16);
    put(&to, (uint32_t)~size & 0xffff, 16);
    put_whole_bytes(&to);
    if (size > 0)
        memcpy(to.next, data, size);
    to.next += size;
    end_writing(block, out, &to);
    return 0;
}

static void set_fixed_distances(zlib_code *codes) {
    for (unsigned code = 0; code < ZLIB_DISTANCE_CODES; code++) {
        codes[code].code = (uint16_t)reverse(code, 5);
        codes[code].length = 5;
    }
}

int zlib_block_write(zlib_block *block, const uint8_t *stored, size_t stored_size, int last, sink *out) {
    huffman literals, distances, lengths;
    length_list list = {.count = 0};
    zlib_code fixed_distances[ZLIB_DISTANCE_CODES];
    build_huffman(&literals, block->literal_frequency, ZLIB_LITERAL_CODES, CODE_BITS_MAX);
    build_huffman(&distances, block->distance_frequency, ZLIB_DISTANCE_CODES, CODE_BITS_MAX);
    add_lengths(&list, &literals);
    add_lengths(&list, &distances);
    build_huffman(&lengths, list.frequency, LENGTH_CODES, LENGTH_CODE_BITS_MAX);

    /* zlib compares whole bytes, each with the 3 bits of the block's head, and prefers stored, then fixed. */
    uint32_t extra_bits = count_extra_bits(block);
    uint32_t head_bits = 5 + 5 + 4 + 3 * (uint32_t)count_length_codes(&lengths) + lengths.bits + list.extra_bits;
    uint32_t dynamic_bits = head_bits + literals.bits + distances.bits + extra_bits;
    uint32_t fixed_bits = count_fixed_bits(block) + extra_bits;
    uint32_t dynamic_size = (dynamic_bits + 3 + 7) >> 3;
    uint32_t fixed_size = (fixed_bits + 3 + 7) >> 3;
    int fixed = fixed_size <= dynamic_size;
    int failed = 0;
    if (stored != NULL && stored_size + 4 <= (fixed ? fixed_size : dynamic_size)) {
        failed = write_stored(block, stored, stored_size, last, out);
    } else {
        writer to = start_writing(block, out, 64 + (uint64_t)(fixed ? fixed_bits : dynamic_bits));
        if (to.next == NULL)
            return -1;
        put(&to, (fixed ? FIXED : DYNAMIC) << 1 | (last ? 1 : 0), 3);
        if (fixed) {
            set_fixed_distances(fixed_distances);
            put_symbols(block, &to, block->fixed_literal, fixed_distances);
        } else {
            put_codes(&to, &literals, &distances, &lengths, &list);
            put_symbols(block, &to, literals.codes, distances.codes);
        }
        if (last)
            put_padding(&to);
        end_writing(block, out, &to);
    }
    start_block(block);
    return failed;
}

int zlib_block_write_empty_stored(zlib_block *block, sink *out) {
    return write_stored(block, NULL, 0, 0, out);
}

int zlib_block_write_empty_fixed(zlib_block *block, sink *out) {
    writer to = start_writing(block, out, 64);
    if (to.next == NULL)
        return -1;
    while (to.count % 8 != 0)
        put(&to, FIXED << 1, 10); /* the code of the end of the block is 7 zeros */
    end_writing(block, out, &to);
    return 0;
}
