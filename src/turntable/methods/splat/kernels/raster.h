/* Rasterisation of one tile, forward and backward; a lane is a pixel of a tile's row.
 *
 * Forward: C = Σ colour_i alpha_i T_i + T background, T_i the product of (1 - alpha_j) of what lies before i.
 * A splat counts at a pixel where alpha ≥ 1/255 and T_i > 1e-4; alpha is at most the opacity, and that 0.99.
 * Backward, front to back again: with g = dL/dC, d L/d alpha_i = T_i colour_i·g - rest / (1 - alpha_i), where the
 * scalar rest is C·g less the share of i and of all before it.
 *
 * Down a column of pixels the exponent is a parabola, so alpha needs two products a row instead of an exponential:
 * alpha(y+1) = alpha(y) ratio(y) and ratio(y+1) = ratio(y) decay. */
#ifndef SPLAT_RASTER_H
#define SPLAT_RASTER_H

#include "state.h"

#define BATCH 16 /* splats begun together; after them a look, about as dear as one splat, whether the tile is opaque */
#define STRETCH 24 /* rows after which an exponential is taken afresh: on fox products change a pixel by 2e-6 */
#define STEEPEST 100.0f /* powers of two that alpha may rise by in a stretch; what is steeper leaves float's range */
#define CANCELLING 340.0f /* greatest terms of the change from row to row: 24 roundings of these stay below 1e-3 */

/* One splat's alpha in a row of a tile, and what takes it to the next row. */
typedef struct {
    vf alpha[ROW], ratio[ROW];
} slope;

/* Whether rows from dy on, `rows` of them, can be walked by products: nowhere does alpha rise out of nothing, and no
 * great terms cancel, so that alpha can't pass 0.991. */
INLINE int is_gentle(const splat *s, const vf dx[ROW], float dy, int32_t rows) {
    float down = s->yy * (2.0f * dy + 1.0f);
    float left = s->xy * dx[0][0] + down, right = s->xy * dx[ROW - 1][LANES - 1] + down;
    float widest = fabsf(dx[0][0]) > fabsf(dx[ROW - 1][LANES - 1]) ? fabsf(dx[0][0]) : fabsf(dx[ROW - 1][LANES - 1]);
    return (float)(rows - 1) * (left > right ? left : right) <= STEEPEST &&
           fabsf(s->xy) * widest + fabsf(down) <= CANCELLING;
}

INLINE void begin_slope(const splat *s, const vf dx[ROW], float dy, slope *p) {
    float along = s->yy * dy * dy + s->top, across = s->xy * dy, down = s->yy * (2.0f * dy + 1.0f);
    for (int j = 0; j < ROW; j++) {
        vf power = (dx[j] * s->xx + across) * dx[j] + along, change = dx[j] * s->xy + down;
        p->alpha[j] = exp2_of(smaller(larger(power, all(-126.0f)), all(s->top))); /* rounding must not add light */
        p->ratio[j] = exp2_of(smaller(larger(change, all(-126.0f)), all(126.0f)));
    }
}

INLINE void next_row(const splat *s, slope *p) {
    for (int j = 0; j < ROW; j++) {
        p->alpha[j] *= p->ratio[j];
        p->ratio[j] *= s->decay;
    }
}

/* alpha as it counts: 0 below 1/255 and where no light is left. */
INLINE vf counted(vf alpha, vf left) {
    vi counts = (vi)(alpha >= ALPHA_LEAST) & (vi)(left > TRANSMITTANCE_LEAST);
    return keep(counts, alpha);
}

static void columns_of(vf columns[ROW], int32_t tile_x) {
    for (int j = 0; j < ROW; j++)
        for (int i = 0; i < LANES; i++) columns[j][i] = (float)(tile_x * TILE_X + j * LANES + i) + 0.5f;
}

/* How far right of a splat's centre the columns lie, px. */
INLINE void from_centre(const splat *s, const vf columns[ROW], vf dx[ROW]) {
    for (int j = 0; j < ROW; j++) dx[j] = columns[j] - s->x;
}

