/* Binning: for each tile, the splats that touch it, front to back.
 *
 * Splats are sorted by depth once, then dealt out to tiles in that order: both are counting sorts that keep the order
 * of equals, done piece by piece, so neither pieces nor threads can change the outcome. A splat's gradients come
 * back in the slots of its tiles and are summed in an order that no thread can change. */
#ifndef SPLAT_BIN_H
#define SPLAT_BIN_H

#include "state.h"

typedef struct {
    context *context;
    uint32_t nearest;
    int shift; /* of depths' bits, so that 22 are left: over 16 octaves of depth they tell 4 in a million apart */
    int pass;
} sort_work;

INLINE void piece_of(const context *c, int32_t of, int chunk, int32_t *first, int32_t *end) {
    *first = (int32_t)((int64_t)of * chunk / c->chunks);
    *end = (int32_t)((int64_t)of * (chunk + 1) / c->chunks);
}

/* From where projection left them, block by block, to one after the other. */
static void gather_keys(void *argument, int block, int thread) {
    (void)thread;
    const sort_work *work = argument;
    context *c = work->context;
    const uint64_t *from = c->order_spare + (size_t)block * BLOCK;
    int32_t first = c->block_visible[block], end = c->block_visible[block + 1];
    for (int32_t i = first; i < end; i++) {
        uint64_t item = from[i - first], key = ((item >> 32) - work->nearest) >> work->shift;
        c->order[i] = key << 32 | (uint32_t)item;
    }
}

INLINE int digit_of(const sort_work *work, uint64_t item) { return (int)(item >> (32 + 11 * work->pass)) & (DIGITS - 1); }

static void count_digits(void *argument, int chunk, int thread) {
    (void)thread;
    const sort_work *work = argument;
    context *c = work->context;
    int32_t *counts = c->digit_counts + chunk * DIGITS, first, end;
    memset(counts, 0, DIGITS * sizeof *counts);
    piece_of(c, c->visible, chunk, &first, &end);
    for (int32_t i = first; i < end; i++) counts[digit_of(work, c->order[i])]++;
}

static void move_by_digit(void *argument, int chunk, int thread) {
    (void)thread;
    const sort_work *work = argument;
    context *c = work->context;
    int32_t *next = c->digit_counts + chunk * DIGITS, first, end;
    piece_of(c, c->visible, chunk, &first, &end);
    for (int32_t i = first; i < end; i++) c->order_spare[next[digit_of(work, c->order[i])]++] = c->order[i];
}

static void sort_by_depth(context *c, sort_work *work) {
    for (work->pass = 0; work->pass < 2; work->pass++) {
        pool_run(&c->pool, count_digits, work, c->chunks);
        int32_t sum = 0;
        for (int digit = 0; digit < DIGITS; digit++)
            for (int chunk = 0; chunk < c->chunks; chunk++) {
                int32_t *count = &c->digit_counts[chunk * DIGITS + digit], here = *count;
                *count = sum;
                sum += here;
            }
        pool_run(&c->pool, move_by_digit, work, c->chunks);
        uint64_t *order = c->order;
        c->order = c->order_spare, c->order_spare = order;
    }
}

/* A splat's tiles lie anywhere in memory: asked for 8 splats ahead, they come in time. */
INLINE const touch *tiles_of(const context *c, int32_t i, int32_t end, int32_t *count, int32_t *slot, int32_t *g) {
    if (i + 16 < end) __builtin_prefetch(&c->spans[(uint32_t)c->order[i + 16]]);
    if (i + 8 < end) __builtin_prefetch(&c->touches[c->spans[(uint32_t)c->order[i + 8]].first]);
    *g = (int32_t)(uint32_t)c->order[i];
    *count = c->spans[*g].count;
    *slot = c->spans[*g].first;
    return c->touches + *slot;
}

static void count_chunk(void *argument, int chunk, int thread) {
    (void)thread;
    context *c = argument;
    int32_t tiles = c->tiles_x * c->tiles_y, first, end, count, slot, g;
    int32_t *counts = c->chunk_counts + (size_t)chunk * (size_t)tiles;
    memset(counts, 0, (size_t)tiles * sizeof *counts);
    piece_of(c, c->visible, chunk, &first, &end);
    for (int32_t i = first; i < end; i++) {
        const touch *touches = tiles_of(c, i, end, &count, &slot, &g);
        for (int32_t k = 0; k < count; k++) counts[touches[k].tile]++;
    }
}

static void place_chunk(void *argument, int chunk, int thread) {
    (void)thread;
    context *c = argument;
    int32_t tiles = c->tiles_x * c->tiles_y, first, end, count, slot, g;
    int32_t *next = c->chunk_counts + (size_t)chunk * (size_t)tiles;
    piece_of(c, c->visible, chunk, &first, &end);
    for (int32_t i = first; i < end; i++) {
        const touch *touches = tiles_of(c, i, end, &count, &slot, &g);
        for (int32_t k = 0; k < count; k++) {
            const touch *t = &touches[k];
            entry *to = &c->entries[c->tile_first[t->tile] + next[t->tile]++];
            __builtin_prefetch(to + 8, 1); /* hundreds of places written to in turn: no processor foresees them */
            *to = (entry){g, slot + k, t->first, t->last};
        }
    }
}

static void bin(context *c) {
    int32_t blocks = (c->count + BLOCK - 1) / BLOCK, visible = 0;
    uint32_t nearest = UINT32_MAX, farthest = 0;
    for (int32_t block = 0; block < blocks; block++) {
        int32_t here = c->block_visible[block];
        c->block_visible[block] = visible;
        visible += here;
        if (c->block_nearest[block] < nearest) nearest = c->block_nearest[block];
        if (c->block_farthest[block] > farthest) farthest = c->block_farthest[block];
    }
    c->block_visible[blocks] = visible;
    c->visible = visible;
    sort_work work = {c, nearest, 0, 0};
    while (visible && (farthest - nearest) >> work.shift >= (uint32_t)DIGITS * DIGITS) work.shift++;
    pool_run(&c->pool, gather_keys, &work, blocks);
    sort_by_depth(c, &work);
    pool_run(&c->pool, count_chunk, c, c->chunks);
    int32_t tiles = c->tiles_x * c->tiles_y;
    int64_t sum = 0;
    for (int32_t tile = 0; tile < tiles; tile++) {
        c->tile_first[tile] = sum;
        int32_t inside = 0;
        for (int chunk = 0; chunk < c->chunks; chunk++) {
            int32_t *count = &c->chunk_counts[(size_t)chunk * (size_t)tiles + (size_t)tile], here = *count;
            *count = inside;
            inside += here;
        }
        sum += inside;
    }
    c->tile_first[tiles] = sum;
    c->pairs = sum;
    pool_run(&c->pool, place_chunk, c, c->chunks);
}

#endif
