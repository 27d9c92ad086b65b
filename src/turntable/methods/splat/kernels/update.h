/* From the gradients of splats in tiles back to the model's parameters, and Adam's step, Gaussian by Gaussian. */
#ifndef SPLAT_UPDATE_H
#define SPLAT_UPDATE_H

#include "project.h"

typedef struct {
    float rate[ROWS];          /* Adam's step size of each row */
    float first, second;       /* decay of the moments */
    float unbias_first, unbias_second; /* 1 / (1 - first^step), 1 / (1 - second^step) */
    float epsilon;
    float opacity_weight, scale_weight; /* regularisers: weight times the mean opacity, the mean scale */
    float noise;               /* of the means: step size of MCMC's noise, 0 for none */
    uint64_t seed;             /* of this step's noise */
} optimiser;

typedef struct {
    context *context;
    float *model;     /* [blocks][RECORD][16] */
    float *gradients; /* [blocks][ROWS][16] where they are wanted instead of a step, else NULL */
    const optimiser *optimiser;
} update_work;

INLINE uint64_t scramble(uint64_t x) { /* splitmix64's finaliser */
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* Nearly normal, variance 1: the sum of four uniform numbers of 16 bits. */
static float noise_of(uint64_t bits) {
    float sum = (float)(bits & 65535) + (float)(bits >> 16 & 65535) + (float)(bits >> 32 & 65535) + (float)(bits >> 48);
    return (sum * (1.0f / 65535) - 2.0f) * 1.7320508f;
}

/* dL/dparameter of LANES Gaussians, [59][LANES]: of the harmonics in use; without meaning where not visible. */
INLINE void gradients_of(const view *v, const footprint *f, vf sum[9], vi clamped[3], const float *from,
                         vf out[ROWS]) {
    vf a = f->yy / f->determinant, b = -f->xy / f->determinant, c = f->xx / f->determinant;
    vf by_x = a * sum[1] + b * sum[2], by_y = b * sum[1] + c * sum[2];
    vf by_a = -0.5f * sum[3], by_b = -sum[4], by_c = -0.5f * sum[5];
    vf half = 0.5f * by_b;
    /* -K dK K with K the inverse covariance */
    vf p = a * by_a + b * half, q = a * half + b * by_c, r = b * by_a + c * half, s = b * half + c * by_c;
    vf g00 = -(p * a + q * b), g01 = -(p * b + q * c), g11 = -(r * b + s * c);
    vf by_log_opacity = sum[0];
    if (v->filter) { /* coverage² = bare / full determinant: both follow the covariance */
        vf inside = (vf)(f->bare_determinant / f->determinant);
        vi moves = (vi)(inside > 2.5e-5f);
        vf w = keep(moves, 0.5f * by_log_opacity), bare = larger(f->bare_determinant, all(1e-30f));
        vf x0 = f->xx - v->dilation, y0 = f->yy - v->dilation;
        g00 += w * (y0 / bare - a);
        g11 += w * (x0 / bare - c);
        g01 += w * (-f->xy / bare - b);
    }
    const vf *B = f->axes, *V = f->spread, *M = f->jacobian;
    vf dB[6], dM[6], dV[9];
    for (int j = 0; j < 3; j++) {
        dB[j] = 2.0f * (g00 * B[j] + g01 * B[3 + j]);
        dB[3 + j] = 2.0f * (g01 * B[j] + g11 * B[3 + j]);
    }
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 3; k++)
            dM[3 * i + k] = dB[3 * i] * V[3 * k] + dB[3 * i + 1] * V[3 * k + 1] + dB[3 * i + 2] * V[3 * k + 2];
    for (int k = 0; k < 3; k++)
        for (int j = 0; j < 3; j++) dV[3 * k + j] = M[k] * dB[j] + M[3 + k] * dB[3 + j];
    for (int j = 0; j < 3; j++)
        out[SCALE + j] = dV[j] * V[j] + dV[3 + j] * V[3 + j] + dV[6 + j] * V[6 + j];
    vf dT[9];
    for (int i = 0; i < 9; i++) dT[i] = dV[i] * f->scale[i % 3];
    vf w = f->quaternion[0], x = f->quaternion[1], y = f->quaternion[2], z = f->quaternion[3];
    vf dq[4];
    dq[0] = 2.0f * (x * (dT[7] - dT[5]) + y * (dT[2] - dT[6]) + z * (dT[3] - dT[1]));
    dq[1] = 2.0f * (y * (dT[1] + dT[3]) + z * (dT[2] + dT[6]) + w * (dT[7] - dT[5]) - 2.0f * x * (dT[4] + dT[8]));
    dq[2] = 2.0f * (x * (dT[1] + dT[3]) + z * (dT[5] + dT[7]) + w * (dT[2] - dT[6]) - 2.0f * y * (dT[0] + dT[8]));
    dq[3] = 2.0f * (x * (dT[2] + dT[6]) + y * (dT[5] + dT[7]) + w * (dT[3] - dT[1]) - 2.0f * z * (dT[0] + dT[4]));
    vf along = dq[0] * w + dq[1] * x + dq[2] * y + dq[3] * z;
    for (int i = 0; i < 4; i++) out[QUATERNION + i] = (dq[i] - along * f->quaternion[i]) * f->inverse_norm;

    vf per_z = 1.0f / f->camera[2];
    const float *R = v->rotation;
    float focal[2] = {v->fx, v->fy};
    vf by_camera[3] = {focal[0] * by_x * per_z, focal[1] * by_y * per_z, all(0)};
    for (int i = 0; i < 2; i++) {
        vf straight = by_camera[i] * f->camera[i] * per_z;
        vf by_ratio = all(0), scaled = all(0);
        for (int k = 0; k < 3; k++) {
            by_ratio -= dM[3 * i + k] * R[6 + k];
            scaled += dM[3 * i + k] * M[3 * i + k];
        }
        by_ratio = keep(~f->out_of_view[i], by_ratio * focal[i] * per_z);
        by_camera[i] += by_ratio * per_z;
        by_camera[2] -= straight + scaled * per_z + by_ratio * f->ratio[i] * per_z;
    }

    vf basis[16], by_colour[3], by_direction[3];
    harmonics(v->degree, f->direction, basis);
    int terms = (v->degree + 1) * (v->degree + 1);
    for (int channel = 0; channel < 3; channel++) by_colour[channel] = keep(~clamped[channel], sum[6 + channel]);
    for (int k = 0; k < terms; k++)
        for (int channel = 0; channel < 3; channel++) out[HARMONIC + 3 * k + channel] = basis[k] * by_colour[channel];
    for (int i = 0; i < 3; i++) by_direction[i] = all(0);
    if (v->degree > 0) {
        vf s[16]; /* how much the colour's gradient wants of each basis function */
        for (int k = 1; k < terms; k++) {
            s[k] = all(0);
            for (int channel = 0; channel < 3; channel++)
                s[k] += by_colour[channel] * load(from + (HARMONIC + 3 * k + channel) * GROUP);
        }
        vf dx = f->direction[0], dy = f->direction[1], dz = f->direction[2];
        by_direction[0] = -0.48860251f * s[3];
        by_direction[1] = -0.48860251f * s[1];
        by_direction[2] = 0.48860251f * s[2];
        if (v->degree > 1) {
            by_direction[0] += 1.09254843f * (dy * s[4] - dz * s[7] + dx * s[8]) - 0.63078313f * dx * s[6];
            by_direction[1] += 1.09254843f * (dx * s[4] - dz * s[5] - dy * s[8]) - 0.63078313f * dy * s[6];
            by_direction[2] += 1.09254843f * (-dy * s[5] - dx * s[7]) + 1.26156626f * dz * s[6];
        }
        if (v->degree > 2) {
            vf xx = dx * dx, yy = dy * dy, zz = dz * dz, xy = dx * dy, xz = dx * dz, yz = dy * dz;
            by_direction[0] += -3.54026157f * xy * s[9] + 2.89061144f * yz * s[10] + 0.9140916f * xy * s[11] -
                               2.23905799f * xz * s[12] - 0.4570458f * (4.0f * zz - 3.0f * xx - yy) * s[13] +
                               2.89061144f * xz * s[14] - 1.77013077f * (xx - yy) * s[15];
            by_direction[1] += -1.77013077f * (xx - yy) * s[9] + 2.89061144f * xz * s[10] -
                               0.4570458f * (4.0f * zz - xx - 3.0f * yy) * s[11] - 2.23905799f * yz * s[12] +
                               0.9140916f * xy * s[13] - 2.89061144f * yz * s[14] + 3.54026157f * xy * s[15];
            by_direction[2] += 2.89061144f * xy * s[10] - 3.6563664f * yz * s[11] +
                               1.11952899f * (2.0f * zz - xx - yy) * s[12] - 3.6563664f * xz * s[13] +
                               1.44530572f * (xx - yy) * s[14];
        }
    }
    vf radial = all(0);
    for (int i = 0; i < 3; i++) radial += by_direction[i] * f->direction[i];
    for (int j = 0; j < 3; j++)
        out[MEAN + j] = R[j] * by_camera[0] + R[3 + j] * by_camera[1] + R[6 + j] * by_camera[2] +
                        (by_direction[j] - radial * f->direction[j]) * f->inverse_distance;
    out[OPACITY] = by_log_opacity * (1.0f - f->opacity); /* held at 0.99 it may still fall */
}

