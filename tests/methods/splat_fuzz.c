/* Drives the kernels of the method `splat` with hostile input; test_splat_sanitizers.py builds it with sanitizers.
 *
 *     splat_fuzz SEED ROUNDS MANY
 *
 * All chance comes from SEED. MANY is the number of Gaussians where many lie on one pixel. Exits 1 with one line on
 * stderr where an invariant doesn't hold (each stands beside its fuzz_fail), as do the sanitizers for what they find.
 *
 * The kernels are part of this file, so that memory and threads can be denied to them, and so that what they get is
 * filled with NaN: what they read before they wrote it then differs between contexts. Names here begin with fuzz_,
 * as the kernels' own names are all in sight. */
#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_int fuzz_grants = INT_MAX; /* how many allocations and threads the kernels may still have */

static int fuzz_granted(void) { return atomic_fetch_sub(&fuzz_grants, 1) > 0; }

static void *fuzz_malloc(size_t bytes) {
    void *memory = fuzz_granted() ? malloc(bytes) : NULL;
    return memory ? memset(memory, 0xff, bytes) : NULL;
}

static void *fuzz_calloc(size_t count, size_t bytes) { return fuzz_granted() ? calloc(count, bytes) : NULL; }

static void *fuzz_realloc(void *memory, size_t bytes) { return fuzz_granted() ? realloc(memory, bytes) : NULL; }

static int fuzz_memalign(void **memory, size_t alignment, size_t bytes) {
    if (!fuzz_granted()) return ENOMEM;
    int failure = posix_memalign(memory, alignment, bytes);
    if (!failure && bytes < 1u << 24) memset(*memory, 0xff, bytes); /* more would cost more time than it can show */
    return failure;
}

static int fuzz_thread(pthread_t *thread, const pthread_attr_t *wanted, void *(*run)(void *), void *argument) {
    return fuzz_granted() ? pthread_create(thread, wanted, run, argument) : EAGAIN;
}

#define malloc fuzz_malloc
#define calloc fuzz_calloc
#define realloc fuzz_realloc
#define posix_memalign fuzz_memalign
#define pthread_create fuzz_thread
#include "splat.c"
#undef malloc
#undef calloc
#undef realloc
#undef posix_memalign
#undef pthread_create

static char fuzz_doing[200] = "start";

static void fuzz_fail(const char *what, ...) {
    va_list values;
    va_start(values, what);
    fprintf(stderr, "splat_fuzz: %s: ", fuzz_doing);
    vfprintf(stderr, what, values);
    fputc('\n', stderr);
    va_end(values);
    _Exit(1); /* other threads may be at work: nothing is torn down under them */
}

/* ---- chance ---- */

static uint64_t fuzz_state;

