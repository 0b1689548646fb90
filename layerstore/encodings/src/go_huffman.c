/* See go_huffman.h. Facts from Go 1.26.8 and 1.27.3 (src/compress/flate/huffman_code.go, huffman_bit_writer.go) and from
 * github.com/klauspost/compress v1.12.3-v1.20.4 (flate/huffman_code.go). */
#include "go_huffman.h"

const uint8_t go_length_extra_bits[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
const uint16_t go_length_bases[29] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  10, 12,  14,  16,  20, 24,
                                      28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 255};
const uint8_t go_offset_extra_bits[30] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                          6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
const uint16_t go_offset_bases[30] = {0,   1,   2,   3,   4,   6,    8,    12,   16,   24,   32,   48,    64,    96,    128,
                                      192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576};

/* Eight, sixteen ... equal entries, as macros so that the tables are constant. */
#define TWICE(x) x, x
#define FOUR(x) TWICE(x), TWICE(x)
#define EIGHT(x) FOUR(x), FOUR(x)
#define SIXTEEN(x) EIGHT(x), EIGHT(x)
#define THIRTY_TWO(x) SIXTEEN(x), SIXTEEN(x)
#define SIXTY_FOUR(x) THIRTY_TWO(x), THIRTY_TWO(x)

const uint8_t go_length_codes[256] = {
    0, 1, 2, 3, 4, 5, 6, 7, TWICE(8), TWICE(9), TWICE(10), TWICE(11), FOUR(12), FOUR(13), FOUR(14), FOUR(15),
    EIGHT(16), EIGHT(17), EIGHT(18), EIGHT(19), SIXTEEN(20), SIXTEEN(21), SIXTEEN(22), SIXTEEN(23),
    THIRTY_TWO(24), THIRTY_TWO(25), THIRTY_TWO(26), SIXTEEN(27), EIGHT(27), FOUR(27), TWICE(27), 27, 28,
};

const uint8_t go_offset_codes[512] = {
    0, 1, 2, 3, TWICE(4), TWICE(5), FOUR(6), FOUR(7), EIGHT(8), EIGHT(9), SIXTEEN(10), SIXTEEN(11),
    THIRTY_TWO(12), THIRTY_TWO(13), SIXTY_FOUR(14), SIXTY_FOUR(15),
    /* by the bits above the 7th: 0 and 1 are never asked for */
    14, 15, 16, 17, TWICE(18), TWICE(19), FOUR(20), FOUR(21), EIGHT(22), EIGHT(23), SIXTEEN(24), SIXTEEN(25),
    THIRTY_TWO(26), THIRTY_TWO(27), SIXTY_FOUR(28), SIXTY_FOUR(29),
};

/* The fixed codes (RFC 1951, 3.2.6), words reversed. */
#define REVERSE_4(x) (((x)&1) << 3 | ((x)&2) << 1 | ((x)&4) >> 1 | ((x)&8) >> 3)
#define REVERSE_8(x) (REVERSE_4((x)&15) << 4 | REVERSE_4((x) >> 4))
#define WORD_8(x) (8 | (uint32_t)REVERSE_8(x) << 8)
#define WORD_9(x) (9 | (uint32_t)(REVERSE_8((x)&255) << 1 | 1) << 8)
#define WORD_7(x) (7 | (uint32_t)(REVERSE_8(x) >> 1) << 8)
#define WORD_5(x) (5 | (uint32_t)(REVERSE_8(x) >> 3) << 8)
#define ROW_OF_4(word, x) word(x), word((x) + 1), word((x) + 2), word((x) + 3)
#define ROW_OF_8(word, x) ROW_OF_4(word, x), ROW_OF_4(word, (x) + 4)
#define ROW_OF_16(word, x) ROW_OF_8(word, x), ROW_OF_8(word, (x) + 8)

