/* Projection: what each Gaussian looks like in a view, and which rectangle of tiles it may touch. */
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
    vf opacity, coverage;      /* sigmoid; sqrt of the determinants' ratio, or 1 */
    vf direction[3], inverse_distance;
    vf colour[3];              /* before it is brought to ≥ 0 */
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

INLINE void footprint_of(const view *v, const float *model, size_t stride, size_t at, footprint *f) {
    vf mean[3];
    for (int i = 0; i < 3; i++) mean[i] = load(model + (MEAN + i) * stride + at);
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
        f->quaternion[i] = load(model + (QUATERNION + i) * stride + at);
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
        f->scale[j] = exp_exact(load(model + (SCALE + j) * stride + at));
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
    f->bare_determinant = larger(f->xx * f->yy - f->xy * f->xy, all(0));
    f->xx += DILATION;
    f->yy += DILATION;
    f->determinant = f->xx * f->yy - f->xy * f->xy;
    f->opacity = 1.0f / (1.0f + exp_exact(-load(model + OPACITY * stride + at)));
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
    vf basis[16];
    harmonics(v->degree, f->direction, basis);
    int terms = (v->degree + 1) * (v->degree + 1);
    for (int channel = 0; channel < 3; channel++) {
        vf sum = all(0.5f);
        for (int k = 0; k < terms; k++)
            sum += basis[k] * load(model + (size_t)(HARMONIC + 3 * k + channel) * stride + at);
        f->colour[channel] = sum;
    }
}

typedef struct {
    context *context;
    const float *model;
    size_t stride;
} project_work;

static void project_block(void *argument, int block) {
    const project_work *work = argument;
    context *c = work->context;
    const view *v = &c->view;
    int32_t first = block * BLOCK, end = first + BLOCK < c->count ? first + BLOCK : c->count;
    for (int32_t at = first; at < end; at += LANES) {
        footprint f;
        footprint_of(v, work->model, work->stride, (size_t)at, &f);
        vf x = v->fx * f.camera[0] / f.camera[2] + v->cx;
        vf y = v->fy * f.camera[1] / f.camera[2] + v->cy;
        vf opacity = f.opacity * f.coverage;
        vf top = log2_exact(larger(opacity, all(1e-30f)));
        /* (extent in standard deviations)²: where alpha falls below 1/255 */
        vf reach = larger((top - LOG2_ALPHA_LEAST) * (2.0f / LOG2E), all(0));
        vf wide = root(reach * f.xx), high = root(reach * f.yy);
        vf a = f.yy / f.determinant, b = -f.xy / f.determinant, cc = f.xx / f.determinant;
        vi seen = (vi)(f.camera[2] > v->near) & (vi)(top > LOG2_ALPHA_LEAST) & (vi)(f.determinant > 0);
        seen &= (vi)(x + wide >= 0.5f) & (vi)(x - wide <= (float)v->width - 0.5f);
        seen &= (vi)(y + high >= 0.5f) & (vi)(y - high <= (float)v->height - 0.5f);
        seen &= is_finite(x) & is_finite(y) & is_finite(a) & is_finite(b) & is_finite(cc) & is_finite(wide);
        seen &= is_finite(high) & is_finite(f.colour[0]) & is_finite(f.colour[1]) & is_finite(f.colour[2]);
        seen &= is_finite(f.camera[2]);
        for (int lane = 0; lane < LANES && at + lane < end; lane++) {
            int32_t g = at + lane;
            c->tile_bound[g] = c->tiles_touched[g] = 0;
            if (!seen[lane]) continue;
            splat *s = &c->splats[g];
            s->x = x[lane], s->y = y[lane];
            s->a = a[lane], s->b = b[lane], s->c = cc[lane];
            s->xx = -0.5f * LOG2E * s->a, s->xy = -LOG2E * s->b, s->yy = -0.5f * LOG2E * s->c;
            s->flat = -0.5f / s->xx;
            s->top = top[lane], s->depth = f.camera[2][lane];
            uint8_t clamped = 0;
            float *colour = &s->red;
            for (int channel = 0; channel < 3; channel++) {
                float value = f.colour[channel][lane];
                colour[channel] = value > 0 ? value : 0;
                if (!(value > 0)) clamped |= (uint8_t)(1 << channel);
            }
            c->clamped[g] = clamped;
            float low = s->y - high[lane] - 0.5f, up = s->y + high[lane] - 0.5f;
            s->row_first = low < 0 ? 0 : (int32_t)low; /* rounded down: one row more at most */
            s->row_last = up > (float)(v->height - 1) ? v->height - 1 : (int32_t)up;
            int32_t *rectangle = c->tile_rectangle[g];
            rectangle[0] = tile_of(s->x - wide[lane] - 0.5f, c->tiles_x);
            rectangle[1] = tile_of(s->x + wide[lane] - 0.5f, c->tiles_x);
            rectangle[2] = s->row_first / TILE;
            rectangle[3] = s->row_last / TILE;
            if (s->row_last < s->row_first) continue;
            c->tile_bound[g] = (rectangle[1] - rectangle[0] + 1) * (rectangle[3] - rectangle[2] + 1);
        }
    }
}

#endif
