/* The loss 0.8 L1 + 0.2 (1 - SSIM) and its gradient with respect to the image.
 *
 * SSIM: Gaussian window of 11, sigma 1.5, K1 0.01, K2 0.03, per channel, zeros beyond the border (as 3DGS trains;
 * scores use the valid region, but training must also work on images smaller than the window).
 * Where the mask is 0 both image and photo become 0, like what lies beyond the border, so nothing there can matter;
 * both means are over pixels that count. */
#ifndef SPLAT_LOSS_H
#define SPLAT_LOSS_H

#include "state.h"

#define REACH 5
#define BAND 16 /* rows that one task works on */

static const float WINDOW[REACH + 1] = {0.26601172f, 0.21300554f, 0.10936069f, 0.036000773f, 0.0075987582f, 0.0010283801f};

typedef struct {
    context *context;
    const uint8_t *photo, *mask; /* [height][width][3]; [height][width] or NULL */
    float ssim_weight;
    double counted; /* pixels */
} loss_work;

static void photo_row(void *argument, int row) { /* into planes, zeros beyond the border */
    const loss_work *work = argument;
    context *c = work->context;
    size_t size = plane(c), at = (size_t)row * (size_t)c->padded_width;
    int32_t width = row < c->view.height ? c->view.width : 0;
    const uint8_t *from = work->photo + (size_t)row * (size_t)c->view.width * 3;
    const uint8_t *mask = work->mask ? work->mask + (size_t)row * (size_t)c->view.width : NULL;
    for (int channel = 0; channel < 3; channel++) {
        float *photo = c->photo + channel * size + at, *image = c->image + channel * size + at;
        for (int32_t x = 0; x < width; x++) photo[x] = (float)from[3 * x + channel] * (1.0f / 255);
        if (mask)
            for (int32_t x = 0; x < width; x++)
                if (!mask[x]) image[x] = photo[x] = 0;
        for (int32_t x = width; x < c->padded_width; x++) photo[x] = image[x] = 0;
    }
}

/* One row of a plane, blurred along x; to has padded_width floats; from a buffer with REACH zeros on each side. */
INLINE void blur_along(const float *from, float *to, int32_t width) {
    for (int32_t x = 0; x < width; x += LANES) {
        vf sum = WINDOW[0] * load(from + x + REACH);
        for (int k = 1; k <= REACH; k++)
            sum += WINDOW[k] * (load(from + x + REACH - k) + load(from + x + REACH + k));
        store(to + x, sum);
    }
}

INLINE vf blur_down(const float *const rows[2 * REACH + 1], int32_t x) {
    vf sum = WINDOW[0] * load(rows[REACH] + x);
    for (int k = 1; k <= REACH; k++) sum += WINDOW[k] * (load(rows[REACH - k] + x) + load(rows[REACH + k] + x));
    return sum;
}

/* Scratch of one band: rows of `maps` blurred maps for the band and REACH rows on either side. */
#define BAND_ROWS (BAND + 2 * REACH)

