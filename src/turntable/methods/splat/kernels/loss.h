/* The loss 0.8 L1 + 0.2 (1 - SSIM) and its gradient with respect to the image.
 *
 * SSIM: Gaussian window of 11, sigma 1.5, K1 0.01, K2 0.03, per channel, zeros beyond the border (as 3DGS trains;
 * scores use the valid region, but training must also work on images smaller than the window).
 * Where the mask is 0 both image and photo become 0, like what lies beyond the border, so nothing there can matter;
 * both means are over pixels that count.
 *
 * The window is separable, and so is its adjoint. A task streams down a band of one channel: row r is blurred along,
 * the row 5 above it is then known in full and gives SSIM's slopes, which are blurred along, and 5 rows further up
 * the gradient is done. Eleven rows of each are kept, so the work stays in the cache whatever the photo's size. */
#ifndef SPLAT_LOSS_H
#define SPLAT_LOSS_H

#include "state.h"

#define REACH 5
#define WINDOW_ROWS (2 * REACH + 1)

static const float WINDOW[REACH + 1] = {0.26601172f, 0.21300554f, 0.10936069f, 0.036000773f, 0.0075987582f, 0.0010283801f};

typedef struct {
    context *context;
    const uint8_t *photo, *mask; /* [height][width][3]; [height][width] or NULL */
    float ssim_weight;
    double counted; /* pixels */
    int bands;
} loss_work;

enum { IMAGE, PHOTO, SOURCES };             /* rows as they are */
enum { MEAN_I, MEAN_P, SQUARES, PRODUCT, MAPS }; /* blurred: i, p, i² + p², i p */
enum { BY_MEAN, BY_SQUARE, BY_PRODUCT, SLOPES };

/* Lines of floats, each with REACH zeros on either side and padding up to whole vectors. What is blurred along lies
 * vector by vector, all maps of one vector side by side: eleven rows times four maps are more addresses than a
 * processor has registers. */
typedef struct {
    size_t stride;
    float *source[WINDOW_ROWS][SOURCES], *blurred[WINDOW_ROWS], *slopes[WINDOW_ROWS];
    float *squares, *product, *slope[SLOPES], *counts;
} lines;

#define LINES (WINDOW_ROWS * (SOURCES + MAPS + SLOPES) + 2 + SLOPES + 1)

INLINE size_t line_stride(const context *c) { return ((size_t)c->padded_width + 2 * REACH + 2 * 16 - 1) / 16 * 16; }

static void lay_out(const context *c, float *memory, lines *l) {
    size_t stride = l->stride = line_stride(c);
    memset(memory, 0, LINES * stride * sizeof *memory);
    float *next = memory + REACH;
    for (int row = 0; row < WINDOW_ROWS; row++) {
        for (int m = 0; m < SOURCES; m++, next += stride) l->source[row][m] = next;
        l->blurred[row] = next;
        l->slopes[row] = next + MAPS * stride;
        next += (MAPS + SLOPES) * stride;
    }
    for (int m = 0; m < SLOPES; m++, next += stride) l->slope[m] = next;
    l->squares = next;
    l->product = next + stride;
    l->counts = next + 2 * stride;
}

/* One line blurred along x, as map m of `maps`; `from` has REACH zeros on either side. */
INLINE void blur_along(const float *from, float *to, int32_t width, int m, int maps) {
    for (int32_t x = 0; x < width; x += LANES) {
        vf sum = WINDOW[0] * load(from + x);
        for (int k = 1; k <= REACH; k++) sum += WINDOW[k] * (load(from + x - k) + load(from + x + k));
        store(to + (size_t)x * (size_t)maps + m * LANES, sum);
    }
}

/* All maps of a vector blurred down the rows. */
INLINE void blur_down(const float *const rows[WINDOW_ROWS], int32_t x, int maps, vf sum[]) {
    size_t at = (size_t)x * (size_t)maps;
    for (int m = 0; m < maps; m++) sum[m] = WINDOW[0] * load(rows[REACH] + at + m * LANES);
    for (int k = 1; k <= REACH; k++) {
        const float *above = rows[REACH - k] + at, *below = rows[REACH + k] + at;
        for (int m = 0; m < maps; m++) sum[m] += WINDOW[k] * (load(above + m * LANES) + load(below + m * LANES));
    }
}

INLINE int ring(int32_t row) { return (int)((row + 4 * WINDOW_ROWS) % WINDOW_ROWS); }

