/* Rasterisation of one tile, forward and backward; a lane is a pixel of a tile's row.
 *
 * Forward: C = Σ colour_i alpha_i T_i + T background, T_i the product of (1 - alpha_j) of what lies before i.
 * A splat counts at a pixel where alpha ≥ 1/255 and T_i > 1e-4; alpha is at most 0.99.
 * Backward, front to back again: with g = dL/dC, d L/d alpha_i = T_i colour_i·g - rest / (1 - alpha_i), where the
 * scalar rest is C·g less the share of i and of all before it. */
#ifndef SPLAT_RASTER_H
#define SPLAT_RASTER_H

#include "state.h"

#define CHECK_EVERY 8 /* splats between two looks at whether the tile is opaque: a look costs about one splat */

INLINE vi alpha_of(const splat *s, vf dx, float across, float along, vf transmittance, vf *alpha, vi *free) {
    vf q = (dx * s->xx + across) * dx + along;
    vi counts = (vi)(q >= LOG2_ALPHA_LEAST) & (vi)(transmittance > TRANSMITTANCE_LEAST);
    vf value = exp2_fast(smaller(larger(q, all(-100.0f)), all(0)));
    *free = (vi)(value < ALPHA_MOST);
    *alpha = keep(counts, smaller(value, all(ALPHA_MOST)));
    return counts;
}

static void columns_of(vf columns[ROW], int32_t tile_x) {
    for (int j = 0; j < ROW; j++)
        for (int i = 0; i < LANES; i++) columns[j][i] = (float)(tile_x * TILE + j * LANES + i) + 0.5f;
}

/* Whether a row's parabola of log2 alpha reaches 1/255 between two columns (dx): 0 is certain, 1 may be wrong. */
INLINE int reaches(const splat *s, float across, float along, float low, float high) {
    float top = across * s->flat, at = top < low ? low : top > high ? high : top;
    return (at * s->xx + across) * at + along >= LOG2_ALPHA_LEAST - 1e-3f;
}

INLINE int opaque(vf transmittance[TILE][ROW]) {
    vf most = transmittance[0][0];
    for (int row = 0; row < TILE; row++)
        for (int j = 0; j < ROW; j++) most = larger(most, transmittance[row][j]);
    for (int i = 0; i < LANES; i++)
        if (most[i] > TRANSMITTANCE_LEAST) return 0;
    return 1;
}

static void clear_outside(const context *c, int32_t ty, int32_t tx, vf transmittance[TILE][ROW]) {
    for (int row = 0; row < TILE; row++)
        for (int j = 0; j < ROW; j++)
            for (int i = 0; i < LANES; i++)
                if (ty * TILE + row >= c->view.height || tx * TILE + j * LANES + i >= c->view.width)
                    transmittance[row][j][i] = 0;
}

/* Splats lie anywhere in memory: asked for 8 pairs ahead, they come in time (backward: 29 to 24 ms). */
INLINE void fetch_ahead(const context *c, const entry *entries, int32_t k, int32_t count) {
    if (k + 8 < count) __builtin_prefetch(&c->splats[entries[k + 8].splat]);
}

INLINE void rows_in(const splat *s, int32_t ty, int32_t *first, int32_t *last) {
    *first = s->row_first - ty * TILE > 0 ? s->row_first - ty * TILE : 0;
    *last = s->row_last - ty * TILE < TILE - 1 ? s->row_last - ty * TILE : TILE - 1;
}

INLINE void forward_tile(context *c, int tile, int with_depth) {
    int32_t ty = tile / c->tiles_x, tx = tile % c->tiles_x;
    vf red[TILE][ROW], green[TILE][ROW], blue[TILE][ROW], depth[TILE][ROW], left[TILE][ROW], columns[ROW];
    for (int row = 0; row < TILE; row++)
        for (int j = 0; j < ROW; j++) {
            red[row][j] = green[row][j] = blue[row][j] = depth[row][j] = all(0);
            left[row][j] = all(1);
        }
    clear_outside(c, ty, tx, left);
    columns_of(columns, tx);
    const entry *entries = c->entries + c->tile_first[tile];
    int32_t count = (int32_t)(c->tile_first[tile + 1] - c->tile_first[tile]), k;
    for (k = 0; k < count; k++) {
        if (k % CHECK_EVERY == 0 && k && opaque(left)) break;
        fetch_ahead(c, entries, k, count);
        const splat *s = &c->splats[entries[k].splat];
        int32_t first, last;
        rows_in(s, ty, &first, &last);
        vf dx[ROW];
        for (int j = 0; j < ROW; j++) dx[j] = columns[j] - s->x;
        for (int32_t row = first; row <= last; row++) {
            float dy = (float)(ty * TILE + row) + 0.5f - s->y;
            float across = s->xy * dy, along = s->yy * dy * dy + s->top;
            for (int j = 0; j < ROW; j++) {
                if (!reaches(s, across, along, dx[j][0], dx[j][LANES - 1])) continue;
                vf alpha;
                vi free;
                alpha_of(s, dx[j], across, along, left[row][j], &alpha, &free);
                vf weight = alpha * left[row][j];
                left[row][j] -= weight;
                red[row][j] += weight * s->red;
                green[row][j] += weight * s->green;
                blue[row][j] += weight * s->blue;
                if (with_depth) depth[row][j] += weight * s->depth;
            }
        }
    }
    c->tile_last[tile] = k;
    const float *background = c->view.background;
    size_t size = plane(c);
    for (int row = 0; row < TILE; row++)
        for (int j = 0; j < ROW; j++) {
            size_t at = (size_t)(ty * TILE + row) * (size_t)c->padded_width + (size_t)(tx * TILE + j * LANES);
            store(c->image + at, red[row][j] + left[row][j] * background[0]);
            store(c->image + size + at, green[row][j] + left[row][j] * background[1]);
            store(c->image + 2 * size + at, blue[row][j] + left[row][j] * background[2]);
            if (with_depth) {
                store(c->depth + at, depth[row][j]);
                store(c->transmittance + at, left[row][j]);
            }
        }
}

