/* See go_blocks.h. Facts from github.com/klauspost/compress v1.12.3-v1.20.4 and from Go 1.27.3 (flate/huffman_bit_writer.go
 * and token.go in both). */
#include "go_blocks.h"

enum {
    SMALL_BLOCK = 250, /* the fixed codes are tried for fewer tokens than this */
    HEADER_GUESS = 70 * 8, /* bits */
};

void blocks_init(block_writer *blocks, const block_rules *rules, unsigned penalty) {
    blocks->rules = rules;
    blocks->penalty = penalty;
    blocks->literals = blocks->literal_codes[0];
    blocks->spare_literals = blocks->literal_codes[1];
}

void blocks_reset(block_writer *blocks) {
    blocks->open_header = 0;
    blocks->literals_only = 0;
}

/* IEEE 754 single precision, rounded after every operation: the store to a volatile keeps a compiler from fusing two
 * operations, and from carrying more precision along (one more rounding from extended precision changes nothing, as that
 * has more than twice the bits). */
static float rounded(float value) {
    volatile float stored = value;
    return stored;
}

/* Multiplied and added with one rounding at the end, as Go compiles it for arm64. All numbers are multiples of a known power
 * of two and small, so that integers hold the exact sum, and the conversion back is that rounding. */
static float scaled(int64_t value, float unit) { return rounded(rounded((float)value) * unit); }

static int64_t units(float value, float per_unit) { return (int64_t)rounded(value * per_unit); }

static const float TWO_22 = 4194304.0f, TWO_23 = 8388608.0f, TWO_24 = 16777216.0f, TWO_25 = 33554432.0f;

static float fused_parabola(float mantissa) {
    const int64_t m = units(mantissa, TWO_23); /* 1 <= mantissa < 2 */
    const int64_t slope = units(-0.34484843f, TWO_25) * m + (units(2.02466578f, TWO_22) << 26);
    const float rounded_slope = scaled(slope, 1.0f / TWO_24 / TWO_24);
    const int64_t parabola = units(rounded_slope, TWO_23) * m - (units(0.67487759f, TWO_24) << 22);
    return scaled(parabola, 1.0f / TWO_23 / TWO_23);
}

/* 1 <= factor <= 15, and the sum is 0 or from 1 to 2^21. */
static float fused_sum(float sum, float factor, uint32_t count) {
    return scaled(units(factor, TWO_23) * (int64_t)count + units(sum, TWO_23), 1.0f / TWO_23);
}

/* An approximation of log2 by a parabola on the mantissa. */
static float log2_estimate(float value, int fused) {
    uint32_t image;
    memcpy(&image, &value, sizeof image);
    float exponent = (float)((int32_t)(image >> 23 & 255) - 128);
    image = (image & 0x807fffffu) + (UINT32_C(127) << 23);
    float mantissa;
    memcpy(&mantissa, &image, sizeof mantissa);
    if (fused)
        return rounded(exponent + fused_parabola(mantissa));
    float slope = rounded(rounded(-0.34484843f * mantissa) + 2.02466578f);
    float parabola = rounded(rounded(slope * mantissa) - 0.67487759f);
    return rounded(exponent + parabola);
}

static float add_estimate(float sum, uint32_t frequency, float reciprocal, int fused) {
    float bits = -log2_estimate(rounded((float)frequency * reciprocal), fused);
    bits = bits < 1 ? 1 : bits > 15 ? 15 : bits;
    if (fused)
        return fused_sum(sum, bits, frequency);
    return rounded(sum + rounded(bits * (float)frequency));
}

/* About how many bits the block would take with the best code, in the order of summation that the result depends on. */
static int64_t estimated_bits(const block_tokens *tokens, uint32_t total, int fused) {
    float sum = 0;
    int64_t extra = 0;
    uint32_t matches = 0;
    if (total > 0) {
        float reciprocal = rounded(1.0f / (float)total);
        for (int i = 0; i < 256; i++)
            if (tokens->literals[i] > 0)
                sum = add_estimate(sum, tokens->literals[i], reciprocal, fused);
        sum = rounded(sum + 15);
        for (int i = 0; i < GO_LITERALS - GO_LENGTH_CODES; i++) {
            uint32_t frequency = tokens->literals[GO_LENGTH_CODES + i];
            if (frequency > 0) {
                sum = add_estimate(sum, frequency, reciprocal, fused);
                extra += (int64_t)go_length_extra_bits[i] * frequency;
                matches += frequency;
            }
        }
    }
    if (matches > 0) {
        float reciprocal = rounded(1.0f / (float)matches);
        for (int i = 0; i < GO_OFFSETS; i++)
            if (tokens->offsets[i] > 0) {
                sum = add_estimate(sum, tokens->offsets[i], reciprocal, fused);
                extra += (int64_t)go_offset_extra_bits[i] * tokens->offsets[i];
            }
    }
    return (int64_t)sum + extra;
}