/* 1 where a pixel of the row counts, 0 where not and beyond the border. */
INLINE void find_counts(const loss_work *work, int32_t row, float *counts) {
    const view *v = &work->context->view;
    if (!work->mask) {
        for (int32_t x = 0; x < v->width; x++) counts[x] = 1;
        return;
    }
    const uint8_t *mask = work->mask + (size_t)row * (size_t)v->width;
    for (int32_t x = 0; x < v->width; x++) counts[x] = mask[x] ? 1.0f : 0.0f;
}

/* Row `row` of image and photo, and its blurred maps, into the ring; zeros beyond the border. */
static void blur_sources(const loss_work *work, lines *l, int channel, int32_t row) {
    const context *c = work->context;
    int32_t width = c->view.width, padded = c->padded_width;
    float **source = l->source[ring(row)], *blurred = l->blurred[ring(row)];
    if (row < 0 || row >= c->view.height) {
        memset(blurred, 0, MAPS * (size_t)padded * sizeof *blurred);
        return;
    }
    const uint8_t *photo = work->photo + (size_t)row * (size_t)width * 3 + channel;
    const float *image = c->image + (size_t)channel * plane(c) + (size_t)row * (size_t)padded;
    float *i_row = source[IMAGE], *p_row = source[PHOTO];
    memcpy(i_row, image, (size_t)width * sizeof *image);
    for (int32_t x = 0; x < width; x++) p_row[x] = (float)photo[3 * x] * (1.0f / 255);
    if (work->mask) {
        find_counts(work, row, l->counts);
        for (int32_t x = 0; x < width; x++)
            if (l->counts[x] == 0) i_row[x] = p_row[x] = 0;
    }
    for (int32_t x = 0; x < padded; x += LANES) {
        vf i = load(i_row + x), p = load(p_row + x);
        store(l->squares + x, i * i + p * p);
        store(l->product + x, i * p);
    }
    blur_along(i_row, blurred, padded, MEAN_I, MAPS);
    blur_along(p_row, blurred, padded, MEAN_P, MAPS);
    blur_along(l->squares, blurred, padded, SQUARES, MAPS);
    blur_along(l->product, blurred, padded, PRODUCT, MAPS);
}

/* SSIM of a row and its slopes by the blurred image, square and product, blurred along; sums into `sums`, where the
 * row is the task's own. */
static void find_slopes(const loss_work *work, lines *l, int32_t row, double *sums) {
    const context *c = work->context;
    int32_t width = c->view.width, padded = c->padded_width;
    float *slopes = l->slopes[ring(row)];
    if (row < 0 || row >= c->view.height) {
        memset(slopes, 0, SLOPES * (size_t)padded * sizeof *slopes);
        return;
    }
    const float *rows[WINDOW_ROWS];
    for (int k = 0; k < WINDOW_ROWS; k++) rows[k] = l->blurred[ring(row + k - REACH)];
    const float *i_row = l->source[ring(row)][IMAGE], *p_row = l->source[ring(row)][PHOTO];
    const float c1 = 0.01f * 0.01f, c2 = 0.03f * 0.03f;
    float weight = (float)(-work->ssim_weight / (3 * work->counted));
    find_counts(work, row, l->counts);
    vf similarity = all(0), difference = all(0);
    for (int32_t x = 0; x < padded; x += LANES) {
        vf counts = load(l->counts + x);
        vf blurred[MAPS];
        blur_down(rows, x, MAPS, blurred);
        vf mi = blurred[MEAN_I], mp = blurred[MEAN_P];
        vf means = mi * mi + mp * mp, both = mi * mp;
        vf a = 2.0f * both + c1, b = 2.0f * (blurred[PRODUCT] - both) + c2;
        vf d = means + c1, e = blurred[SQUARES] - means + c2;
        vf per = 1.0f / (d * e), ssim = a * b * per;
        similarity += counts * ssim;
        difference += absolute(load(i_row + x) - load(p_row + x));
        vf by_square = -ssim * d * per, by_product = 2.0f * a * per;
        vf by_mean = 2.0f * (mp * b * per - mi * (ssim * e * per + by_square)) - mp * by_product;
        vf share = counts * weight;
        store(l->slope[BY_MEAN] + x, share * by_mean);
        store(l->slope[BY_SQUARE] + x, share * by_square);
        store(l->slope[BY_PRODUCT] + x, share * by_product);
    }
    for (int m = 0; m < SLOPES; m++) {
        for (int32_t x = width; x < padded; x++) l->slope[m][x] = 0; /* where NaN times 0 would be NaN */
        blur_along(l->slope[m], slopes, padded, m, SLOPES);
    }
    if (sums) sums[0] = (double)total(similarity), sums[1] = (double)total(difference);
}