static void forward_plain(void *argument, int tile) { forward_tile(argument, tile, 0); }
static void forward_with_depth(void *argument, int tile) { forward_tile(argument, tile, 1); }

static void backward_tile(void *argument, int tile) {
    context *c = argument;
    int32_t ty = tile / c->tiles_x, tx = tile % c->tiles_x;
    vf red[TILE][ROW], green[TILE][ROW], blue[TILE][ROW], rest[TILE][ROW], left[TILE][ROW], columns[ROW];
    size_t size = plane(c);
    for (int row = 0; row < TILE; row++)
        for (int j = 0; j < ROW; j++) {
            size_t at = (size_t)(ty * TILE + row) * (size_t)c->padded_width + (size_t)(tx * TILE + j * LANES);
            red[row][j] = load(c->gradient + at);
            green[row][j] = load(c->gradient + size + at);
            blue[row][j] = load(c->gradient + 2 * size + at);
            rest[row][j] = red[row][j] * load(c->image + at) + green[row][j] * load(c->image + size + at) +
                           blue[row][j] * load(c->image + 2 * size + at);
            left[row][j] = all(1);
        }
    clear_outside(c, ty, tx, left);
    columns_of(columns, tx);
    const entry *entries = c->entries + c->tile_first[tile];
    int32_t count = (int32_t)(c->tile_first[tile + 1] - c->tile_first[tile]), k;
    for (k = 0; k < c->tile_last[tile]; k++) {
        fetch_ahead(c, entries, k, count);
        const splat *s = &c->splats[entries[k].splat];
        int32_t first, last;
        rows_in(s, ty, &first, &last);
        vf dx[ROW], power[ROW], power_y[ROW], power_yy[ROW], to_red[ROW], to_green[ROW], to_blue[ROW];
        for (int j = 0; j < ROW; j++) {
            dx[j] = columns[j] - s->x;
            power[j] = power_y[j] = power_yy[j] = to_red[j] = to_green[j] = to_blue[j] = all(0);
        }
        for (int32_t row = first; row <= last; row++) {
            float dy = (float)(ty * TILE + row) + 0.5f - s->y;
            float across = s->xy * dy, along = s->yy * dy * dy + s->top;
            for (int j = 0; j < ROW; j++) {
                if (!reaches(s, across, along, dx[j][0], dx[j][LANES - 1])) continue;
                vf alpha, T = left[row][j];
                vi free;
                alpha_of(s, dx[j], across, along, T, &alpha, &free);
                vf weight = alpha * T;
                left[row][j] = T - weight;
                vf shade = s->red * red[row][j] + s->green * green[row][j] + s->blue * blue[row][j];
                rest[row][j] -= weight * shade;
                to_red[j] += weight * red[row][j];
                to_green[j] += weight * green[row][j];
                to_blue[j] += weight * blue[row][j];
                /* d alpha / d power is alpha, unless alpha was held at 0.99 */
                vf slope = keep(free, weight * shade - alpha * rest[row][j] / (1.0f - alpha));
                power[j] += slope;
                power_y[j] += slope * dy;
                power_yy[j] += slope * (dy * dy);
            }
        }
        vf x = all(0), xx = all(0), xy = all(0), sum = all(0), y = all(0), yy = all(0);
        vf r = all(0), g = all(0), b = all(0);
        for (int j = 0; j < ROW; j++) {
            vf first_moment = power[j] * dx[j];
            sum += power[j], x += first_moment, xx += first_moment * dx[j];
            y += power_y[j], xy += power_y[j] * dx[j], yy += power_yy[j];
            r += to_red[j], g += to_green[j], b += to_blue[j];
        }
        float *to = c->pair_gradients + (size_t)entries[k].slot * PAIR_FLOATS;
        v4 one = totals(sum, x, y, xx), two = totals(xy, yy, r, g), three = {total(b), 0, 0, 0};
        memcpy(to, &one, 16);
        memcpy(to + 4, &two, 16);
        memcpy(to + 8, &three, 16);
    }
    for (; k < count; k++) memset(c->pair_gradients + (size_t)entries[k].slot * PAIR_FLOATS, 0, PAIR_FLOATS * 4);
}

#endif
