/* Projection: what each Gaussian looks like in a view, and which rows of which tiles it may touch. */
#ifndef SPLAT_PROJECT_H
#define SPLAT_PROJECT_H

#include "state.h"

typedef struct { /* everything between a Gaussian's parameters and its splat, kept for the way back */
    vf camera[3];              /* position in camera axes */
    vf ratio[2];               /* x/z and y/z, brought into 1.3 times the field of view */
    vi out_of_view[2];
    vf quaternion[4], inverse_norm;
    vf scale[3], turn[9];      /* rotation matrix of the quaternion */
    vf jacobian[6];            /* M = J R: [2][3] */
    vf spread[9];              /* V = turn diag(scale) */
    vf axes[6];                /* B = M V: [2][3]; projected covariance is B B' + dilation */
    vf xx, xy, yy, determinant, bare_determinant;
    vf opacity, coverage;      /* sigmoid, at most 0.99; sqrt of the determinants' ratio, or 1 */
    vf direction[3], inverse_distance;
} footprint;

/* Real spherical harmonics up to degree 3, in 3DGS's order and signs. */
INLINE void harmonics(int degree, const vf d[3], vf basis[16]) {
    vf x = d[0], y = d[1], z = d[2];
    basis[0] = all(0.28209479f);
    if (degree < 1) return;
    basis[1] = -0.48860251f * y;
    basis[2] = 0.48860251f * z;
    basis[3] = -0.48860251f * x;
    if (degree < 2) return;
    vf xx = x * x, yy = y * y, zz = z * z;
    basis[4] = 1.09254843f * x * y;
    basis[5] = -1.09254843f * y * z;
    basis[6] = 0.31539157f * (2.0f * zz - xx - yy);
    basis[7] = -1.09254843f * x * z;
    basis[8] = 0.54627421f * (xx - yy);
    if (degree < 3) return;
    basis[9] = -0.59004359f * y * (3.0f * xx - yy);
    basis[10] = 2.89061144f * x * y * z;
    basis[11] = -0.45704580f * y * (4.0f * zz - xx - yy);
    basis[12] = 0.37317633f * z * (2.0f * zz - 3.0f * xx - 3.0f * yy);
    basis[13] = -0.45704580f * x * (4.0f * zz - xx - yy);
    basis[14] = 1.44530572f * z * (xx - yy);
    basis[15] = -0.59004359f * x * (xx - 3.0f * yy);
}