static int has_codes(const go_code *codes, const uint32_t *frequencies, int symbols) {
    for (int i = 0; i < symbols; i++)
        if (frequencies[i] != 0 && codes[i] == 0)
            return 0;
    return 1;
}

static void put_code(block_writer *blocks, go_code code) {
    if (!bits_reserve(&blocks->bits, 8))
        bits_put(&blocks->bits, code >> 8, go_code_length(code));
}

/* End the block that is still open, if there is one. */
static void end_block(block_writer *blocks) {
    if (blocks->open_header > 0) {
        put_code(blocks, blocks->literals[GO_END_OF_BLOCK]);
        blocks->open_header = 0;
    }
}

void blocks_write_stored_header(block_writer *blocks, unsigned size, int last) {
    end_block(blocks);
    if (bits_reserve(&blocks->bits, 32))
        return;
    if (size == 0 && last) {
        bits_put(&blocks->bits, 3, 3 + 7);
        bits_align(&blocks->bits);
        return;
    }
    bits_put(&blocks->bits, last != 0, 3);
    bits_align(&blocks->bits);
    bits_put(&blocks->bits, size | (uint64_t)(size ^ 0xffff) << 16, 32);
}

void blocks_write_stored(block_writer *blocks, const uint8_t *data, size_t size) {
    blocks_write_stored_header(blocks, (unsigned)size, 0);
    bits_put_bytes(&blocks->bits, data, size);
}

static void write_fixed(block_writer *blocks, block_tokens *tokens, int ended) {
    end_block(blocks);
    if (bits_reserve(&blocks->bits, 8))
        return;
    bits_put(&blocks->bits, 2, 3);
    if (!ended)
        tokens->items[tokens->count++] = GO_END_OF_BLOCK;
    go_write_tokens(&blocks->bits, tokens->items, tokens->count, go_fixed_literals(), go_fixed_offsets());
}

static int64_t frequencies_cost(const block_writer *blocks, const go_code *literals, const go_code *offsets) {
    return (int64_t)(go_code_cost(literals, blocks->literal_frequencies, GO_LITERALS) +
                     go_code_cost(offsets, blocks->offset_frequencies, GO_OFFSETS));
}

static int64_t extra_bits(const block_writer *blocks) {
    int64_t extra = 0;
    for (int i = 0; i < GO_LITERALS - GO_LENGTH_CODES; i++)
        extra += (int64_t)blocks->literal_frequencies[GO_LENGTH_CODES + i] * go_length_extra_bits[i];
    for (int i = 0; i < GO_OFFSETS; i++)
        extra += (int64_t)blocks->offset_frequencies[i] * go_offset_extra_bits[i];
    return extra;
}

/* Take over the tokens' frequencies, and say how many code lengths a header would hold. */
static void index_tokens(block_writer *blocks, const block_tokens *tokens, int sync, int *literal_count, int *offset_count) {
    memcpy(blocks->literal_frequencies, tokens->literals, sizeof blocks->literal_frequencies);
    memcpy(blocks->offset_frequencies, tokens->offsets, sizeof blocks->offset_frequencies);
    *literal_count = *offset_count = 0;
    if (tokens->count == 0)
        return;
    if ((blocks->rules->all_lengths || blocks->rules->filled) && !sync) {
        *literal_count = GO_LITERALS;
        *offset_count = GO_OFFSETS;
        return;
    }
    if (blocks->rules->count_end)
        blocks->literal_frequencies[GO_END_OF_BLOCK] = 1;
    *literal_count = GO_LITERALS;
    while (blocks->literal_frequencies[*literal_count - 1] == 0)
        --*literal_count;
    *offset_count = GO_OFFSETS;
    while (*offset_count > 0 && blocks->offset_frequencies[*offset_count - 1] == 0)
        --*offset_count;
    if (*offset_count == 0) {
        blocks->offset_frequencies[0] = 1;
        *offset_count = 1;
    }
}

/* Give every symbol a frequency; returns how many literals and lengths got theirs here. */
static uint32_t fill_frequencies(block_tokens *tokens) {
    uint32_t filled = 0;
    for (int i = 0; i < GO_LITERALS; i++)
        if (tokens->literals[i] == 0) {
            tokens->literals[i] = 1;
            filled++;
        }
    for (int i = 0; i < GO_OFFSETS; i++)
        if (tokens->offsets[i] == 0)
            tokens->offsets[i] = 1;
    return filled;
}