static void find_gradient(const loss_work *work, lines *l, int channel, int32_t row) {
    const context *c = work->context;
    int32_t width = c->view.width, padded = c->padded_width;
    float *gradient = c->gradient + (size_t)channel * plane(c) + (size_t)row * (size_t)padded;
    if (row >= c->view.height) {
        memset(gradient, 0, (size_t)padded * sizeof *gradient);
        return;
    }
    const float *rows[WINDOW_ROWS];
    for (int k = 0; k < WINDOW_ROWS; k++) rows[k] = l->slopes[ring(row + k - REACH)];
    const float *i_row = l->source[ring(row)][IMAGE], *p_row = l->source[ring(row)][PHOTO];
    float flat = (float)((1 - work->ssim_weight) / (3 * work->counted));
    find_counts(work, row, l->counts);
    for (int32_t x = 0; x < padded; x += LANES) {
        vf i = load(i_row + x), p = load(p_row + x), off = i - p;
        vf sign = keep((vi)(off > 0), all(flat)) - keep((vi)(off < 0), all(flat));
        vf by[SLOPES];
        blur_down(rows, x, SLOPES, by);
        vf slope = by[BY_MEAN] + 2.0f * i * by[BY_SQUARE] + p * by[BY_PRODUCT];
        store(gradient + x, load(l->counts + x) * (sign + slope));
    }
    for (int32_t x = width; x < padded; x++) gradient[x] = 0;
}

static void loss_band(void *argument, int item, int thread) {
    const loss_work *work = argument;
    context *c = work->context;
    int channel = item / work->bands, band = item % work->bands;
    int32_t first = (int32_t)((int64_t)c->padded_height * band / work->bands);
    int32_t end = (int32_t)((int64_t)c->padded_height * (band + 1) / work->bands);
    lines l;
    lay_out(c, c->benches[thread].lines, &l);
    for (int32_t row = first - 2 * REACH; row < end + 2 * REACH; row++) {
        blur_sources(work, &l, channel, row);
        int32_t known = row - REACH, done = known - REACH;
        if (known >= first - REACH) {
            int ours = known >= first && known < end && known < c->view.height;
            find_slopes(work, &l, known, ours ? c->row_loss + 2 * ((size_t)channel * (size_t)c->padded_height + (size_t)known) : NULL);
        }
        if (done >= first) find_gradient(work, &l, channel, done);
    }
}

/* Room for every thread's lines; 0 where there is none. */
static int make_room_for_lines(context *c) {
    size_t wanted = LINES * line_stride(c);
    for (int thread = 0; thread < c->threads; thread++) {
        bench_of_thread *bench = &c->benches[thread];
        if (wanted <= bench->line_capacity) continue;
        bench->line_capacity = 0;
        if (!RESERVE(bench->lines, wanted)) return 0;
        bench->line_capacity = wanted;
    }
    return 1;
}

static double loss_of(context *c, const uint8_t *photo, const uint8_t *mask, float ssim_weight) {
    size_t pixels = (size_t)c->view.width * (size_t)c->view.height, counted = 0;
    for (size_t i = 0; mask && i < pixels; i++) counted += mask[i] != 0;
    loss_work work = {c, photo, mask, ssim_weight, mask ? (double)counted : (double)pixels, 1};
    if (work.counted == 0) {
        memset(c->gradient, 0, plane(c) * 3 * sizeof *c->gradient);
        return 0;
    }
    int most = c->padded_height / 32; /* a band's 20 rows of overlap are worth it for bands taller than this */
    work.bands = 2 * c->threads < most ? 2 * c->threads : most;
    if (work.bands < 1) work.bands = 1;
    pool_run(&c->pool, loss_band, &work, 3 * work.bands);
    double similarity = 0, difference = 0;
    for (int channel = 0; channel < 3; channel++)
        for (int32_t row = 0; row < c->view.height; row++) {
            const double *sums = c->row_loss + 2 * ((size_t)channel * (size_t)c->padded_height + (size_t)row);
            similarity += sums[0], difference += sums[1];
        }
    similarity /= 3 * work.counted, difference /= 3 * work.counted;
    return (1 - ssim_weight) * difference + ssim_weight * (1 - similarity);
}

#endif