INLINE int opaque(vf transmittance[TILE_Y][ROW]) { /* which the first rows mostly answer */
    for (int from = 0; from < TILE_Y; from += 8) {
        vf most = transmittance[from][0];
        for (int row = from; row < from + 8; row++)
            for (int j = 0; j < ROW; j++) most = larger(most, transmittance[row][j]);
        for (int i = 0; i < LANES; i++)
            if (most[i] > TRANSMITTANCE_LEAST) return 0;
    }
    return 1;
}

static void clear_outside(const context *c, int32_t ty, int32_t tx, vf transmittance[TILE_Y][ROW]) {
    if ((ty + 1) * TILE_Y <= c->view.height && (tx + 1) * TILE_X <= c->view.width) return;
    for (int row = 0; row < TILE_Y; row++)
        for (int j = 0; j < ROW; j++)
            for (int i = 0; i < LANES; i++)
                if (ty * TILE_Y + row >= c->view.height || tx * TILE_X + j * LANES + i >= c->view.width)
                    transmittance[row][j][i] = 0;
}

/* Where a splat enters a tile. From its address to its first alpha a hundred cycles pass, most of them waiting: so a
 * batch is begun before the first of it is walked down. */
typedef struct {
    slope slope;
    float dy;       /* of the first row */
    int32_t stop;   /* the first stretch's end */
    int32_t gentle; /* whether it can be walked by products */
} entrance;

/* A stretch from `row` on: where it ends, whether it is gentle, and its first row. */
INLINE void enter(const splat *s, const vf dx[ROW], int32_t row, int32_t last, float dy, entrance *to) {
    to->dy = dy;
    to->stop = row + STRETCH <= last + 1 ? row + STRETCH : last + 1;
    to->gentle = is_gentle(s, dx, dy, to->stop - row);
    begin_slope(s, dx, dy, &to->slope);
}

/* Splats lie anywhere in memory: asked for a batch ahead, they come in time. So do the places of their gradients, and a
 * store that waits for its line holds up all stores after it. */
INLINE void fetch_entry(const context *c, const entry *e, int backward) {
    __builtin_prefetch(&c->splats[e->splat]);
    if (!backward) return;
    const float *place = c->pair_gradients + (size_t)e->slot * PAIR_FLOATS;
    __builtin_prefetch(place, 1);
    __builtin_prefetch(place + PAIR_FLOATS - 1, 1); /* it may begin in one line and end in the next */
}

/* Begins a batch of a tile's `count` splats, from number k on; where it ends. */
INLINE int32_t enter_batch(const context *c, const entry *entries, int32_t k, int32_t count, int32_t ty,
                           const vf columns[ROW], entrance to[BATCH], int backward) {
    int32_t end = k + BATCH < count ? k + BATCH : count;
    for (int32_t i = k ? end : 0; i < end; i++) fetch_entry(c, &entries[i], backward); /* nobody asked for the first */
    for (int32_t i = k; i < end; i++) {
        if (i + BATCH < count) fetch_entry(c, &entries[i + BATCH], backward);
        const splat *s = &c->splats[entries[i].splat];
        vf dx[ROW];
        from_centre(s, columns, dx);
        float dy = (float)(ty * TILE_Y + entries[i].first) + 0.5f - s->y;
        enter(s, dx, entries[i].first, entries[i].last, dy, &to[i - k]);
    }
    return end;
}

typedef struct { /* one row of a tile while it is rendered */
    vf red[ROW], green[ROW], blue[ROW];
} shown_row;

INLINE void lay_on(const splat *s, const slope *p, shown_row *to, vf left[ROW], vf depth[ROW], int with_depth) {
    for (int j = 0; j < ROW; j++) {
        vf weight = counted(p->alpha[j], left[j]) * left[j];
        left[j] -= weight;
        to->red[j] += weight * s->red;
        to->green[j] += weight * s->green;
        to->blue[j] += weight * s->blue;
        if (with_depth) depth[j] += weight * s->depth;
    }
}