static const go_code fixed_literals[GO_LITERALS] = {
    ROW_OF_16(WORD_8, 48), ROW_OF_16(WORD_8, 64), ROW_OF_16(WORD_8, 80), ROW_OF_16(WORD_8, 96), ROW_OF_16(WORD_8, 112),
    ROW_OF_16(WORD_8, 128), ROW_OF_16(WORD_8, 144), ROW_OF_16(WORD_8, 160), ROW_OF_16(WORD_8, 176),
    ROW_OF_16(WORD_9, 400), ROW_OF_16(WORD_9, 416), ROW_OF_16(WORD_9, 432), ROW_OF_16(WORD_9, 448),
    ROW_OF_16(WORD_9, 464), ROW_OF_16(WORD_9, 480), ROW_OF_16(WORD_9, 496), ROW_OF_16(WORD_7, 0), ROW_OF_8(WORD_7, 16),
    ROW_OF_4(WORD_8, 192), WORD_8(196), WORD_8(197),
};
static const go_code fixed_offsets[GO_OFFSETS] = {
    ROW_OF_16(WORD_5, 0), ROW_OF_8(WORD_5, 16), ROW_OF_4(WORD_5, 24), WORD_5(28), WORD_5(29),
};

const go_code *go_fixed_literals(void) { return fixed_literals; }
const go_code *go_fixed_offsets(void) { return fixed_offsets; }

typedef struct {
    uint32_t frequency;
    uint16_t symbol;
} leaf;

/* By frequency, and by symbol among equals: a stable sort, as the leaves come in the order of their symbols. */
static void sort_leaves(leaf *leaves, int count) {
    static const unsigned shifts[] = {0, 8, 16};
    leaf other[GO_LITERALS];
    uint32_t highest = 0;
    for (int i = 0; i < count; i++)
        highest |= leaves[i].frequency;
    for (unsigned pass = 0; pass < 3 && (highest >> shifts[pass]) != 0; pass++) {
        uint16_t places[257] = {0};
        for (int i = 0; i < count; i++)
            places[(leaves[i].frequency >> shifts[pass] & 255) + 1]++;
        for (int i = 0; i < 256; i++)
            places[i + 1] = (uint16_t)(places[i + 1] + places[i]);
        for (int i = 0; i < count; i++)
            other[places[leaves[i].frequency >> shifts[pass] & 255]++] = leaves[i];
        memcpy(leaves, other, (size_t)count * sizeof *leaves);
    }
}

/* Package-merge: row r holds the leaves and the pairs of row r - 1, lightest first and pairs before leaves of the same
 * weight, except that a row always starts with the two lightest leaves. The 2n - 2 first items of the last row, and the
 * items under their pairs, say how many leaves have a word of at least so many bits. */
static void count_lengths(const leaf *leaves, int n, int length_max, int *counts) {
    uint8_t is_pair[16][2 * GO_LITERALS];
    uint32_t weights[2][2 * GO_LITERALS];
    int sizes[16] = {0};
    if (length_max > n - 1)
        length_max = n - 1;
    for (int row = 1; row <= length_max; row++) {
        uint32_t *here = weights[row & 1];
        const uint32_t *below = weights[(row & 1) ^ 1];
        int pairs = row == 1 ? 0 : sizes[row - 1] / 2, pair = 0, next = 0, size = 0;
        while (size < 2 * n - 2 && (next < n || pair < pairs)) {
            int take_pair = pair < pairs && next >= 2;
            if (take_pair && next < n)
                take_pair = below[2 * pair] + below[2 * pair + 1] <= leaves[next].frequency;
            is_pair[row][size] = (uint8_t)take_pair;
            if (take_pair) {
                here[size] = below[2 * pair] + below[2 * pair + 1];
                pair++;
            } else {
                here[size] = leaves[next++].frequency;
            }
            size++;
        }
        sizes[row] = size;
    }
    int taken = 2 * n - 2, longer = 0;
    int at_least[17] = {0}; /* leaves that row r contributes */
    for (int row = length_max; row >= 1; row--) {
        int pairs = 0;
        for (int i = 0; i < taken; i++)
            pairs += is_pair[row][i];
        at_least[row] = taken - pairs;
        taken = 2 * pairs;
    }
    for (int row = 1; row <= length_max; row++) {
        counts[length_max - row + 1] = at_least[row] - longer;
        longer = at_least[row];
    }
}