static uint64_t fuzz_bits(void) { /* splitmix64 */
    uint64_t x = fuzz_state += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static int fuzz_below(int end) { return (int)(fuzz_bits() % (uint64_t)end); }

static float fuzz_between(float low, float high) {
    return low + (high - low) * (float)(fuzz_bits() >> 40) / (float)(1 << 24);
}

static float fuzz_normal(void) { /* nearly */
    return fuzz_between(-1, 1) + fuzz_between(-1, 1) + fuzz_between(-1, 1);
}

static float fuzz_hostile(void) {
    static const float values[] = {NAN,     INFINITY, -INFINITY, 0.0f,    -0.0f,  1e-45f, -1e-45f, 1e-38f, -1e-38f, 1e-20f,
                                   -1e-20f, 1e10f,    -1e10f,    1e19f,   -1e19f, 1e30f,  -1e30f,  3e38f,  -3e38f,  FLT_MAX,
                                   -FLT_MAX, 88.0f,   -88.0f,    200.0f,  -200.0f, 1.0f,  -1.0f};
    return values[fuzz_below((int)(sizeof values / sizeof *values))];
}

static void fuzz_spoil(float *values, size_t count, int one_in) {
    for (size_t i = 0; i < count; i++)
        if (!fuzz_below(one_in)) values[i] = fuzz_hostile();
}

/* ---- one case: a scene, a camera, a photo, and what to do with them ---- */

typedef struct {
    view view;
    int64_t count, blocks;
    float *model;          /* [blocks][RECORD][GROUP], not a byte more */
    uint8_t *photo, *mask; /* mask may be NULL */
    float *by_image;       /* NULL: the gradient is the loss's */
    float ssim_weight;
    int with_depth;
    optimiser optimiser;
} fuzz_case;

static void *fuzz_room(size_t bytes) {
    void *memory = malloc(bytes);
    if (!memory) fuzz_fail("no memory for the test itself");
    return memory;
}

static size_t fuzz_size(const fuzz_case *f, int rows) { /* of blocks with so many rows, in bytes */
    return (size_t)f->blocks * (size_t)rows * GROUP * sizeof(float);
}

static float *fuzz_blocks(const fuzz_case *f, int rows) { /* zeros, on a line of cache, as model.blocks() gives them */
    void *memory;
    if (posix_memalign(&memory, 64, fuzz_size(f, rows))) fuzz_fail("no memory for the test itself");
    return memset(memory, 0, fuzz_size(f, rows));
}

static void *fuzz_copy(const void *from, size_t bytes) { return memcpy(fuzz_room(bytes), from, bytes); }

static size_t fuzz_pixels(const fuzz_case *f) { return (size_t)f->view.width * (size_t)f->view.height; }

static void fuzz_close(fuzz_case *f) {
    free(f->model), free(f->photo), free(f->mask), free(f->by_image);
}

static float *fuzz_at(float *blocks, int rows, int row, int64_t g) {
    return blocks + ((size_t)(g / GROUP) * (size_t)rows + (size_t)row) * GROUP + g % GROUP;
}

static float *fuzz_of(const fuzz_case *f, int row, int64_t g) { return fuzz_at(f->model, RECORD, row, g); }

/* ---- scenes ---- */

static void fuzz_scene(fuzz_case *f, int64_t count, float spread) {
    f->count = count;
    f->blocks = (count + GROUP - 1) / GROUP + !fuzz_below(4);
    f->model = fuzz_blocks(f, RECORD);
    for (int64_t g = 0; g < f->blocks * GROUP; g++) {
        for (int row = 0; row < ACTIVITY && g >= count; row++) /* what lies beyond count must not matter */
            *fuzz_of(f, row, g) = fuzz_hostile();
        for (int row = ACTIVITY; row < RECORD; row++) *fuzz_of(f, row, g) = fuzz_between(0, 10);
    }
    for (int64_t g = 0; g < count; g++) {
        for (int i = 0; i < 3; i++) *fuzz_of(f, MEAN + i, g) = fuzz_between(-spread, spread);
        for (int i = 0; i < 3; i++) *fuzz_of(f, SCALE + i, g) = fuzz_between(-4, -1);
        for (int i = 0; i < 4; i++) *fuzz_of(f, QUATERNION + i, g) = fuzz_normal();
        *fuzz_of(f, OPACITY, g) = 2 * fuzz_normal();
        for (int i = 0; i < 48; i++) *fuzz_of(f, HARMONIC + i, g) = fuzz_normal() * (i < 3 ? 1.0f : 0.15f);
    }
}

static void fuzz_fill(fuzz_case *f, int first, int rows, float value) {
    for (int row = first; row < first + rows; row++)
        for (int64_t g = 0; g < f->count; g++) *fuzz_of(f, row, g) = value;
}

static void fuzz_spoil_row(fuzz_case *f, int row, int one_in) {
    for (int64_t g = 0; g < f->count; g++) fuzz_spoil(fuzz_of(f, row, g), 1, one_in);
}

static int fuzz_few(void) { return 1 + fuzz_below(fuzz_below(5) ? 100 : 700); } /* more than one block of 256, at times */

static void fuzz_tame(fuzz_case *f) { fuzz_scene(f, fuzz_few(), 1); }

static void fuzz_empty(fuzz_case *f) { fuzz_scene(f, 0, 1); }

static void fuzz_entries(fuzz_case *f) { /* a few entries of most Gaussians are hostile */
    fuzz_scene(f, fuzz_few(), 1);
    for (int64_t g = 0; g < f->count; g++)
        for (int entries = fuzz_below(5); entries > 0; entries--) *fuzz_of(f, fuzz_below(ROWS), g) = fuzz_hostile();
}

static void fuzz_garbage(fuzz_case *f) {
    fuzz_scene(f, fuzz_few(), 1);
    for (int row = 0; row < ROWS; row++) fuzz_spoil_row(f, row, 1);
}

static void fuzz_parameter(fuzz_case *f) { /* one kind of parameter is hostile throughout, the others are tame */
    static const int first[] = {MEAN, SCALE, QUATERNION, OPACITY, HARMONIC}, rows[] = {3, 3, 4, 1, 48};
    int kind = fuzz_below(5);
    fuzz_scene(f, fuzz_few(), 1);
    for (int row = first[kind], one_in = 1 + fuzz_below(3); row < first[kind] + rows[kind]; row++)
        fuzz_spoil_row(f, row, one_in);
}

static void fuzz_sizes(fuzz_case *f) { /* logarithms of scales, from what is nothing to what is infinite */
    static const float scales[] = {-FLT_MAX, -200, -87, -40, -15, 0, 3, 8, 15, 20, 30, 44, 60, 87, 88.8f, 200, FLT_MAX};
    fuzz_scene(f, fuzz_few(), 1);
    int alike = fuzz_below(2);
    for (int64_t g = 0; g < f->count; g++)
        for (int i = 0; i < 3; i++)
            *fuzz_of(f, SCALE + i, g) = i && alike ? *fuzz_of(f, SCALE, g) : scales[fuzz_below(17)];
}

static void fuzz_needles(fuzz_case *f) { /* so long and thin that covariances lose their digits */
    fuzz_scene(f, fuzz_few(), 1);
    fuzz_fill(f, SCALE + 1, 2, fuzz_between(-12, -5));
    for (int64_t g = 0; g < f->count; g++) *fuzz_of(f, SCALE, g) = fuzz_between(2, 8);
    fuzz_fill(f, OPACITY, 1, 6);
}

static void fuzz_unturned(fuzz_case *f) { /* quaternions of no, hardly any, and enormous length */
    static const float lengths[] = {0, 1e-45f, 1e-25f, 1e-13f, 1e-12f, 1e15f, 1e25f, FLT_MAX};
    fuzz_scene(f, fuzz_few(), 1);
    for (int64_t g = 0; g < f->count; g++) {
        float length = lengths[fuzz_below(8)];
        for (int i = 0; i < 4; i++) *fuzz_of(f, QUATERNION + i, g) = fuzz_below(3) ? length : -length;
    }
}

static void fuzz_scattered(fuzz_case *f) { /* behind the camera and far outside its view */
    fuzz_scene(f, fuzz_few(), 1);
    for (int64_t g = 0; g < f->count; g++) {
        float far = expf(fuzz_between(0, fuzz_below(2) ? 8 : 85));
        for (int i = 0; i < 3; i++) *fuzz_of(f, MEAN + i, g) *= far;
    }
}

static void fuzz_at_near(fuzz_case *f) { /* at the near plane, and one float before and behind it */
    fuzz_scene(f, fuzz_few(), 0.2f);
    view *v = &f->view;
    for (int i = 0; i < 9; i++) v->rotation[i] = i % 4 == 0;
    for (int i = 0; i < 3; i++) v->translation[i] = 0;
    for (int64_t g = 0; g < f->count; g++) {
        float toward = fuzz_below(2) ? INFINITY : -INFINITY;
        *fuzz_of(f, MEAN + 2, g) = fuzz_below(2) ? v->near : nextafterf(v->near, toward);
    }
}

static void fuzz_cover(fuzz_case *f) { /* one Gaussian, or a few, over everything, opaque or nearly invisible */
    fuzz_scene(f, 1 + fuzz_below(3), 0.1f);
    fuzz_fill(f, SCALE, 3, fuzz_between(2, 20));
    fuzz_fill(f, OPACITY, 1, fuzz_below(2) ? -5.5f : 12);
}

static void fuzz_faint(fuzz_case *f) { /* far, enormous, and so faint that noise moves them: beyond floats' range */
    float size = fuzz_between(42, 44);
    fuzz_scene(f, fuzz_few(), expf(size + 1));
    fuzz_fill(f, SCALE, 3, size);
    fuzz_fill(f, OPACITY, 1, fuzz_between(-5.4f, -4.5f));
}

static void fuzz_pile(fuzz_case *f) { /* many on one pixel, all as deep, with gradients that add up or cancel */
    fuzz_scene(f, 300 + fuzz_below(1500), 1e-4f);
    fuzz_fill(f, MEAN + 2, 1, 0);
    fuzz_fill(f, SCALE, 3, fuzz_between(-9, -3));
    fuzz_fill(f, OPACITY, 1, fuzz_between(-5.5f, 0));
}

static void fuzz_bright(fuzz_case *f) { /* colours as great as floats go, below and above 0 */
    fuzz_scene(f, fuzz_few(), 1);
    float factor = expf(fuzz_between(0, 87));
    for (int row = HARMONIC; row < ROWS; row++)
        for (int64_t g = 0; g < f->count; g++) *fuzz_of(f, row, g) *= factor;
}

static const struct {
    const char *name;
    void (*make)(fuzz_case *);
} fuzz_scenes[] = {
    {"tame", fuzz_tame},           {"empty", fuzz_empty},           {"hostile entries", fuzz_entries},
    {"garbage", fuzz_garbage},     {"one parameter", fuzz_parameter}, {"sizes", fuzz_sizes},
    {"unturned", fuzz_unturned},   {"scattered", fuzz_scattered},   {"at the near plane", fuzz_at_near},
    {"over everything", fuzz_cover}, {"faint", fuzz_faint},         {"pile", fuzz_pile},
    {"needles", fuzz_needles},     {"bright", fuzz_bright}};

/* ---- cameras ---- */

static view fuzz_camera(int32_t width, int32_t height) { /* 3 away from the origin, looking at it, turned anyhow */
    float q[4], length = 0;
    for (int i = 0; i < 4; i++) q[i] = fuzz_normal() + 0.01f, length += q[i] * q[i];
    length = sqrtf(length);
    float w = q[0] / length, x = q[1] / length, y = q[2] / length, z = q[3] / length;
    float focal = fuzz_between(0.6f, 2) * (float)(width > height ? width : height);
    return (view){
        .width = width,
        .height = height,
        .fx = focal,
        .fy = focal * fuzz_between(0.9f, 1.1f),
        .cx = (float)width * fuzz_between(0.3f, 0.7f),
        .cy = (float)height * fuzz_between(0.3f, 0.7f),
        .rotation = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                     2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                     2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)},
        .translation = {0.1f, -0.2f, 3},
        .near = 0.2f,
        .dilation = fuzz_below(4) ? 0.3f : fuzz_between(0.01f, 5),
        .background = {fuzz_between(0, 1), fuzz_between(0, 1), fuzz_between(0, 1)},
        .degree = fuzz_below(4),
        .filter = fuzz_below(2),
    };
}

