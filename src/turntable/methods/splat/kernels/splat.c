/* The hot loops of the method `splat`: what the method's Python calls, through ctypes.
 *
 * A context holds threads and scratch memory; there is no other state. One context serves one caller at a time.
 * Functions return 1, or 0 where memory ran out. Formulas: reference.py, the slow twin of all this. */
#include "loss.h"
#include "bin.h"
#include "project.h"
#include "raster.h"
#include "update.h"

#include <time.h>

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

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

EXPORTED void splat_close(context *c);

EXPORTED context *splat_open(int threads) {
    context *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    pool_open(&c->pool, threads);
    c->threads = c->pool.workers + 1;
    c->chunks = 2 * c->threads < 64 ? 2 * c->threads : 64;
    c->benches = calloc((size_t)c->threads, sizeof *c->benches);
    c->digit_counts = malloc((size_t)c->chunks * DIGITS * sizeof *c->digit_counts);
    if (c->benches && c->digit_counts) return c;
    splat_close(c);
    return NULL;
}

EXPORTED void splat_close(context *c) {
    pool_close(&c->pool);
    for (int thread = 0; c->benches && thread < c->threads; thread++) {
        free(c->benches[thread].touches);
        free(c->benches[thread].first_rows);
        free(c->benches[thread].last_rows);
        free(c->benches[thread].lines);
    }
    void *all_memory[] = {c->benches, c->splats, c->spans, c->clamped, c->order, c->order_spare, c->block_visible,
                          c->block_nearest, c->block_farthest, c->touches, c->pair_gradients, c->entries,
                          c->digit_counts, c->chunk_counts, c->tile_first, c->tile_last, c->image, c->gradient,
                          c->depth, c->transmittance, c->row_loss};
    for (size_t i = 0; i < sizeof all_memory / sizeof *all_memory; i++) free(all_memory[i]);
    free(c);
}

static int make_room(context *c, size_t count, const view *v, int with_depth) {
    if (count > c->splat_capacity || !c->splat_capacity) {
        size_t n = count + count / 4 + 64, blocks = n / BLOCK + 2;
        c->splat_capacity = 0;
        if (!RESERVE(c->splats, n) || !RESERVE(c->spans, n) || !RESERVE(c->clamped, n) || !RESERVE(c->order, n) ||
            !RESERVE(c->order_spare, n) || !RESERVE(c->block_visible, blocks) || !RESERVE(c->block_nearest, blocks) ||
            !RESERVE(c->block_farthest, blocks))
            return 0;
        c->splat_capacity = n;
    }
    c->tiles_x = (v->width + TILE_X - 1) / TILE_X;
    c->tiles_y = (v->height + TILE_Y - 1) / TILE_Y;
    c->padded_width = c->tiles_x * TILE_X;
    c->padded_height = c->tiles_y * TILE_Y;
    if ((size_t)c->tiles_x > c->column_capacity) {
        c->column_capacity = 0;
        for (int thread = 0; thread < c->threads; thread++)
            if (!RESERVE(c->benches[thread].first_rows, c->tiles_x) || !RESERVE(c->benches[thread].last_rows, c->tiles_x))
                return 0;
        c->column_capacity = (size_t)c->tiles_x;
    }
    size_t tiles = (size_t)c->tiles_x * (size_t)c->tiles_y;
    if (tiles > c->tile_capacity) {
        c->tile_capacity = 0;
        if (!RESERVE(c->chunk_counts, tiles * (size_t)c->chunks) || !RESERVE(c->tile_first, tiles + 1) ||
            !RESERVE(c->tile_last, tiles))
            return 0;
        c->tile_capacity = tiles;
    }
    size_t pixels = plane(c);
    if (pixels > c->pixel_capacity) {
        c->pixel_capacity = 0;
        if (!RESERVE(c->image, pixels * 3) || !RESERVE(c->gradient, pixels * 3)) return 0;
        c->pixel_capacity = pixels;
    }
    if ((size_t)c->padded_height > c->row_capacity) {
        c->row_capacity = 0;
        if (!RESERVE(c->row_loss, 6 * (size_t)c->padded_height)) return 0;
        c->row_capacity = (size_t)c->padded_height;
    }
    if (with_depth && pixels > c->depth_capacity) {
        c->depth_capacity = 0;
        if (!RESERVE(c->depth, pixels) || !RESERVE(c->transmittance, pixels)) return 0;
        c->depth_capacity = pixels;
    }
    return 1;
}