INLINE void forward_tile(context *c, int tile, int with_depth) {
    int32_t ty = tile / c->tiles_x, tx = tile % c->tiles_x;
    shown_row rows[TILE_Y];
    vf left[TILE_Y][ROW], depth[TILE_Y][ROW], columns[ROW];
    memset(rows, 0, sizeof rows);
    memset(depth, 0, sizeof depth);
    for (int row = 0; row < TILE_Y; row++)
        for (int j = 0; j < ROW; j++) left[row][j] = all(1);
    clear_outside(c, ty, tx, left);
    columns_of(columns, tx);
    const entry *entries = c->entries + c->tile_first[tile];
    int32_t count = (int32_t)(c->tile_first[tile + 1] - c->tile_first[tile]), k, end;
    for (k = 0; k < count && !(k && opaque(left)); k = end) {
        entrance entrances[BATCH];
        end = enter_batch(c, entries, k, count, ty, columns, entrances, 0);
        for (int32_t i = k; i < end; i++) {
            const splat *s = &c->splats[entries[i].splat];
            entrance *e = &entrances[i - k];
            for (int32_t row = entries[i].first, last = entries[i].last;;) {
                slope p = e->slope;
                float dy = e->dy;
                int32_t stop = e->stop;
                if (e->gentle) {
                    dy += (float)(stop - row);
                    for (; row < stop; row++, next_row(s, &p)) lay_on(s, &p, &rows[row], left[row], depth[row], with_depth);
                    if (row > last) break;
                }
                vf dx[ROW];
                from_centre(s, columns, dx);
                for (; row < stop; row++) {
                    lay_on(s, &p, &rows[row], left[row], depth[row], with_depth);
                    dy += 1.0f;
                    begin_slope(s, dx, dy, &p);
                }
                if (row > last) break;
                enter(s, dx, row, last, dy, e);
            }
        }
    }
    c->tile_last[tile] = k;
    const float *background = c->view.background;
    size_t size = plane(c);
    for (int row = 0; row < TILE_Y; row++)
        for (int j = 0; j < ROW; j++) {
            size_t at = (size_t)(ty * TILE_Y + row) * (size_t)c->padded_width + (size_t)(tx * TILE_X + j * LANES);
            store(c->image + at, rows[row].red[j] + left[row][j] * background[0]);
            store(c->image + size + at, rows[row].green[j] + left[row][j] * background[1]);
            store(c->image + 2 * size + at, rows[row].blue[j] + left[row][j] * background[2]);
            if (with_depth) {
                store(c->depth + at, depth[row][j]);
                store(c->transmittance + at, left[row][j]);
            }
        }
}

static void forward_plain(void *argument, int tile, int thread) {
    (void)thread;
    forward_tile(argument, tile, 0);
}

static void forward_with_depth(void *argument, int tile, int thread) {
    (void)thread;
    forward_tile(argument, tile, 1);
}

typedef struct { /* one row of a tile on the way back: light left, what still lies behind, the image's gradient */
    vf left[ROW], rest[ROW], red[ROW], green[ROW], blue[ROW];
} graded_row;

/* Sums over a splat's pixels in a tile, each lane its own column. With p the power's gradient and m = 1 in the last row,
 * 2 in the one before …: once is the sum of p, twice that of m p and thrice that of m (m + 1) / 2 p, since what was
 * summed up to a row is summed again in each row after it. Two additions a row give both moments. */
typedef struct {
    vf once[ROW], twice[ROW], thrice[ROW], red[ROW], green[ROW], blue[ROW];
} share;

INLINE void take_share(const splat *s, const slope *p, graded_row *row, share *sum) {
    for (int j = 0; j < ROW; j++) {
        vf alpha = counted(p->alpha[j], row->left[j]), weight = alpha * row->left[j];
        vf shade = s->red * row->red[j] + s->green * row->green[j] + s->blue * row->blue[j];
        vf lit = weight * shade, rest = row->rest[j] - lit;
        row->left[j] -= weight;
        row->rest[j] = rest;
        sum->red[j] += weight * row->red[j];
        sum->green[j] += weight * row->green[j];
        sum->blue[j] += weight * row->blue[j];
        sum->once[j] += lit - alpha * rest / (1.0f - alpha);
        sum->twice[j] += sum->once[j];
        sum->thrice[j] += sum->twice[j];
    }
}

