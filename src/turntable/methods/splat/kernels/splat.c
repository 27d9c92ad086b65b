/* The hot loops of the method `splat`: what the method's Python calls, through ctypes.
 *
 * A context holds threads and scratch memory; there is no other state. One context serves one caller at a time.
 * Functions return 1, or 0 where memory ran out. Formulas: reference.py, the slow twin of all this. */
#include "loss.h"
#include "bin.h"
#include "project.h"
#include "raster.h"
#include "update.h"

#define EXPORTED __attribute__((visibility("default")))

#if defined(__x86_64__)
#include <cpuid.h>

/* 0 baseline, 1 AVX2 with FMA, 2 AVX-512 F, BW, DQ and VL; what the system doesn't save, a program can't use. */
EXPORTED int splat_level(void) {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27) || !(c & 1u << 12)) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 5)) return 0;
    unsigned wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    return (low & 0xe6) == 0xe6 && (b & wanted) == wanted ? 2 : 1;
}
#else
EXPORTED int splat_level(void) { return 0; }
#endif

EXPORTED context *splat_open(int threads) {
    context *c = calloc(1, sizeof *c);
    if (c) pool_open(&c->pool, threads);
    return c;
}

EXPORTED void splat_close(context *c) {
    pool_close(&c->pool);
    void *all_memory[] = {c->splats, c->tiles_touched, c->tile_bound, c->tile_rectangle, c->slot_first, c->keys,
                          c->keys_spare, c->order, c->order_spare, c->clamped, c->slot_tile, c->pair_gradients,
                          c->entries, c->chunk_counts, c->tile_first, c->tile_last, c->image, c->gradient, c->depth,
                          c->transmittance, c->photo, c->blurred, c->band_loss};
    for (size_t i = 0; i < sizeof all_memory / sizeof *all_memory; i++) free(all_memory[i]);
    free(c);
}

static int make_room(context *c, size_t count, const view *v) {
    if (count > c->splat_capacity || !c->splats) {
        size_t n = count + count / 4 + 64;
        c->splat_capacity = 0;
        if (!RESERVE(c->splats, n) || !RESERVE(c->tiles_touched, n) || !RESERVE(c->tile_bound, n) ||
            !RESERVE(c->tile_rectangle, n) || !RESERVE(c->slot_first, n + 1) || !RESERVE(c->keys, n) ||
            !RESERVE(c->keys_spare, n) || !RESERVE(c->order, n) || !RESERVE(c->order_spare, n) ||
            !RESERVE(c->clamped, n))
            return 0;
        c->splat_capacity = n;
    }
    c->tiles_x = (v->width + TILE - 1) / TILE;
    c->tiles_y = (v->height + TILE - 1) / TILE;
    c->padded_width = c->tiles_x * TILE;
    c->padded_height = c->tiles_y * TILE;
    size_t tiles = (size_t)c->tiles_x * (size_t)c->tiles_y;
    if (tiles > c->tile_capacity) {
        c->tile_capacity = 0;
        if (!RESERVE(c->chunk_counts, tiles * CHUNKS) || !RESERVE(c->tile_first, tiles + 1) ||
            !RESERVE(c->tile_last, tiles))
            return 0;
        c->tile_capacity = tiles;
    }
    size_t pixels = plane(c);
    if (pixels > c->pixel_capacity) {
        c->pixel_capacity = 0;
        if (!RESERVE(c->image, pixels * 3) || !RESERVE(c->gradient, pixels * 3) || !RESERVE(c->photo, pixels * 3) ||
            !RESERVE(c->blurred, pixels * 9) || !RESERVE(c->depth, pixels) || !RESERVE(c->transmittance, pixels) ||
            !RESERVE(c->band_loss, pixels))
            return 0;
        c->pixel_capacity = pixels;
    }
    return 1;
}

/* Render into the context. With depth, the sums of weight times z and what light is left are kept as well. */
EXPORTED int splat_forward(context *c, const float *model, int64_t count, int64_t stride, const view *v, int with_depth) {
    if (!make_room(c, (size_t)count, v)) return 0;
    c->view = *v;
    c->count = (int32_t)count;
    project_work work = {c, model, (size_t)stride};
    pool_run(&c->pool, project_block, &work, (c->count + BLOCK - 1) / BLOCK);
    if (!bin(c)) return 0;
    pool_run(&c->pool, with_depth ? forward_with_depth : forward_plain, c, c->tiles_x * c->tiles_y);
    return 1;
}