/* Room for the pairs that a projection has found; 0 where there is none. */
static int make_room_for_pairs(context *c, int64_t pairs) {
    size_t capacity = (size_t)pairs + (size_t)pairs / 4 + 1024;
    if (capacity > INT32_MAX) capacity = INT32_MAX; /* slots are counted in 32 bits */
    c->pair_capacity = 0;
    if (!RESERVE(c->touches, capacity) || !RESERVE(c->entries, capacity) ||
        !RESERVE(c->pair_gradients, capacity * PAIR_FLOATS))
        return 0;
    c->pair_capacity = capacity;
    return 1;
}

static int project(context *c, const float *model) {
    project_work work = {c, model};
    for (;;) {
        atomic_store(&c->slots, 0);
        atomic_store(&c->out_of_memory, 0);
        pool_run(&c->pool, project_block, &work, (c->count + BLOCK - 1) / BLOCK);
        int64_t pairs = atomic_load(&c->slots);
        if (atomic_load(&c->out_of_memory) || pairs > INT32_MAX) return 0;
        if (pairs <= (int64_t)c->pair_capacity && c->entries) return 1;
        if (!make_room_for_pairs(c, pairs)) return 0;
    }
}

/* Render into the context. With depth, the sums of weight times z and what light is left are kept as well. */
EXPORTED int splat_forward(context *c, const float *model, int64_t count, const view *v, int with_depth) {
    double start = now();
    uint64_t before = flush_denormals();
    c->view = *v;
    c->count = (int32_t)count;
    int done = make_room(c, (size_t)count, v, with_depth) && project(c, model);
    double projected = now();
    c->seconds[PROJECT] += projected - start;
    if (done) {
        bin(c);
        double binned = now();
        c->seconds[BIN] += binned - projected;
        pool_run(&c->pool, with_depth ? forward_with_depth : forward_plain, c, c->tiles_x * c->tiles_y);
        c->seconds[FORWARD] += now() - binned;
    }
    restore_denormals(before);
    return done;
}

/* The loss of the context's image against a photo, and its gradient into the context. */
EXPORTED int splat_loss(context *c, const uint8_t *photo, const uint8_t *mask, float ssim_weight, double *loss) {
    double start = now();
    uint64_t before = flush_denormals();
    int done = make_room_for_lines(c);
    if (done) *loss = loss_of(c, photo, mask, ssim_weight);
    restore_denormals(before);
    c->seconds[LOSS] += now() - start;
    return done;
}

/* From the context's image gradient to the parameters: Adam's step in place, or the gradients alone. */
EXPORTED void splat_update(context *c, float *model, float *gradients, const optimiser *o) {
    double start = now();
    uint64_t before = flush_denormals();
    pool_run(&c->pool, backward_tile, c, c->tiles_x * c->tiles_y);
    double back = now();
    update_work work = {c, model, gradients, o};
    pool_run(&c->pool, update_block, &work, (c->count + BLOCK - 1) / BLOCK);
    restore_denormals(before);
    c->seconds[BACKWARD] += back - start;
    c->seconds[UPDATE] += now() - back;
}

/* Seconds spent in each stage since the context was opened. */
EXPORTED void splat_seconds(const context *c, double seconds[STAGES]) { memcpy(seconds, c->seconds, sizeof c->seconds); }

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
        int drawn = c->spans[g].count > 0;
        float values[11] = {s->x, s->y, s->a, s->b, s->c, exp2f(s->top), s->red, s->green, s->blue, s->depth, 1};
        if (drawn) memcpy(out, values, sizeof values);
        else memset(out, 0, sizeof values);
    }
}