/* The sums over lanes: of power, and of it times x, y, x², xy, y²; red, green, blue. `below` is y of the row after the
 * splat's last one, so that a row's is below - m. */
INLINE void keep_share(const share *sum, const vf dx[ROW], float below, float *to) {
    vf of[9];
    for (int j = 0; j < ROW; j++) {
        vf power = sum->once[j], x = power * dx[j], y = power * below - sum->twice[j];
        vf yy = (y - sum->twice[j]) * below + (2.0f * sum->thrice[j] - sum->twice[j]);
        vf part[9] = {power, x, y, x * dx[j], y * dx[j], yy, sum->red[j], sum->green[j], sum->blue[j]};
        for (int i = 0; i < 9; i++) of[i] = j ? of[i] + part[i] : part[i];
    }
#if LANES == 8
    vf eight = totals8(of);
    memcpy(to, &eight, 32);
#else
    v4 one = totals(of[0], of[1], of[2], of[3]), two = totals(of[4], of[5], of[6], of[7]);
    memcpy(to, &one, 16);
    memcpy(to + 4, &two, 16);
#endif
    v4 three = {total(of[8]), 0, 0, 0};
    memcpy(to + 8, &three, 16);
}

static void backward_tile(void *argument, int tile, int thread) {
    (void)thread;
    context *c = argument;
    int32_t ty = tile / c->tiles_x, tx = tile % c->tiles_x;
    graded_row rows[TILE_Y];
    vf columns[ROW], left[TILE_Y][ROW];
    size_t size = plane(c);
    for (int row = 0; row < TILE_Y; row++)
        for (int j = 0; j < ROW; j++) left[row][j] = all(1);
    clear_outside(c, ty, tx, left);
    for (int row = 0; row < TILE_Y; row++)
        for (int j = 0; j < ROW; j++) {
            size_t at = (size_t)(ty * TILE_Y + row) * (size_t)c->padded_width + (size_t)(tx * TILE_X + j * LANES);
            vf red = load(c->gradient + at), green = load(c->gradient + size + at);
            vf blue = load(c->gradient + 2 * size + at);
            rows[row].red[j] = red, rows[row].green[j] = green, rows[row].blue[j] = blue;
            rows[row].rest[j] = red * load(c->image + at) + green * load(c->image + size + at) +
                                blue * load(c->image + 2 * size + at);
            rows[row].left[j] = left[row][j];
        }
    columns_of(columns, tx);
    const entry *entries = c->entries + c->tile_first[tile];
    int32_t count = (int32_t)(c->tile_first[tile + 1] - c->tile_first[tile]), looked_at = c->tile_last[tile], k, end;
    for (k = 0; k < looked_at; k = end) {
        entrance entrances[BATCH];
        end = enter_batch(c, entries, k, looked_at, ty, columns, entrances, 1);
        for (int32_t i = k; i < end; i++) {
            const splat *s = &c->splats[entries[i].splat];
            entrance *e = &entrances[i - k];
            vf dx[ROW];
            from_centre(s, columns, dx);
            share sum;
            for (int j = 0; j < ROW; j++)
                sum.once[j] = sum.twice[j] = sum.thrice[j] = sum.red[j] = sum.green[j] = sum.blue[j] = all(0);
            float dy = e->dy;
            for (int32_t row = entries[i].first, last = entries[i].last;;) {
                slope p = e->slope;
                int32_t stop = e->stop;
                if (e->gentle) {
                    dy += (float)(stop - row);
                    for (; row < stop; row++, next_row(s, &p)) take_share(s, &p, &rows[row], &sum);
                }
                for (; row < stop; row++) {
                    take_share(s, &p, &rows[row], &sum);
                    dy += 1.0f;
                    begin_slope(s, dx, dy, &p);
                }
                if (row > last) break;
                enter(s, dx, row, last, dy, e);
            }
            keep_share(&sum, dx, dy, c->pair_gradients + (size_t)entries[i].slot * PAIR_FLOATS);
        }
    }
    for (; k < count; k++) memset(c->pair_gradients + (size_t)entries[k].slot * PAIR_FLOATS, 0, PAIR_FLOATS * 4);
}

#endif
