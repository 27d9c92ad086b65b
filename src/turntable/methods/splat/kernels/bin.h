/* Binning: for each tile, the splats that touch it, front to back.
 *
 * Each splat's tiles are found once and kept (slot_tile); its gradients come back in the same slots, so that they
 * are summed in an order that no thread can change. */
#ifndef SPLAT_BIN_H
#define SPLAT_BIN_H

#include "state.h"

/* Columns [left, right] that the ellipse of alpha = 1/255 reaches between two pixel rows, relative to its
 * centre. It is widest where its tangent is vertical, at dy = ±(xy/xx of the covariance) times its half width. */
static void widths(const splat *s, float reach, float low, float high, float *left, float *right) {
    float determinant = s->a * s->c - s->b * s->b;
    float half = sqrtf(reach * s->c / determinant); /* covariance xx is c / determinant */
    float lean = -s->b / s->c * half;
    float at = lean < low ? low : lean > high ? high : lean;
    float under = (s->b * at) * (s->b * at) - s->a * (s->c * at * at - reach);
    *right = (-s->b * at + sqrtf(under > 0 ? under : 0)) / s->a;
    at = -lean < low ? low : -lean > high ? high : -lean;
    under = (s->b * at) * (s->b * at) - s->a * (s->c * at * at - reach);
    *left = (-s->b * at - sqrtf(under > 0 ? under : 0)) / s->a;
}

static void touch_block(void *argument, int block) {
    context *c = argument;
    int32_t first = block * BLOCK, end = first + BLOCK < c->count ? first + BLOCK : c->count;
    for (int32_t g = first; g < end; g++) {
        int32_t bound = c->tile_bound[g];
        if (!bound) continue;
        const splat *s = &c->splats[g];
        const int32_t *r = c->tile_rectangle[g];
        int32_t *tiles = c->slot_tile + c->slot_first[g], found = 0;
        float reach = (s->top - LOG2_ALPHA_LEAST) * (2.0f / LOG2E);
        for (int32_t ty = r[2]; ty <= r[3]; ty++) {
            int32_t from = r[0], to = r[1];
            if (r[3] > r[2] && r[1] > r[0]) {
                float left, right;
                widths(s, reach, (float)(ty * TILE) + 0.5f - s->y, (float)(ty * TILE + TILE) - 0.5f - s->y, &left,
                       &right);
                if (left <= right) { /* with a hundredth of a pixel for rounding */
                    int32_t l = tile_of(s->x + left - 0.51f, c->tiles_x);
                    int32_t m = tile_of(s->x + right - 0.49f, c->tiles_x);
                    if (l > from) from = l;
                    if (m < to) to = m;
                }
            }
            for (int32_t tx = from; tx <= to; tx++) tiles[found++] = ty * c->tiles_x + tx;
        }
        c->tiles_touched[g] = found;
    }
}

static void radix_sort(context *c, int32_t n) { /* by key, ascending; equal keys keep their order */
    for (int shift = 0; shift < 33; shift += 11) {
        uint32_t starts[2048] = {0}, sum = 0;
        for (int32_t i = 0; i < n; i++) starts[(c->keys[i] >> shift) & 2047]++;
        for (int i = 0; i < 2048; i++) {
            uint32_t here = starts[i];
            starts[i] = sum;
            sum += here;
        }
        for (int32_t i = 0; i < n; i++) {
            uint32_t to = starts[(c->keys[i] >> shift) & 2047]++;
            c->keys_spare[to] = c->keys[i];
            c->order_spare[to] = c->order[i];
        }
        uint32_t *keys = c->keys;
        c->keys = c->keys_spare, c->keys_spare = keys;
        int32_t *order = c->order;
        c->order = c->order_spare, c->order_spare = order;
    }
}

INLINE void chunk_range(const context *c, int chunk, int32_t *first, int32_t *end) {
    *first = (int32_t)((int64_t)c->visible * chunk / CHUNKS);
    *end = (int32_t)((int64_t)c->visible * (chunk + 1) / CHUNKS);
}

static void count_chunk(void *argument, int chunk) {
    context *c = argument;
    int32_t tiles = c->tiles_x * c->tiles_y, first, end;
    int32_t *counts = c->chunk_counts + (size_t)chunk * tiles;
    memset(counts, 0, (size_t)tiles * sizeof *counts);
    chunk_range(c, chunk, &first, &end);
    for (int32_t i = first; i < end; i++) {
        int32_t g = c->order[i];
        const int32_t *touched = c->slot_tile + c->slot_first[g];
        for (int32_t k = 0; k < c->tiles_touched[g]; k++) counts[touched[k]]++;
    }
}

static void place_chunk(void *argument, int chunk) {
    context *c = argument;
    int32_t tiles = c->tiles_x * c->tiles_y, first, end;
    int32_t *next = c->chunk_counts + (size_t)chunk * tiles;
    chunk_range(c, chunk, &first, &end);
    for (int32_t i = first; i < end; i++) {
        int32_t g = c->order[i], slot = (int32_t)c->slot_first[g];
        for (int32_t k = 0; k < c->tiles_touched[g]; k++, slot++) {
            int32_t tile = c->slot_tile[slot];
            entry *e = &c->entries[c->tile_first[tile] + next[tile]++];
            e->splat = g;
            e->slot = slot;
        }
    }
}

/* 1, or 0 where memory ran out. */
static int bin(context *c) {
    int32_t visible = 0;
    int64_t bound = 0;
    for (int32_t g = 0; g < c->count; g++) {
        c->slot_first[g] = bound;
        bound += c->tile_bound[g];
        if (!c->tile_bound[g]) continue;
        memcpy(&c->keys[visible], &c->splats[g].depth, 4); /* positive floats sort as their bits do */
        c->order[visible++] = g;
    }
    c->slot_first[c->count] = bound;
    c->visible = visible;
    if (bound > INT32_MAX) return 0;
    if ((size_t)bound > c->pair_capacity) {
        size_t capacity = (size_t)bound + (size_t)bound / 4;
        c->pair_capacity = 0;
        if (!RESERVE(c->slot_tile, capacity) || !RESERVE(c->entries, capacity) ||
            !RESERVE(c->pair_gradients, capacity * PAIR_FLOATS))
            return 0;
        c->pair_capacity = capacity;
    }
    pool_run(&c->pool, touch_block, c, (c->count + BLOCK - 1) / BLOCK);
    radix_sort(c, visible);
    pool_run(&c->pool, count_chunk, c, CHUNKS);
    int32_t tiles = c->tiles_x * c->tiles_y;
    int64_t sum = 0;
    for (int32_t tile = 0; tile < tiles; tile++) {
        c->tile_first[tile] = sum;
        int32_t inside = 0;
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            int32_t *count = &c->chunk_counts[(size_t)chunk * tiles + tile], here = *count;
            *count = inside;
            inside += here;
        }
        sum += inside;
    }
    c->tile_first[tiles] = sum;
    c->pairs = sum;
    pool_run(&c->pool, place_chunk, c, CHUNKS);
    return 1;
}

#endif