static void fuzz_any_camera(view *v) { (void)v; }

static void fuzz_lens(view *v) { /* focal lengths, centre, and how blurred the picture is */
    float *values[] = {&v->fx, &v->fy, &v->cx, &v->cy, &v->dilation};
    for (int i = 0; i < 5; i++) fuzz_spoil(values[i], 1, 2);
}

static void fuzz_rotation(view *v) { /* singular, enormous, or not a matrix of numbers */
    int kind = fuzz_below(4);
    for (int i = 0; i < 9; i++) {
        if (kind == 0) v->rotation[i] = 0;
        if (kind == 1) v->rotation[i] = v->rotation[i % 3];
        if (kind == 2) v->rotation[i] *= 1e30f;
    }
    if (kind == 3) fuzz_spoil(v->rotation, 9, 3);
}

static void fuzz_translation(view *v) {
    if (fuzz_below(2)) fuzz_spoil(v->translation, 3, 2);
    else v->translation[2] = fuzz_below(2) ? -50 : 1e6f;
}

static void fuzz_near(view *v) { v->near = fuzz_hostile(); }

static void fuzz_background(view *v) { fuzz_spoil(v->background, 3, 2); }

static void fuzz_any_field(view *v) {
    fuzz_lens(v);
    fuzz_rotation(v);
    fuzz_translation(v);
    if (fuzz_below(2)) fuzz_near(v);
}