/* The sums over its tiles of LANES Gaussians from `at` on, and which of them were shown; 0 where none was. */
static int gather(const context *c, int32_t at, int32_t end, vf sum[9], vi *visible, vi clamped[3]) {
    float sums[9][LANES];
    int32_t shown[LANES] = {0}, clamp[3][LANES];
    int any = 0;
    memset(sums, 0, sizeof sums);
    memset(clamp, 0, sizeof clamp);
    for (int lane = 0; lane < LANES && at + lane < end; lane++) {
        int32_t g = at + lane, touched = c->spans[g].count;
        if (!touched) continue;
        any = 1;
        shown[lane] = -1;
        for (int channel = 0; channel < 3; channel++) clamp[channel][lane] = -(c->clamped[g] >> channel & 1);
        const float *from = c->pair_gradients + (size_t)c->spans[g].first * PAIR_FLOATS;
        v4 one = {0}, two = {0}, three = {0}, part;
        for (int32_t k = 0; k < touched; k++, from += PAIR_FLOATS) {
            memcpy(&part, from, 16);
            one += part;
            memcpy(&part, from + 4, 16);
            two += part;
            memcpy(&part, from + 8, 16);
            three += part;
        }
        for (int i = 0; i < 4; i++) sums[i][lane] = one[i], sums[4 + i][lane] = two[i];
        sums[8][lane] = three[0];
    }
    memcpy(sum, sums, sizeof sums);
    memcpy(visible, shown, sizeof shown);
    memcpy(clamped, clamp, sizeof clamp);
    return any;
}