static int write_stored_if_near(block_writer *blocks, const uint8_t *data, size_t size, int64_t cost) {
    if (data == NULL || size > GO_BLOCK_STORED_MAX || ((int64_t)size + 5) * 8 >= cost + (cost >> 4))
        return 0;
    blocks_write_stored(blocks, data, size);
    return 1;
}

/* As klauspost did up to 1.13.6: never with the fixed codes, and stored already where little is saved. */
static void write_filled(block_writer *blocks, block_tokens *tokens, const uint8_t *data, size_t size, int sync) {
    int literal_count, offset_count;
    uint32_t total = tokens->count;
    if (blocks->literals_only && blocks->open_header > 0) {
        end_block(blocks);
        blocks->literals_only = 0;
    }
    if (sync) {
        tokens->items[tokens->count++] = GO_END_OF_BLOCK;
        tokens->literals[GO_END_OF_BLOCK]++;
    } else {
        total += fill_frequencies(tokens);
    }
    index_tokens(blocks, tokens, sync, &literal_count, &offset_count);
    if (blocks->open_header > 0) {
        int64_t new_cost = blocks->open_header + estimated_bits(tokens, total, blocks->rules->fused);
        new_cost += new_cost >> blocks->penalty;
        int64_t cost = frequencies_cost(blocks, blocks->literals, blocks->offsets) + extra_bits(blocks);
        if (new_cost < cost) {
            end_block(blocks);
            cost = new_cost;
        }
        if (write_stored_if_near(blocks, data, size, cost))
            return;
    }
    if (blocks->open_header == 0) {
        go_build_code(blocks->literals, blocks->literal_frequencies, GO_LITERALS, 15, blocks->rules->builder);
        go_build_code(blocks->offsets, blocks->offset_frequencies, GO_OFFSETS, 15, blocks->rules->builder);
        go_prepare_header(&blocks->header, blocks->literals, literal_count, blocks->offsets, offset_count,
                          blocks->rules->builder);
        int64_t cost = blocks->header.size + frequencies_cost(blocks, blocks->literals, blocks->offsets) + extra_bits(blocks);
        if (write_stored_if_near(blocks, data, size, cost))
            return;
        go_write_header(&blocks->bits, &blocks->header, literal_count, offset_count, 0);
        blocks->open_header = blocks->header.size;
        blocks->literals_only = 0;
    }
    if (sync)
        blocks->open_header = 0;
    go_write_tokens(&blocks->bits, tokens->items, tokens->count, blocks->literals, blocks->offsets);
}

void blocks_write_dynamic(block_writer *blocks, block_tokens *tokens, const uint8_t *data, size_t size, int sync) {
    int literal_count, offset_count;
    if (blocks->rules->filled) {
        write_filled(blocks, tokens, data, size, sync);
        return;
    }
    if (sync) {
        tokens->items[tokens->count++] = GO_END_OF_BLOCK;
        tokens->literals[GO_END_OF_BLOCK]++;
    }
    if (blocks->literals_only && blocks->open_header > 0) {
        end_block(blocks);
        blocks->literals_only = 0;
    }
    if (blocks->open_header > 0 && !(has_codes(blocks->offsets, tokens->offsets, GO_OFFSETS) &&
                                     has_codes(blocks->literals, tokens->literals, GO_LITERALS)))
        end_block(blocks);
    index_tokens(blocks, tokens, sync, &literal_count, &offset_count);
    const int storable = data != NULL && size <= GO_BLOCK_STORED_MAX;
    const int64_t stored_size = ((int64_t)size + 5) * 8;
    const int64_t extra = storable || blocks->open_header > 0 ? extra_bits(blocks) : 0;
    const int small = tokens->count < SMALL_BLOCK;
    const int64_t fixed_size = 3 + frequencies_cost(blocks, go_fixed_literals(), go_fixed_offsets()) + extra;
    int64_t cost;
    if (blocks->open_header > 0) {
        int64_t new_cost = blocks->open_header + estimated_bits(tokens, tokens->count, blocks->rules->fused);
        new_cost += go_code_length(blocks->literals[GO_END_OF_BLOCK]) + (new_cost >> blocks->penalty);
        cost = frequencies_cost(blocks, blocks->literals, blocks->offsets) + extra;
        if (new_cost < cost) {
            end_block(blocks);
            cost = new_cost;
        }
        const int fixed = small && fixed_size + 7 < cost;
        if (storable && stored_size <= cost) {
            blocks_write_stored(blocks, data, size);
            return;
        }
        if (fixed) {
            write_fixed(blocks, tokens, sync);
            return;
        }
    }
    if (blocks->open_header == 0) {
        blocks->literal_frequencies[GO_END_OF_BLOCK] = 1;
        go_build_code(blocks->literals, blocks->literal_frequencies, GO_LITERALS, 15, blocks->rules->builder);
        go_build_code(blocks->offsets, blocks->offset_frequencies, GO_OFFSETS, 15, blocks->rules->builder);
        go_prepare_header(&blocks->header, blocks->literals, literal_count, blocks->offsets, offset_count,
                          blocks->rules->builder);
        cost = blocks->header.size + frequencies_cost(blocks, blocks->literals, blocks->offsets) + extra;
        /* The end of the block counts now, if it did not before. */
        const int64_t fixed_now = 3 + frequencies_cost(blocks, go_fixed_literals(), go_fixed_offsets()) + extra;
        const int fixed = small && fixed_now <= cost;
        if (storable && stored_size <= (fixed ? fixed_now : cost)) {
            blocks_write_stored(blocks, data, size);
            return;
        }
        if (fixed) {
            write_fixed(blocks, tokens, sync);
            return;
        }
        go_write_header(&blocks->bits, &blocks->header, literal_count, offset_count, 0);
        if (!sync)
            blocks->open_header = blocks->header.size;
        blocks->literals_only = 0;
    }
    if (sync)
        blocks->open_header = 0;
    go_write_tokens(&blocks->bits, tokens->items, tokens->count, blocks->literals, blocks->offsets);
}