static const struct {
    const char *name;
    void (*spoil)(view *);
} fuzz_cameras[] = {{"tame", fuzz_any_camera},       {"lens", fuzz_lens}, {"rotation", fuzz_rotation},
                    {"translation", fuzz_translation}, {"near", fuzz_near}, {"background", fuzz_background},
                    {"all", fuzz_any_field}};

/* ---- photos, the image's gradients, moments ---- */

static void fuzz_photo(fuzz_case *f) {
    size_t pixels = fuzz_pixels(f);
    f->photo = fuzz_room(pixels * 3);
    int kind = fuzz_below(4);
    for (size_t i = 0; i < pixels * 3; i++)
        f->photo[i] = kind == 0 ? 0 : kind == 1 ? 255 : (uint8_t)fuzz_below(256);
    kind = fuzz_below(4);
    if (kind == 0) return;
    f->mask = fuzz_room(pixels);
    for (size_t i = 0; i < pixels; i++) f->mask[i] = kind == 1 ? 0 : (uint8_t)(fuzz_below(kind) ? fuzz_below(256) : 0);
    if (kind == 3) f->mask[fuzz_below((int)pixels)] = 1;
}

static void fuzz_image_gradient(fuzz_case *f) {
    int kind = fuzz_below(8);
    if (kind < 4) return;
    size_t values = fuzz_pixels(f) * 3;
    f->by_image = fuzz_room(values * sizeof(float));
    float factor = kind == 4 ? expf(fuzz_below(2) ? fuzz_between(-87, 87) : fuzz_between(40, 80)) : 1;
    for (size_t i = 0; i < values; i++) f->by_image[i] = kind == 7 ? fuzz_hostile() : factor * fuzz_normal();
    if (kind == 6) f->by_image[fuzz_below((int)values)] = fuzz_hostile();
}