/* A plain Huffman tree by two queues, leaves before nodes of the same weight. Returns whether no word is too long. */
static int count_tree_lengths(const leaf *leaves, int n, int length_max, int *counts) {
    uint32_t weights[GO_LITERALS];
    uint16_t parents[2 * GO_LITERALS], depths[GO_LITERALS];
    int next = 0, node = 0;
    for (int made = 0; made < n - 1; made++) {
        weights[made] = 0;
        for (int half = 0; half < 2; half++) {
            if (next < n && (node >= made || leaves[next].frequency <= weights[node])) {
                weights[made] += leaves[next].frequency;
                parents[next++] = (uint16_t)made;
            } else {
                weights[made] += weights[node];
                parents[n + node++] = (uint16_t)made;
            }
        }
    }
    depths[n - 2] = 0;
    for (int i = n - 3; i >= 0; i--)
        depths[i] = (uint16_t)(depths[parents[n + i]] + 1);
    for (int i = 0; i < n; i++) {
        int depth = depths[parents[i]] + 1;
        if (depth > length_max)
            return 0;
        counts[depth]++;
    }
    return 1;
}

static uint32_t reversed(uint32_t word, int length) {
    uint32_t result = 0;
    for (int i = 0; i < length; i++)
        result |= (word >> i & 1) << (length - 1 - i);
    return result;
}

void go_build_code(go_code *codes, const uint32_t *frequencies, int symbols, int length_max, go_code_builder builder) {
    leaf leaves[GO_LITERALS];
    int count = 0;
    for (int i = 0; i < symbols; i++) {
        codes[i] = 0;
        if (frequencies[i] != 0)
            leaves[count++] = (leaf){frequencies[i], (uint16_t)i};
    }
    if (count <= 2) {
        for (int i = 0; i < count; i++)
            codes[leaves[i].symbol] = 1 | (uint32_t)i << 8;
        return;
    }
    sort_leaves(leaves, count);
    int counts[17] = {0};
    if (builder != GO_TREE_FIRST || !count_tree_lengths(leaves, count, length_max, counts)) {
        memset(counts, 0, sizeof counts);
        count_lengths(leaves, count, length_max, counts);
    }
    /* The rarest symbols get the longest words; among equals in length, words rise with the symbols (RFC 1951, 3.2.2). */
    uint32_t words[17] = {0};
    for (int length = 1; length <= length_max; length++)
        words[length] = (words[length - 1] + (uint32_t)counts[length - 1]) << 1;
    int place = count;
    for (int length = 1; length <= length_max; length++)
        for (int i = 0; i < counts[length]; i++)
            codes[leaves[--place].symbol] = (go_code)length;
    for (int i = 0; i < symbols; i++)
        if (codes[i] != 0) {
            int length = (int)codes[i];
            codes[i] |= reversed(words[length]++, length) << 8;
        }
}

uint64_t go_code_cost(const go_code *codes, const uint32_t *frequencies, int symbols) {
    uint64_t cost = 0;
    for (int i = 0; i < symbols; i++)
        cost += (uint64_t)frequencies[i] * go_code_length(codes[i]);
    return cost;
}

