/* Huffman codes as Go's compress/flate and klauspost/compress build them: package-merge with one rule for ties. */
#ifndef LAYERSTORE_GO_HUFFMAN_H
#define LAYERSTORE_GO_HUFFMAN_H

#include <stdint.h>

#include "go_bits.h"

enum {
    GO_LITERALS = 286, /* literals, the end of a block, length codes */
    GO_OFFSETS = 30,
    GO_END_OF_BLOCK = 256,
    GO_LENGTH_CODES = 257, /* the first of them */
    GO_SIZE_CODES = 19, /* the code that code lengths are written in */
    GO_BLOCK_STORED_MAX = 65535,
};

/* A code word: its length in the low 8 bits (0: the symbol has none), above it the word as it is written. */
typedef uint32_t go_code;

static inline unsigned go_code_length(go_code code) { return code & 0xff; }

/* How the longest code words come about. The two give codes of the same cost, not always the same code. */
typedef enum {
    GO_PACKAGE_MERGE,
    GO_TREE_FIRST, /* a plain Huffman tree, unless that is too deep */
} go_code_builder;

void go_build_code(go_code *codes, const uint32_t *frequencies, int symbols, int length_max, go_code_builder builder);

extern const uint8_t go_length_extra_bits[29];
extern const uint8_t go_length_codes[256];   /* of the length less 3 */
extern const uint16_t go_length_bases[29];   /* less 3 */
extern const uint8_t go_offset_extra_bits[30];
extern const uint16_t go_offset_bases[30];   /* less 1 */
extern const uint8_t go_offset_codes[512];   /* of the offset less 1 when that is below 256; else 256 + its bits above the 7th */

static inline unsigned go_offset_code(uint32_t offset_less_1) {
    return go_offset_codes[offset_less_1 < 256 ? offset_less_1 : 256 + (offset_less_1 >> 7)];
}

const go_code *go_fixed_literals(void);
const go_code *go_fixed_offsets(void);

/* Cost in bits of the symbols whose frequencies are given. */
uint64_t go_code_cost(const go_code *codes, const uint32_t *frequencies, int symbols);

/* The two lists of code lengths at the head of a dynamic block, run-length coded (RFC 1951, 3.2.7). */
typedef struct {
    uint8_t items[GO_LITERALS + GO_OFFSETS + 1]; /* a symbol 0-18; 16-18 are followed by their count */
    int count;
    uint32_t frequencies[GO_SIZE_CODES];
    go_code codes[GO_SIZE_CODES];
    int codes_written;
    uint32_t size; /* of the whole header in bits */
} go_dynamic_header;

void go_prepare_header(go_dynamic_header *header, const go_code *literals, int literal_count, const go_code *offsets,
                       int offset_count, go_code_builder builder);
void go_write_header(bit_writer *bits, const go_dynamic_header *header, int literal_count, int offset_count, int last);

/* Tokens: a literal is its byte; a match has GO_MATCH set, the length less 3 in bits 21-28, the offset's code in bits
 * 16-20 and the offset less 1 in bits 0-15; GO_END_OF_BLOCK is itself. */
#define GO_MATCH 0x80000000u

static inline uint32_t go_match_token(uint32_t length, uint32_t offset) {
    return GO_MATCH | (length - 3) << 21 | go_offset_code(offset - 1) << 16 | (offset - 1);
}

static inline unsigned go_token_length(uint32_t token) { return token >> 21 & 0xff; }
static inline unsigned go_token_offset_code(uint32_t token) { return token >> 16 & 31; }

void go_write_tokens(bit_writer *bits, const uint32_t *tokens, size_t count, const go_code *literals,
                     const go_code *offsets);

/* A byte string as literals. */
void go_write_literals(bit_writer *bits, const uint8_t *data, size_t size, const go_code *literals);

#endif