static void fuzz_optimiser(fuzz_case *f) {
    int kind = fuzz_below(4);
    for (int row = FIRST; kind > 0 && row < ACTIVITY; row++) {
        for (int64_t g = 0; g < f->count; g++) *fuzz_of(f, row, g) = row < SECOND ? fuzz_normal() : fuzz_between(0, 1);
        if (kind > 1) fuzz_spoil_row(f, row, kind == 2 ? 10 : 1);
    }
    static const float noises[] = {0, 0, 1e-3f, 100};
    float step = 1 + (float)fuzz_below(1000);
    f->optimiser = (optimiser){
        .first = 0.9f,
        .second = 0.999f,
        .unbias_first = 1 / (1 - powf(0.9f, step)),
        .unbias_second = 1 / (1 - powf(0.999f, step)),
        .epsilon = 1e-30f,
        .opacity_weight = fuzz_below(2) ? 0.01f : 0,
        .scale_weight = fuzz_below(2) ? 0.01f : 0,
        .noise = noises[fuzz_below(4)],
        .seed = fuzz_bits(),
    };
    for (int row = 0; row < ROWS; row++) f->optimiser.rate[row] = fuzz_below(20) ? 0.01f : fuzz_between(0, 1e30f);
}

static void fuzz_fill_case(fuzz_case *f, void (*make)(fuzz_case *)) { /* all but the camera, which scenes may adapt */
    make(f);
    fuzz_photo(f);
    fuzz_image_gradient(f);
    fuzz_optimiser(f);
    f->ssim_weight = fuzz_below(3) ? 0.2f : (float)fuzz_below(2);
    f->with_depth = fuzz_below(2);
}

static int32_t fuzz_length(void) { /* of an image's side: one pixel, multiples of a tile's side, and all between */
    static const int32_t lengths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64};
    return fuzz_below(2) ? lengths[fuzz_below(12)] : 1 + fuzz_below(80);
}

static fuzz_case fuzz_any_case(int *scene, int *camera) {
    int32_t width = fuzz_length(), height = fuzz_length();
    if (!fuzz_below(8)) width = 1, height = 1 + fuzz_below(600);
    else if (!fuzz_below(8)) height = 1, width = 1 + fuzz_below(600);
    fuzz_case f = {.view = fuzz_camera(width, height)};
    *scene = fuzz_below((int)(sizeof fuzz_scenes / sizeof *fuzz_scenes));
    *camera = fuzz_below(2) ? 0 : fuzz_below((int)(sizeof fuzz_cameras / sizeof *fuzz_cameras));
    fuzz_fill_case(&f, fuzz_scenes[*scene].make);
    fuzz_cameras[*camera].spoil(&f.view);
    return f;
}

/* ---- what comes out ---- */

typedef struct {
    float *image, *by_image, *gradients; /* [3][height][width], the same, [blocks][ROWS][GROUP] */
    float *depth, *left;                 /* [height][width], of a rendering with depth, else NULL */
    float *projected;                    /* [count][11] */
    double loss;
    int64_t counts[2];
} fuzz_result;

static void fuzz_forget(fuzz_result *r) {
    free(r->image), free(r->by_image), free(r->gradients), free(r->depth), free(r->left), free(r->projected);
}

static void fuzz_caller_keeps_denormals(void) {
    static volatile float least = 1e-45f;
    if (least * 1.0f == 0) fuzz_fail("the caller's denormals are zeros after a call");
}

/* Everything but Adam's step. 0 where a kernel says that memory ran out. */
static int fuzz_render(context *c, const fuzz_case *f, fuzz_result *r) {
    size_t pixels = fuzz_pixels(f), bytes = pixels * sizeof(float);
    *r = (fuzz_result){0};
    if (!splat_forward(c, f->model, f->count, &f->view, f->with_depth)) return 0;
    splat_counts(c, r->counts);
    r->projected = fuzz_room((size_t)f->count * 11 * sizeof(float));
    splat_projected(c, r->projected);
    r->image = fuzz_room(3 * bytes);
    if (f->with_depth) r->depth = fuzz_room(bytes), r->left = fuzz_room(bytes);
    splat_take(c, r->image, NULL, r->depth, r->left);
    if (f->by_image) splat_set_gradient(c, f->by_image);
    else if (!splat_loss(c, f->photo, f->mask, f->ssim_weight, &r->loss)) return 0;
    r->by_image = fuzz_room(3 * bytes);
    splat_take(c, NULL, r->by_image, NULL, NULL);
    r->gradients = fuzz_blocks(f, ROWS);
    splat_update(c, f->model, r->gradients, NULL);
    fuzz_caller_keeps_denormals();
    return 1;
}

static void fuzz_finite(const char *what, const float *values, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i])) fuzz_fail("%s: %g at %zu of %zu", what, (double)values[i], i, count);
}