/* Bytes whose frequencies are all about the same cannot be compressed: the sum of the squares of their deviations from
 * size / 256 is below twice the size. In units of 1/256, so that it is exact. */
static int looks_random(const uint32_t *frequencies, size_t size) {
    const uint64_t bound = (uint64_t)size * 2 * 65536;
    uint64_t sum = 0;
    for (int i = 0; i < 256 && sum <= bound; i++) {
        int64_t deviation = (int64_t)frequencies[i] * 256 - (int64_t)size;
        sum += (uint64_t)(deviation * deviation);
    }
    return sum < bound;
}

static void count_bytes(uint32_t *frequencies, const uint8_t *data, size_t size) {
    uint32_t second[256] = {0};
    size_t i = 0;
    for (; i + 2 <= size; i += 2) {
        frequencies[data[i]]++;
        second[data[i + 1]]++;
    }
    if (i < size)
        frequencies[data[i]]++;
    for (int symbol = 0; symbol < 256; symbol++)
        frequencies[symbol] += second[symbol];
}

void blocks_write_literals(block_writer *blocks, const uint8_t *data, size_t size, int sync) {
    static const go_code one_offset[GO_OFFSETS] = {1};
    const int literal_count = GO_END_OF_BLOCK + 1;
    uint32_t *frequencies = blocks->literal_frequencies;
    memset(frequencies, 0, sizeof blocks->literal_frequencies);
    count_bytes(frequencies, data, size);
    const int storable = size <= GO_BLOCK_STORED_MAX;
    if (!blocks->rules->filled && storable && size > 1024 && looks_random(frequencies, size)) {
        blocks_write_stored(blocks, data, size);
        return;
    }
    frequencies[GO_END_OF_BLOCK] = 1;
    go_build_code(blocks->spare_literals, frequencies, literal_count, 15, blocks->rules->builder);
    uint64_t cost = go_code_cost(blocks->spare_literals, frequencies, literal_count);
    cost += blocks->open_header > 0 ? blocks->open_header : HEADER_GUESS;
    cost += cost >> blocks->penalty;
    if (storable && ((uint64_t)size + 5) * 8 <= cost) {
        blocks_write_stored(blocks, data, size);
        return;
    }
    if (blocks->open_header > 0 && (!has_codes(blocks->literals, frequencies, 256) ||
                                    cost < go_code_cost(blocks->literals, frequencies, 256)))
        end_block(blocks);
    if (blocks->open_header == 0) {
        go_code *codes = blocks->spare_literals;
        blocks->spare_literals = blocks->literals;
        blocks->literals = codes;
        go_prepare_header(&blocks->header, codes, literal_count, one_offset, 1, blocks->rules->builder);
        go_write_header(&blocks->bits, &blocks->header, literal_count, 1, 0);
        blocks->literals_only = 1;
        blocks->open_header = blocks->header.size;
    }
    go_write_literals(&blocks->bits, data, size, blocks->literals);
    if (sync) {
        end_block(blocks);
        blocks->literals_only = 0;
    }
}