/* A decayed mean. */
INLINE vf decayed(float decay, vf was, vf now) { return decay * was + (1.0f - decay) * now; }

/* One step of Adam for the rows that have moments of their own. */
INLINE void adam(const optimiser *o, float *from, const vf grads[ROWS], vi visible) {
    for (int row = 0; row < MOMENTS; row++) {
        float *value = from + row * GROUP, *first = from + (FIRST + row) * GROUP, *second = from + (SECOND + row) * GROUP;
        vf m = load(first), s = load(second), was = load(value);
        vf m_new = decayed(o->first, m, grads[row]), s_new = decayed(o->second, s, grads[row] * grads[row]);
        vf scale = inverse_root(larger(s_new * o->unbias_second, all(o->epsilon)));
        vf now = was - o->rate[row] * (m_new * o->unbias_first) * scale;
        vi good = visible & is_finite(now);
        if (row == OPACITY) now = smaller(now, all(LOGIT_MOST));
        store(first, choose(good, m_new, m));
        store(second, choose(good, s_new, s));
        store(value, choose(good, now, was));
    }
}

/* The harmonics above degree 0: 45 numbers that hardly move from step to step. They have no first moment, and one
 * second moment for all of them, their mean square: two thirds of the bytes that a step would read and write. */
INLINE void adam_of_harmonics(const optimiser *o, float *from, const vf grads[ROWS], vi visible, int terms) {
    vf squares = all(0);
    for (int row = HARMONIC + 3; row < HARMONIC + 3 * terms; row++) squares += grads[row] * grads[row];
    float *second = from + HARMONIC_SECOND * GROUP;
    vf s = load(second), s_new = decayed(o->second, s, squares * (1.0f / (float)(3 * terms - 3)));
    vf scale = inverse_root(larger(s_new * o->unbias_second, all(o->epsilon)));
    vi good = visible & is_finite(s_new);
    scale = keep(good, scale);
    store(second, choose(good, s_new, s));
    for (int row = HARMONIC + 3; row < HARMONIC + 3 * terms; row++) {
        float *value = from + row * GROUP;
        vf was = load(value), now = was - o->rate[row] * scale * grads[row];
        store(value, choose(good & is_finite(now), now, was));
    }
}