static void fuzz_check(const fuzz_case *f, const fuzz_result *r) {
    const view *v = &f->view;
    size_t pixels = fuzz_pixels(f);
    if (r->counts[0] < 0 || r->counts[0] > f->count || r->counts[1] < 0)
        fuzz_fail("counts are %lld and %lld", (long long)r->counts[0], (long long)r->counts[1]);
    for (int64_t g = 0; g < f->count; g++) {
        const float *p = r->projected + 11 * g;
        if (p[10] != 0 && p[10] != 1) fuzz_fail("drawn is %g of Gaussian %lld", (double)p[10], (long long)g);
        if (p[10] == 0) continue;
        fuzz_finite("a drawn Gaussian's projection", p, 11);
        if (!(p[9] > v->near)) fuzz_fail("Gaussian %lld at %g is not beyond the near plane", (long long)g, (double)p[9]);
    }
    for (int channel = 0; channel < 3; channel++)
        if (isfinite(v->background[channel]))
            fuzz_finite("the image", r->image + (size_t)channel * pixels, pixels);
    if (r->depth) fuzz_finite("the depth", r->depth, pixels);
    for (size_t i = 0; r->left && i < pixels; i++)
        if (!(r->left[i] >= 0 && r->left[i] <= 1)) fuzz_fail("light left is %g at pixel %zu", (double)r->left[i], i);
    if (f->by_image && memcmp(f->by_image, r->by_image, 3 * pixels * sizeof(float)))
        fuzz_fail("the gradient that was set is not the one that is taken");
    int counted = 0;
    for (size_t i = 0; i < pixels; i++) counted += !f->mask || f->mask[i];
    if (!f->by_image && !counted) {
        if (r->loss != 0) fuzz_fail("the loss is %g of a photo that is all masked", r->loss);
        for (size_t i = 0; i < 3 * pixels; i++)
            if (r->by_image[i] != 0) fuzz_fail("a photo that is all masked has a gradient at %zu", i);
    }
    for (int row = 0; row < ROWS; row++)
        for (int64_t g = 0; g < f->count; g++) {
            float value = *fuzz_at(r->gradients, ROWS, row, g);
            if (!isfinite(value))
                fuzz_fail("the gradient of row %d of Gaussian %lld is %g", row, (long long)g, (double)value);
        }
}

static void fuzz_alike(const char *what, const void *a, const void *b, size_t bytes) {
    if ((a || b) && memcmp(a, b, bytes)) fuzz_fail("%s differs from what a new context of one thread gives", what);
}

static void fuzz_compare(const fuzz_case *f, const fuzz_result *a, const fuzz_result *b) {
    size_t bytes = fuzz_pixels(f) * sizeof(float);
    fuzz_alike("what is counted", a->counts, b->counts, sizeof a->counts);
    fuzz_alike("the projection", a->projected, b->projected, (size_t)f->count * 11 * sizeof(float));
    fuzz_alike("the image", a->image, b->image, 3 * bytes);
    fuzz_alike("the depth", a->depth, b->depth, bytes);
    fuzz_alike("the light left", a->left, b->left, bytes);
    if (!(isnan(a->loss) && isnan(b->loss))) fuzz_alike("the loss", &a->loss, &b->loss, sizeof a->loss);
    fuzz_alike("the image's gradient", a->by_image, b->by_image, 3 * bytes);
    fuzz_alike("a gradient", a->gradients, b->gradients, fuzz_size(f, ROWS));
}

static context *fuzz_open(int threads) {
    context *c = splat_open(threads);
    if (!c) fuzz_fail("no context, where there was memory");
    return c;
}

static fuzz_result fuzz_expected(const fuzz_case *f) {
    context *c = fuzz_open(1);
    fuzz_result r;
    if (!fuzz_render(c, f, &r)) fuzz_fail("a new context says that memory ran out, where it didn't");
    splat_close(c);
    return r;
}

/* Adam's step: what was finite stays finite, what isn't seen or isn't there stays as it was, to the bit. */
static void fuzz_step(context *c, fuzz_case *f, const float *projected) {
    float *before = fuzz_copy(f->model, fuzz_size(f, RECORD));
    splat_update(c, f->model, NULL, &f->optimiser);
    fuzz_caller_keeps_denormals();
    for (int row = 0; row < RECORD; row++)
        for (int64_t g = 0; g < f->blocks * GROUP; g++) {
            float *was = fuzz_at(before, RECORD, row, g), *now = fuzz_of(f, row, g);
            int seen = g < f->count && projected[11 * g + 10] == 1;
            if (!seen && memcmp(was, now, sizeof *was))
                fuzz_fail("row %d of Gaussian %lld of %lld, which isn't seen, was %g; a step made it %g", row, (long long)g,
                          (long long)f->count, (double)*was, (double)*now);
            int kept = row < ACTIVITY ? isfinite(*now) : *now >= *was; /* sums of sizes may become infinite */
            if (isfinite(*was) && !kept)
                fuzz_fail("row %d of Gaussian %lld was %g, a step made it %g", row, (long long)g, (double)*was,
                          (double)*now);
        }
    free(before);
}