static const uint8_t size_code_order[GO_SIZE_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

static void add_item(go_dynamic_header *header, int symbol) {
    header->items[header->count++] = (uint8_t)symbol;
    header->frequencies[symbol]++;
}

static void add_repeat(go_dynamic_header *header, int symbol, int count) {
    add_item(header, symbol);
    header->items[header->count++] = (uint8_t)count;
}

/* One run of equal lengths: zeros in runs of up to 138 (18) and 10 (17), others once and then in runs of up to 6 (16). */
static void add_run(go_dynamic_header *header, int length, int count) {
    if (length != 0) {
        add_item(header, length);
        count--;
        for (; count >= 3; count -= count < 6 ? count : 6)
            add_repeat(header, 16, (count < 6 ? count : 6) - 3);
    } else {
        for (; count >= 11; count -= count < 138 ? count : 138)
            add_repeat(header, 18, (count < 138 ? count : 138) - 11);
        if (count >= 3) {
            add_repeat(header, 17, count - 3);
            count = 0;
        }
    }
    for (; count > 0; count--)
        add_item(header, length);
}

void go_prepare_header(go_dynamic_header *header, const go_code *literals, int literal_count, const go_code *offsets,
                       int offset_count, go_code_builder builder) {
    header->count = 0;
    memset(header->frequencies, 0, sizeof header->frequencies);
    int run_length = -1, run = 0;
    for (int i = 0; i < literal_count + offset_count; i++) {
        int length = (int)go_code_length(i < literal_count ? literals[i] : offsets[i - literal_count]);
        if (length != run_length && run > 0) {
            add_run(header, run_length, run);
            run = 0;
        }
        run_length = length;
        run++;
    }
    add_run(header, run_length, run);
    go_build_code(header->codes, header->frequencies, GO_SIZE_CODES, 7, builder);
    int written = GO_SIZE_CODES;
    while (written > 4 && header->frequencies[size_code_order[written - 1]] == 0)
        written--;
    header->codes_written = written;
    header->size = (uint32_t)(3 + 5 + 5 + 4 + 3 * written) + header->frequencies[16] * 2 + header->frequencies[17] * 3 +
                   header->frequencies[18] * 7 +
                   (uint32_t)go_code_cost(header->codes, header->frequencies, GO_SIZE_CODES);
}

void go_write_header(bit_writer *bits, const go_dynamic_header *header, int literal_count, int offset_count, int last) {
    if (bits_reserve(bits, 1024))
        return;
    bits_put(bits, 4 | (uint64_t)(last != 0), 3);
    bits_put(bits, (uint64_t)(literal_count - 257), 5);
    bits_put(bits, (uint64_t)(offset_count - 1), 5);
    bits_put(bits, (uint64_t)(header->codes_written - 4), 4);
    for (int i = 0; i < header->codes_written; i++)
        bits_put(bits, go_code_length(header->codes[size_code_order[i]]), 3);
    for (int i = 0; i < header->count; i++) {
        int symbol = header->items[i];
        go_code code = header->codes[symbol];
        bits_put(bits, code >> 8, go_code_length(code));
        if (symbol >= 16)
            bits_put(bits, header->items[++i], symbol == 16 ? 2 : symbol == 17 ? 3 : 7);
    }
}

void go_write_tokens(bit_writer *bits, const uint32_t *tokens, size_t count, const go_code *literals,
                     const go_code *offsets) {
    uint64_t lengths[256]; /* the code word and the extra bits of a length, and above bit 32 how many bits that is */
    uint32_t offset_bases[GO_OFFSETS];
    if (count == 0 || bits_reserve(bits, count * 6 + 16))
        return;
    for (unsigned i = 0; i < 256; i++) {
        unsigned length = go_length_codes[i];
        go_code code = literals[GO_LENGTH_CODES + length];
        lengths[i] = (uint64_t)(go_code_length(code) + go_length_extra_bits[length]) << 32 | code >> 8 |
                     (uint64_t)(i - go_length_bases[length]) << go_code_length(code);
    }
    for (unsigned i = 0; i < GO_OFFSETS; i++)
        offset_bases[i] = go_offset_bases[i];
    bit_writer local = *bits;
    uint8_t *place = local.out->data + local.out->size;
    uint64_t held = local.held;
    unsigned held_count = local.count;
    for (size_t i = 0; i < count; i++) {
        uint32_t token = tokens[i];
        if (token <= GO_END_OF_BLOCK) {
            go_code code = literals[token];
            held |= (uint64_t)(code >> 8) << held_count;
            held_count += go_code_length(code);
        } else {
            uint64_t length = lengths[go_token_length(token)];
            held |= (length & 0xffffffff) << held_count;
            held_count += (unsigned)(length >> 32);
            unsigned offset = go_token_offset_code(token);
            go_code code = offsets[offset];
            held |= ((uint64_t)(code >> 8) | (uint64_t)((token & 0xffff) - offset_bases[offset]) << go_code_length(code))
                    << held_count;
            held_count += go_code_length(code) + go_offset_extra_bits[offset];
        }
        go_store64(place, held);
        place += held_count >> 3;
        held >>= held_count & 56;
        held_count &= 7;
    }
    local.out->size = (size_t)(place - local.out->data);
    bits->held = held;
    bits->count = held_count;
}

void go_write_literals(bit_writer *bits, const uint8_t *data, size_t size, const go_code *literals) {
    if (bits_reserve(bits, size * 2 + 16))
        return;
    for (size_t i = 0; i < size; i++) {
        go_code code = literals[data[i]];
        bits_put(bits, code >> 8, go_code_length(code));
    }
}