/* 3DGS-MCMC's noise on the means of what is nearly transparent. */
static void shake(const optimiser *o, float *from, const footprint *f, vi visible, int32_t at, int32_t end) {
    for (int lane = 0; lane < LANES && at + lane < end; lane++) {
        /* MCMC's gate sigmoid(-100 (opacity - 0.005)): below 1e-4 from an opacity of 0.1 on */
        float opacity = f->opacity[lane];
        if (!visible[lane] || !(opacity < 0.1f)) continue;
        float gate = 1.0f / (1.0f + expf(100.0f * (opacity - 0.005f))) * o->noise, step[3], inner[3];
        for (int i = 0; i < 3; i++)
            step[i] = noise_of(scramble(o->seed + 0x9e3779b97f4a7c15ull * (uint64_t)(3 * (at + lane) + i + 1)));
        for (int j = 0; j < 3; j++) /* covariance times noise: V V' n */
            inner[j] = f->spread[j][lane] * step[0] + f->spread[3 + j][lane] * step[1] + f->spread[6 + j][lane] * step[2];
        for (int i = 0; i < 3; i++) {
            float *mean = from + (MEAN + i) * GROUP + lane, push = 0;
            for (int j = 0; j < 3; j++) push += f->spread[3 * i + j][lane] * inner[j];
            if (isfinite(*mean + gate * push)) *mean += gate * push;
        }
    }
}

/* Whether the view shows any Gaussian of the LANES from `at` on. */
INLINE int is_shown(const context *c, int32_t at) {
    int32_t shown = 0;
    for (int32_t g = at; g < at + LANES && g < c->count; g++) shown |= c->spans[g].count;
    return shown;
}

static void update_block(void *argument, int block, int thread) {
    (void)thread;
    const update_work *work = argument;
    context *c = work->context;
    const optimiser *o = work->optimiser;
    int terms = (c->view.degree + 1) * (c->view.degree + 1);
    int32_t first = block * BLOCK, end = first + BLOCK < c->count ? first + BLOCK : c->count;
    for (int32_t at = first; at < end; at += LANES) {
        vi visible, clamped[3];
        vf sum[9], grads[ROWS];
        if (is_shown(c, at + GROUP)) fetch_rows(work->model, at + GROUP, 0, RECORD);
        if (!gather(c, at, end, sum, &visible, clamped) && !work->gradients) continue;
        float *from = work->model + place((size_t)at, RECORD);
        footprint f;
        footprint_of(&c->view, from, &f);
        gradients_of(&c->view, &f, sum, clamped, from, grads);
        for (int row = 0; row < HARMONIC + 3 * terms; row++) /* NaN, or so large that its square is infinite: */
            visible &= (vi)(absolute(grads[row]) < 1e18f);     /* such a Gaussian sits this step out */
        if (work->gradients) {
            float *to = work->gradients + place((size_t)at, ROWS);
            for (int row = 0; row < HARMONIC + 3 * terms; row++) store(to + row * GROUP, keep(visible, grads[row]));
            continue;
        }
        vf x = grads[MEAN], y = grads[MEAN + 1], z = grads[MEAN + 2];
        /* per unit of viewing angle: independent of how far away it is and of the photo's size */
        vf slope = root(x * x + y * y + z * z) * absolute(f.camera[2]);
        store(from + ACTIVITY * GROUP, load(from + ACTIVITY * GROUP) + keep(visible, slope));
        grads[OPACITY] += o->opacity_weight / (float)c->count * f.opacity * (1.0f - f.opacity);
        for (int j = 0; j < 3; j++) grads[SCALE + j] += o->scale_weight / (3.0f * (float)c->count) * f.scale[j];
        adam(o, from, grads, visible);
        if (terms > 1) adam_of_harmonics(o, from, grads, visible, terms);
        if (o->noise > 0) shake(o, from, &f, visible, at, end);
    }
}

#endif