/* ---- rounds ---- */

static long fuzz_drawn, fuzz_moved; /* rounds that drew something, and that had a gradient that isn't 0 */

static void fuzz_count_round(const fuzz_case *f, const fuzz_result *r) {
    int moved = 0;
    for (size_t i = 0; i < fuzz_size(f, ROWS) / sizeof(float); i++) moved |= r->gradients[i] != 0;
    fuzz_drawn += r->counts[0] > 0;
    fuzz_moved += moved;
}

static void fuzz_round(context *c, fuzz_case *f) {
    fuzz_result r, expected = fuzz_expected(f);
    float *before = fuzz_copy(f->model, fuzz_size(f, RECORD));
    if (!fuzz_render(c, f, &r)) fuzz_fail("a kernel says that memory ran out, where it didn't");
    if (memcmp(before, f->model, fuzz_size(f, RECORD)))
        fuzz_fail("asking for gradients changed the model");
    fuzz_check(f, &r);
    fuzz_compare(f, &r, &expected);
    fuzz_count_round(f, &r);
    fuzz_step(c, f, r.projected);
    free(before);
    fuzz_forget(&r);
    fuzz_forget(&expected);
}

typedef struct {
    const fuzz_case *f;
    fuzz_result result;
    int done;
} fuzz_guest;

static void *fuzz_visit(void *argument) {
    fuzz_guest *guest = argument;
    context *c = splat_open(2);
    guest->done = c && fuzz_render(c, guest->f, &guest->result);
    if (c) splat_close(c);
    return NULL;
}

/* Contexts share nothing, so callers may each use their own at the same time. */
static void fuzz_side_by_side(const fuzz_case *f) {
    fuzz_guest guests[2] = {{.f = f}, {.f = f}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, fuzz_visit, &guests[i])) fuzz_fail("no thread for the test itself");
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    fuzz_result expected = fuzz_expected(f);
    for (int i = 0; i < 2; i++) {
        if (!guests[i].done) fuzz_fail("one of two callers is told that memory ran out");
        fuzz_compare(f, &guests[i].result, &expected);
        fuzz_forget(&guests[i].result);
    }
    fuzz_forget(&expected);
}

/* Each of the kernels' allocations and threads fails once: they then say so or do without, and the same context
 * renders what comes next as if nothing had been. `warm` is what the context has rendered before, or NULL. */
static void fuzz_denied(const fuzz_case *warm, const fuzz_case *f, const fuzz_case *next, int threads) {
    fuzz_result r, expected = fuzz_expected(f), expected_next = fuzz_expected(next);
    for (int grants = 0, denied = 1; denied; grants++) {
        if (!warm) atomic_store(&fuzz_grants, grants);
        context *c = splat_open(threads);
        if (c && warm) {
            if (!fuzz_render(c, warm, &r)) fuzz_fail("a kernel says that memory ran out, where it didn't");
            fuzz_forget(&r);
            atomic_store(&fuzz_grants, grants);
        }
        int done = c && fuzz_render(c, f, &r);
        denied = atomic_load(&fuzz_grants) < 0;
        atomic_store(&fuzz_grants, INT_MAX);
        if (!done && !denied) fuzz_fail("a kernel says that memory ran out, where it didn't");
        if (done) fuzz_compare(f, &r, &expected);
        if (!c) continue;
        fuzz_forget(&r);
        if (!fuzz_render(c, next, &r)) fuzz_fail("memory ran out once, and a kernel says so again");
        fuzz_compare(next, &r, &expected_next);
        fuzz_forget(&r);
        splat_close(c);
    }
    fuzz_forget(&expected);
    fuzz_forget(&expected_next);
}

static fuzz_case fuzz_plain_case(int32_t width, int32_t height, void (*make)(fuzz_case *)) {
    fuzz_case f = {.view = fuzz_camera(width, height)};
    fuzz_fill_case(&f, make);
    free(f.by_image); /* the loss allocates, and so does depth */
    f.by_image = NULL;
    f.with_depth = 1;
    return f;
}

static void fuzz_twenty(fuzz_case *f) { fuzz_scene(f, 20, 1); }

static void fuzz_thousands(fuzz_case *f) { fuzz_scene(f, 1000, 1); } /* all that twenty needed must grow */