static void ssim_band(void *argument, int item) {
    const loss_work *work = argument;
    context *c = work->context;
    int32_t bands = c->padded_height / BAND, channel = item / bands, first = item % bands * BAND;
    int32_t width = c->padded_width, height = c->view.height;
    size_t size = plane(c), line = (size_t)width + 2 * REACH + LANES;
    const float *image = c->image + (size_t)channel * size, *photo = c->photo + (size_t)channel * size;
    float *scratch;
    c->band_loss[2 * item] = c->band_loss[2 * item + 1] = NAN;
    if (posix_memalign((void **)&scratch, 64, (BAND_ROWS + 1) * 5 * line * sizeof *scratch)) {
        c->band_loss[2 * item] = INFINITY; /* which no picture gives: splat_loss takes it for want of memory */
        return;
    }
    memset(scratch, 0, 5 * line * sizeof *scratch);
    float *source[5], *blurred = scratch + 5 * line;
    for (int m = 0; m < 5; m++) source[m] = scratch + (size_t)m * line;
    for (int r = 0; r < BAND_ROWS; r++) {
        int32_t row = first + r - REACH;
        float *to = blurred + (size_t)r * 5 * line;
        if (row < 0 || row >= height) {
            memset(to, 0, 5 * line * sizeof *to);
            continue;
        }
        for (int32_t x = 0; x < width; x += LANES) {
            vf i = load(image + (size_t)row * (size_t)width + (size_t)x), p = load(photo + (size_t)row * (size_t)width + (size_t)x);
            store(source[0] + REACH + x, i);
            store(source[1] + REACH + x, p);
            store(source[2] + REACH + x, i * i);
            store(source[3] + REACH + x, p * p);
            store(source[4] + REACH + x, i * p);
        }
        for (int m = 0; m < 5; m++) blur_along(source[m], to + (size_t)m * line, width);
    }
    const float c1 = 0.01f * 0.01f, c2 = 0.03f * 0.03f;
    double similarity = 0, difference = 0;
    float weight = (float)(-work->ssim_weight / (3 * work->counted));
    for (int32_t row = first; row < first + BAND; row++) {
        const float *rows[5][2 * REACH + 1];
        for (int m = 0; m < 5; m++)
            for (int k = 0; k <= 2 * REACH; k++) rows[m][k] = blurred + ((size_t)(row - first + k) * 5 + m) * line;
        vf row_similarity = all(0), row_difference = all(0);
        for (int32_t x = 0; x < width; x += LANES) {
            size_t at = (size_t)row * (size_t)width + (size_t)x;
            vf counts = all(0);
            if (row < height)
                for (int i = 0; i < LANES; i++) {
                    int inside = x + i < c->view.width;
                    counts[i] = inside && (!work->mask || work->mask[(size_t)row * (size_t)c->view.width + (size_t)(x + i)]);
                }
            vf mi = blur_down(rows[0], x), mp = blur_down(rows[1], x);
            vf vi_ = blur_down(rows[2], x) - mi * mi, vp = blur_down(rows[3], x) - mp * mp;
            vf cov = blur_down(rows[4], x) - mi * mp;
            vf a = 2.0f * mi * mp + c1, b = 2.0f * cov + c2;
            vf d = mi * mi + mp * mp + c1, e = vi_ + vp + c2;
            vf per = 1.0f / (d * e), ssim = a * b * per;
            row_similarity += counts * ssim;
            row_difference += counts * absolute(load(image + at) - load(photo + at));
            /* with respect to the blurred image, blurred square and blurred product */
            vf by_square = -ssim / e, by_product = 2.0f * a * per;
            vf by_mean = 2.0f * mp * b * per - 2.0f * mi * ssim / d - 2.0f * mi * by_square - mp * by_product;
            float *maps = c->blurred + (size_t)channel * 3 * size + at;
            store(maps, counts * weight * by_mean);
            store(maps + size, counts * weight * by_square);
            store(maps + 2 * size, counts * weight * by_product);
        }
        similarity += (double)total(row_similarity);
        difference += (double)total(row_difference);
    }
    free(scratch);
    c->band_loss[2 * item] = similarity;
    c->band_loss[2 * item + 1] = difference;
}

static void gradient_band(void *argument, int item) {
    const loss_work *work = argument;
    context *c = work->context;
    int32_t bands = c->padded_height / BAND, channel = item / bands, first = item % bands * BAND;
    int32_t width = c->padded_width, height = c->padded_height;
    size_t size = plane(c), line = (size_t)width + 2 * REACH + LANES;
    const float *image = c->image + (size_t)channel * size, *photo = c->photo + (size_t)channel * size;
    float *gradient = c->gradient + (size_t)channel * size, *scratch;
    const float *maps = c->blurred + (size_t)channel * 3 * size;
    if (posix_memalign((void **)&scratch, 64, (BAND_ROWS * 3 + 1) * line * sizeof *scratch)) {
        c->band_loss[2 * item] = INFINITY;
        return;
    }
    memset(scratch, 0, line * sizeof *scratch);
    float *blurred = scratch + line;
    for (int r = 0; r < BAND_ROWS; r++)
        for (int m = 0; m < 3; m++) {
            int32_t row = first + r - REACH;
            float *to = blurred + ((size_t)r * 3 + (size_t)m) * line;
            if (row < 0 || row >= height) {
                memset(to, 0, line * sizeof *to);
                continue;
            }
            memcpy(scratch + REACH, maps + (size_t)m * size + (size_t)row * (size_t)width, (size_t)width * sizeof *maps);
            blur_along(scratch, to, width);
        }
    float flat = (float)((1 - work->ssim_weight) / (3 * work->counted));
    for (int32_t row = first; row < first + BAND; row++) {
        const float *rows[3][2 * REACH + 1];
        for (int m = 0; m < 3; m++)
            for (int k = 0; k <= 2 * REACH; k++) rows[m][k] = blurred + ((size_t)(row - first + k) * 3 + m) * line;
        for (int32_t x = 0; x < width; x += LANES) {
            size_t at = (size_t)row * (size_t)width + (size_t)x;
            vf counts = all(0);
            if (row < c->view.height)
                for (int i = 0; i < LANES; i++) {
                    int inside = x + i < c->view.width;
                    counts[i] = inside && (!work->mask || work->mask[(size_t)row * (size_t)c->view.width + (size_t)(x + i)]);
                }
            vf i = load(image + at), p = load(photo + at), off = i - p;
            vf sign = keep((vi)(off > 0), all(flat)) - keep((vi)(off < 0), all(flat));
            vf slope = blur_down(rows[0], x) + 2.0f * i * blur_down(rows[1], x) + p * blur_down(rows[2], x);
            store(gradient + at, counts * (sign + slope));
        }
    }
    free(scratch);
}

#endif