/* Of the LANES Gaussians whose numbers begin at `from`. */
INLINE void footprint_of(const view *v, const float *from, footprint *f) {
    vf mean[3];
    for (int i = 0; i < 3; i++) mean[i] = load(from + (MEAN + i) * GROUP);
    const float *R = v->rotation;
    for (int i = 0; i < 3; i++)
        f->camera[i] = R[3 * i] * mean[0] + R[3 * i + 1] * mean[1] + R[3 * i + 2] * mean[2] + v->translation[i];
    vf z = f->camera[2], per_z = 1.0f / z;
    float focal[2] = {v->fx, v->fy}, centre[2] = {v->cx, v->cy};
    float size[2] = {(float)v->width, (float)v->height};
    for (int i = 0; i < 2; i++) {
        float margin = 0.15f * size[i] / focal[i]; /* 0.3 times half the field's tangent, as 3DGS has it */
        vf ratio = f->camera[i] * per_z;
        vf bounded = smaller(larger(ratio, all(-centre[i] / focal[i] - margin)),
                             all((size[i] - centre[i]) / focal[i] + margin));
        f->out_of_view[i] = (vi)(ratio != bounded);
        f->ratio[i] = bounded;
        for (int j = 0; j < 3; j++)
            f->jacobian[3 * i + j] = focal[i] * per_z * (R[3 * i + j] - bounded * R[6 + j]);
    }
    vf norm = all(0);
    for (int i = 0; i < 4; i++) {
        f->quaternion[i] = load(from + (QUATERNION + i) * GROUP);
        norm += f->quaternion[i] * f->quaternion[i];
    }
    f->inverse_norm = 1.0f / root(larger(norm, all(1e-24f)));
    for (int i = 0; i < 4; i++) f->quaternion[i] *= f->inverse_norm;
    vf w = f->quaternion[0], x = f->quaternion[1], y = f->quaternion[2], q = f->quaternion[3];
    f->turn[0] = 1.0f - 2.0f * (y * y + q * q);
    f->turn[1] = 2.0f * (x * y - w * q);
    f->turn[2] = 2.0f * (x * q + w * y);
    f->turn[3] = 2.0f * (x * y + w * q);
    f->turn[4] = 1.0f - 2.0f * (x * x + q * q);
    f->turn[5] = 2.0f * (y * q - w * x);
    f->turn[6] = 2.0f * (x * q - w * y);
    f->turn[7] = 2.0f * (y * q + w * x);
    f->turn[8] = 1.0f - 2.0f * (x * x + y * y);
    for (int j = 0; j < 3; j++) {
        f->scale[j] = exp_exact(load(from + (SCALE + j) * GROUP));
        for (int i = 0; i < 3; i++) f->spread[3 * i + j] = f->turn[3 * i + j] * f->scale[j];
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            f->axes[3 * i + j] = f->jacobian[3 * i] * f->spread[j] + f->jacobian[3 * i + 1] * f->spread[3 + j] +
                                 f->jacobian[3 * i + 2] * f->spread[6 + j];
    const vf *B = f->axes;
    f->xx = B[0] * B[0] + B[1] * B[1] + B[2] * B[2];
    f->xy = B[0] * B[3] + B[1] * B[4] + B[2] * B[5];
    f->yy = B[3] * B[3] + B[4] * B[4] + B[5] * B[5];
    /* Of a needle, xx yy - xy² is the small difference of great numbers; the same sum of squares loses no digits. */
    vf m01 = B[0] * B[4] - B[1] * B[3], m02 = B[0] * B[5] - B[2] * B[3], m12 = B[1] * B[5] - B[2] * B[4];
    f->bare_determinant = m01 * m01 + m02 * m02 + m12 * m12;
    f->determinant = f->bare_determinant + v->dilation * (f->xx + f->yy + v->dilation);
    f->xx += v->dilation;
    f->yy += v->dilation;
    f->opacity = smaller(1.0f / (1.0f + exp_exact(-load(from + OPACITY * GROUP))), all(ALPHA_MOST));
    f->coverage = all(1);
    if (v->filter) f->coverage = root(larger(f->bare_determinant / f->determinant, all(2.5e-5f)));

    vf distance = all(0);
    for (int i = 0; i < 3; i++) { /* the camera stands at -R' t */
        float stands = -(R[i] * v->translation[0] + R[3 + i] * v->translation[1] + R[6 + i] * v->translation[2]);
        f->direction[i] = mean[i] - stands;
        distance += f->direction[i] * f->direction[i];
    }
    f->inverse_distance = 1.0f / root(larger(distance, all(1e-24f)));
    for (int i = 0; i < 3; i++) f->direction[i] *= f->inverse_distance;
}

/* Colours before they are brought to ≥ 0. */
INLINE void colour_of(const view *v, const float *from, const footprint *f, vf colour[3]) {
    vf basis[16];
    harmonics(v->degree, f->direction, basis);
    int terms = (v->degree + 1) * (v->degree + 1);
    for (int channel = 0; channel < 3; channel++) {
        vf sum = all(0.5f);
        for (int k = 0; k < terms; k++) sum += basis[k] * load(from + (HARMONIC + 3 * k + channel) * GROUP);
        colour[channel] = sum;
    }
}

typedef struct {
    context *context;
    const float *model;
} project_work;

/* Asks for rows of the group in which Gaussian `at` is; where a group takes several vectors, for the share of them that
 * falls to `at`'s. Processors foresee this only in part. */
INLINE void fetch_rows(const float *model, int32_t at, int first, int end) {
    const float *from = model + (size_t)at / GROUP * RECORD * GROUP;
    int turn = at % GROUP / LANES, turns = GROUP / LANES, rows = end - first;
    for (int row = first + rows * turn / turns; row < first + rows * (turn + 1) / turns; row++)
        __builtin_prefetch(from + row * GROUP);
}

/* Of LANES Gaussians, the ellipses of alpha = 1/255. With u across and w down from the centre (x, y), and r the squared
 * extent in standard deviations, c w² + 2 b u w + a u² = r is w = slope u ± sqrt(most - bend u²), slope = -b/c,
 * most = r/c, bend = det/c²; it is lowest in the picture at u = lean = -(b/a) high and highest at -lean. */
typedef struct {
    vf x, y, slope, most, bend, lean;
} ellipses;

/* Rows of pixels, from first to last, that each ellipse may reach in its column of tiles. Where it reaches none,
 * last < first. A hundredth of a pixel is added for rounding. */
INLINE void rows_of(const ellipses *e, vi column, int32_t height, vi *first, vi *last) {
    vf low = __builtin_convertvector(column * TILE_X, vf) + 0.5f - e->x, high = low + (float)(TILE_X - 1);
    vf up = smaller(larger(e->lean, low), high), down = smaller(larger(-e->lean, low), high);
    vf under_up = e->most - e->bend * up * up, under_down = e->most - e->bend * down * down;
    vf bottom = e->y + e->slope * up + root(larger(under_up, all(0))) - 0.49f;
    vf top = e->y + e->slope * down - root(larger(under_down, all(0))) - 0.51f;
    bottom = smaller(larger(bottom, all(-1.0f)), all((float)(height - 1)));
    top = smaller(larger(top, all(-1.0f)), all((float)height));
    /* begin = ceil(top) but for whole numbers, where it is one more: those lie outside by the hundredth */
    *first = __builtin_convertvector(top + 2.0f, vi) - 1;
    vi touched = (vi)(larger(under_up, under_down) >= -0.02f * e->most - 0.02f);
    *last = choose_int(touched, __builtin_convertvector(bottom + 1.0f, vi) - 1, all_int(-1));
}

/* The column of tiles in which x lies, or the nearest there is: whatever x is, NaN too. */
INLINE vi column_of(const context *c, vf x) {
    vf column = (x - 0.5f) * (1.0f / TILE_X);
    return __builtin_convertvector(smaller(larger(column, all(0)), all((float)(c->tiles_x - 1))), vi);
}

/* The tiles of LANES Gaussians of which those that are `seen` touch the columns of tiles from left to right. They go into
 * the thread's scratch memory, from `filled` on, one Gaussian's after the other's; ends[lane] says where
 * each one's end there. 0 where memory ran out. */
INLINE int find_tiles(context *c, bench_of_thread *bench, const ellipses *e, vi seen, vi left, vi right, int64_t filled,
                      int64_t ends[LANES]) {
    vi columns = seen & (right - left + 1);
    int32_t most = 0;
    int64_t all_columns = 0;
    for (int lane = 0; lane < LANES; lane++) {
        most = columns[lane] > most ? columns[lane] : most;
        all_columns += columns[lane];
        ends[lane] = filled;
    }
    if (!most) return 1; /* there may be no scratch memory yet */
    size_t needed = (size_t)filled + (size_t)all_columns * (size_t)c->tiles_y;
    if (needed > bench->touch_capacity) {
        touch *larger_one = realloc(bench->touches, 2 * needed * sizeof *larger_one);
        if (!larger_one) return 0;
        bench->touches = larger_one;
        bench->touch_capacity = 2 * needed;
    }
    for (int32_t i = 0; i < most; i++) rows_of(e, left + i, c->view.height, &bench->first_rows[i], &bench->last_rows[i]);
    const int32_t *first = (const int32_t *)bench->first_rows, *last = (const int32_t *)bench->last_rows;
    touch *to = bench->touches + filled;
    for (int lane = 0; lane < LANES; lane++) {
        for (int32_t i = 0; i < columns[lane]; i++) {
            int32_t top = first[i * LANES + lane], bottom = last[i * LANES + lane];
            if (bottom < top) continue;
            int32_t ty = top / TILE_Y, tile = ty * c->tiles_x + left[lane] + i, begin = top % TILE_Y;
            int32_t end = bottom - ty * TILE_Y;
            for (; end >= TILE_Y; end -= TILE_Y, begin = 0, tile += c->tiles_x)
                *to++ = (touch){tile, (uint8_t)begin, TILE_Y - 1};
            *to++ = (touch){tile, (uint8_t)begin, (uint8_t)end};
        }
        ends[lane] = to - bench->touches;
    }
    return 1;
}

/* Slots for the tiles that a block has found: which ones is left to chance, and nothing depends on it. */
static void take_slots(context *c, int32_t first, int32_t end, const touch *touches, int64_t filled) {
    int64_t slot = atomic_fetch_add_explicit(&c->slots, filled, memory_order_relaxed);
    if (!filled || slot + filled > (int64_t)c->pair_capacity) return; /* too many: it is done again, with more memory */
    memcpy(c->touches + slot, touches, (size_t)filled * sizeof *touches);
    for (int32_t g = first; g < end; g++) c->spans[g].first += (int32_t)slot;
}

static void project_block(void *argument, int block, int thread) {
    const project_work *work = argument;
    context *c = work->context;
    bench_of_thread *bench = &c->benches[thread];
    const view *v = &c->view;
    int32_t first = block * BLOCK, end = first + BLOCK < c->count ? first + BLOCK : c->count, visible = 0;
    uint32_t nearest = UINT32_MAX, farthest = 0;
    int64_t filled = 0;
    int any = 1, rows = HARMONIC + 3 * (v->degree + 1) * (v->degree + 1);
    for (int32_t at = first; at < end; at += LANES) {
        const float *from = work->model + place((size_t)at, RECORD);
        if (at + GROUP < c->count) fetch_rows(work->model, at + GROUP, 0, any ? rows : HARMONIC);
        footprint f;
        footprint_of(v, from, &f);
        vf x = v->fx * f.camera[0] / f.camera[2] + v->cx;
        vf y = v->fy * f.camera[1] / f.camera[2] + v->cy;
        vf opacity = f.opacity * f.coverage;
        vf top = log2_exact(larger(opacity, all(1e-30f)));
        /* (extent in standard deviations)²: where alpha falls below 1/255 */
        vf reach = larger((top - LOG2_ALPHA_LEAST) * (2.0f / LOG2E), all(0));
        vf wide = root(reach * f.xx), high = root(reach * f.yy), inverse = 1.0f / f.determinant;
        vf a = f.yy * inverse, b = -f.xy * inverse, cc = f.xx * inverse;
        vi seen = (vi)(f.camera[2] > v->near) & (vi)(top > LOG2_ALPHA_LEAST) & (vi)(f.determinant > 0);
        seen &= (vi)(x + wide >= 0.5f) & (vi)(x - wide <= (float)v->width - 0.5f);
        seen &= (vi)(y + high >= 0.5f) & (vi)(y - high <= (float)v->height - 0.5f);
        seen &= is_finite(x) & is_finite(y) & is_finite(a) & is_finite(b) & is_finite(cc) & is_finite(wide);
        seen &= is_finite(high) & is_finite(f.camera[2]) & (vi)(a > 0) & (vi)(cc > 0);
        any = 0; /* neighbours in memory are neighbours in space: where these are seen, the next ones will be */
        for (int lane = 0; lane < LANES; lane++) any |= seen[lane];
        for (int lane = 0; lane < LANES && at + lane < end; lane++) c->spans[at + lane] = (span){0, 0};
        if (!any) continue;
        vf colour[3];
        colour_of(v, from, &f, colour);
        seen &= is_finite(colour[0]) & is_finite(colour[1]) & is_finite(colour[2]);
        vf xx = -0.5f * LOG2E * a, xy = -LOG2E * b, yy = -0.5f * LOG2E * cc;
        vf decay = exp2_of(larger(2.0f * yy, all(-126.0f)));
        /* det = ac - b² = 1 / determinant, which loses fewer digits */
        vf per_c = 1.0f / cc;
        ellipses e = {x, y, -b * per_c, reach * per_c, inverse * per_c * per_c, -b / a * high};
        int64_t ends[LANES];
        if (!find_tiles(c, bench, &e, seen, column_of(c, x - wide), column_of(c, x + wide), filled, ends)) {
            atomic_store(&c->out_of_memory, 1);
            return;
        }
        vf columns[16] = {x, y, xx, xy, yy, top, larger(colour[0], all(0)), larger(colour[1], all(0)),
                          larger(colour[2], all(0)), f.camera[2], decay, a, b, cc, all(0), all(0)};
        vi below = ((vi)(colour[0] <= 0) & 1) | ((vi)(colour[1] <= 0) & 2) | ((vi)(colour[2] <= 0) & 4);
        float values[16][LANES];
        memcpy(values, columns, sizeof values);
        for (int lane = 0; lane < LANES && at + lane < end; lane++) {
            if (ends[lane] == filled) continue;
            int32_t g = at + lane;
            float *to = (float *)&c->splats[g];
            for (int i = 0; i < 16; i++) to[i] = values[i][lane];
            c->spans[g] = (span){(int32_t)filled, (int32_t)(ends[lane] - filled)};
            c->clamped[g] = (uint8_t)below[lane];
            filled = ends[lane];
            uint32_t key;
            memcpy(&key, &c->splats[g].depth, 4); /* positive floats sort as their bits do */
            c->order_spare[first + visible++] = (uint64_t)key << 32 | (uint32_t)g;
            if (key < nearest) nearest = key;
            if (key > farthest) farthest = key;
        }
    }
    c->block_visible[block] = visible;
    c->block_nearest[block] = nearest;
    c->block_farthest[block] = farthest;
    take_slots(c, first, end, bench->touches, filled);
}

#endif