/* The loss of the context's image against a photo, and its gradient into the context. */
EXPORTED int splat_loss(context *c, const uint8_t *photo, const uint8_t *mask, float ssim_weight, double *loss) {
    loss_work work = {c, photo, mask, ssim_weight, 0};
    size_t pixels = (size_t)c->view.width * (size_t)c->view.height;
    for (size_t i = 0; i < pixels; i++) work.counted += mask ? mask[i] != 0 : 1;
    *loss = 0;
    if (work.counted == 0) {
        memset(c->gradient, 0, plane(c) * 3 * sizeof *c->gradient);
        return 1;
    }
    int items = 3 * c->padded_height / BAND;
    pool_run(&c->pool, photo_row, &work, c->padded_height);
    pool_run(&c->pool, ssim_band, &work, items);
    pool_run(&c->pool, gradient_band, &work, items);
    double similarity = 0, difference = 0;
    for (int i = 0; i < items; i++) similarity += c->band_loss[2 * i], difference += c->band_loss[2 * i + 1];
    if (isinf(similarity)) return 0;
    similarity /= 3 * work.counted, difference /= 3 * work.counted;
    *loss = (1 - ssim_weight) * difference + ssim_weight * (1 - similarity);
    return 1;
}

/* From the context's image gradient to the parameters: Adam's step in place, or the gradients alone. */
EXPORTED int splat_update(context *c, float *model, float *moment, float *square, float *gradients, float *activity,
                          int64_t stride, const optimiser *o) {
    pool_run(&c->pool, backward_tile, c, c->tiles_x * c->tiles_y);
    update_work work = {c, model, moment, square, gradients, activity, (size_t)stride, o};
    pool_run(&c->pool, update_block, &work, (c->count + BLOCK - 1) / BLOCK);
    return 1;
}

/* What the last forward pass and loss left, without padding: image and gradient [3][height][width], the others
 * [height][width]. Pointers may be NULL. set_gradient goes the other way, for tests of the backward pass alone. */
EXPORTED void splat_take(const context *c, float *image, float *gradient, float *depth, float *transmittance) {
    int32_t width = c->view.width, height = c->view.height;
    for (int32_t row = 0; row < height; row++) {
        size_t from = (size_t)row * (size_t)c->padded_width, to = (size_t)row * (size_t)width, bytes = (size_t)width * 4;
        for (int channel = 0; channel < 3; channel++) {
            size_t there = (size_t)channel * (size_t)width * (size_t)height + to, here = (size_t)channel * plane(c) + from;
            if (image) memcpy(image + there, c->image + here, bytes);
            if (gradient) memcpy(gradient + there, c->gradient + here, bytes);
        }
        if (depth) memcpy(depth + to, c->depth + from, bytes);
        if (transmittance) memcpy(transmittance + to, c->transmittance + from, bytes);
    }
}

EXPORTED void splat_set_gradient(context *c, const float *gradient) {
    memset(c->gradient, 0, plane(c) * 3 * sizeof *c->gradient);
    int32_t width = c->view.width, height = c->view.height;
    for (int32_t row = 0; row < 3 * height; row++)
        memcpy(c->gradient + (size_t)(row / height) * plane(c) + (size_t)(row % height) * (size_t)c->padded_width,
               gradient + (size_t)row * (size_t)width, (size_t)width * 4);
}

/* How many Gaussians are visible, and how many pairs of Gaussian and tile there are. */
EXPORTED void splat_counts(const context *c, int64_t counts[2]) {
    counts[0] = c->visible;
    counts[1] = c->pairs;
}

/* Per Gaussian: centre (px), inverse covariance (a, b, c), opacity, colour, z, and whether it was drawn: [11]. */
EXPORTED void splat_projected(const context *c, float *out) {
    for (int32_t g = 0; g < c->count; g++, out += 11) {
        const splat *s = &c->splats[g];
        int drawn = c->tiles_touched[g] > 0;
        float values[11] = {s->x, s->y, s->a, s->b, s->c, exp2f(s->top), s->red, s->green, s->blue, s->depth, 1};
        if (drawn) memcpy(out, values, sizeof values);
        else memset(out, 0, sizeof values);
    }
}