static void fuzz_deny(void) {
    fuzz_case small = fuzz_plain_case(20, 10, fuzz_twenty), large = fuzz_plain_case(70, 37, fuzz_thousands);
    fuzz_case empty = fuzz_plain_case(9, 9, fuzz_empty);
    const fuzz_case *cases[] = {NULL, &small, &large, &empty};
    snprintf(fuzz_doing, sizeof fuzz_doing, "memory and threads denied");
    for (int warm = 0; warm < 4; warm++)
        fuzz_denied(cases[warm], cases[1 + fuzz_below(3)], cases[1 + fuzz_below(3)], 1 + fuzz_below(4));
    fuzz_denied(&small, &large, &small, 2);
    fuzz_denied(NULL, &large, &empty, 2);
    fuzz_close(&small), fuzz_close(&large), fuzz_close(&empty);
}

static void fuzz_clock(const context *c) {
    double seconds[STAGES];
    splat_seconds(c, seconds);
    for (int stage = 0; stage < STAGES; stage++)
        if (!(seconds[stage] >= 0 && isfinite(seconds[stage]))) fuzz_fail("stage %d took %g s", stage, seconds[stage]);
}

/* Before anything was rendered there is an image of no pixels. */
static void fuzz_unused(void) {
    context *c = fuzz_open(1 + fuzz_below(4));
    int64_t counts[2] = {-1, -1};
    snprintf(fuzz_doing, sizeof fuzz_doing, "a context that has rendered nothing");
    splat_counts(c, counts);
    if (counts[0] || counts[1]) fuzz_fail("counts are %lld and %lld", (long long)counts[0], (long long)counts[1]);
    fuzz_clock(c);
    splat_projected(c, NULL);
    splat_take(c, NULL, NULL, NULL, NULL);
    splat_close(c);
}

static int64_t fuzz_many;

static void fuzz_crowd(fuzz_case *f) {
    fuzz_scene(f, fuzz_many, 1e-4f);
    fuzz_fill(f, SCALE, 3, -12);
    fuzz_fill(f, OPACITY, 1, -5);
}

static void fuzz_very_many(void) {
    snprintf(fuzz_doing, sizeof fuzz_doing, "%lld Gaussians on one pixel", (long long)fuzz_many);
    fuzz_case f = fuzz_plain_case(16, 9, fuzz_crowd);
    context *c = fuzz_open(3);
    fuzz_round(c, &f);
    splat_close(c);
    fuzz_close(&f);
}

int main(int arguments, char **argument) {
    if (arguments != 4) {
        fprintf(stderr, "usage: %s SEED ROUNDS MANY\n", argument[0]);
        return 2;
    }
    uint64_t seed = strtoull(argument[1], NULL, 10);
    int rounds = atoi(argument[2]);
    fuzz_many = atoll(argument[3]);
    if (splat_level() < 0 || splat_level() > 2) fuzz_fail("the processor's level is %d", splat_level());
    context *contexts[4]; /* of 1 to 4 threads, each used again and again for scenes and images that grow and shrink */
    for (int i = 0; i < 4; i++) contexts[i] = fuzz_open(i + 1);
    for (int round = 0; round < rounds; round++) {
        fuzz_state = (seed << 32) + (uint64_t)round; /* so that a round's number finds it */
        atomic_store(&fuzz_grants, INT_MAX);
        int scene, camera, threads = 1 + fuzz_below(4);
        fuzz_case f = fuzz_any_case(&scene, &camera);
        snprintf(fuzz_doing, sizeof fuzz_doing,
                 "seed %llu, round %d, scene '%s', camera '%s', %dx%d, %lld Gaussians, degree %d, filter %d, %d threads",
                 (unsigned long long)seed, round, fuzz_scenes[scene].name, fuzz_cameras[camera].name, f.view.width,
                 f.view.height, (long long)f.count, f.view.degree, f.view.filter, threads);
        fuzz_round(contexts[threads - 1], &f);
        if (round % 16 == 0) fuzz_side_by_side(&f);
        fuzz_close(&f);
    }
    for (int i = 0; i < 4; i++) {
        fuzz_clock(contexts[i]);
        splat_close(contexts[i]);
    }
    fuzz_state = seed << 32 | UINT32_MAX;
    fuzz_unused();
    fuzz_deny();
    fuzz_very_many();
    snprintf(fuzz_doing, sizeof fuzz_doing, "end");
    if (4 * fuzz_drawn < rounds || 6 * fuzz_moved < rounds)
        fuzz_fail("only %ld rounds of %d drew something, %ld had gradients: this tests nothing", fuzz_drawn, rounds,
                  fuzz_moved);
    printf("%d rounds, %ld drew something, %ld had gradients\n", rounds, fuzz_drawn, fuzz_moved);
    return 0;
}
