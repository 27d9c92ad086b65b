/* What the kernels share: the layout of a model, of a projected Gaussian, and of a context.
 *
 * A model is one matrix float[59][stride], one row per parameter and one column per Gaussian, so that a vector
 * holds the same parameter of neighbouring Gaussians. stride is a multiple of 16.
 * Coordinates and words are those of the method's reference.py, where each formula is derived. */
#ifndef SPLAT_STATE_H
#define SPLAT_STATE_H

#include "pool.h"
#include "vectors.h"

#define TILE 16             /* pixels on each side of a tile: a row is one AVX-512 register */
#define ROW (TILE / LANES)  /* vectors in a tile's row */
#define CHUNKS 64           /* pieces in which Gaussians are binned; fixed, so that results are too */
#define BLOCK 256           /* Gaussians that one task projects or updates */
#define PAIR_FLOATS 12      /* gradient of one Gaussian in one tile: 9 used, padded to three vectors of four */

enum { MEAN = 0, SCALE = 3, QUATERNION = 6, OPACITY = 10, HARMONIC = 11, ROWS = 59 };

#define ALPHA_MOST 0.99f
#define LOG2_ALPHA_LEAST -7.99435344f /* log2(1/255) */
#define TRANSMITTANCE_LEAST 1e-4f
#define DILATION 0.3f /* px², added to the diagonal of every projected covariance */
#define LOG2E 1.44269504f

typedef struct {
    int32_t width, height;
    float fx, fy, cx, cy;
    float rotation[9], translation[3]; /* world to camera */
    float near;                        /* scene units; what is nearer is not drawn */
    float background[3];
    int32_t degree; /* of the spherical harmonics in use */
    int32_t filter; /* 1: opacity scaled so that dilation keeps a Gaussian's total (Mip-Splatting's 2D filter) */
} view;

typedef struct { /* one Gaussian as the rasteriser sees it: 64 bytes, a line of cache */
    float x, y;                      /* centre, px */
    float xx, xy, yy;                /* log2 of alpha is top + xx dx² + xy dx dy + yy dy² */
    float top;                       /* log2 of the opacity */
    float red, green, blue, depth;
    float a, b, c;                   /* inverse of the projected covariance, 1/px²: [[a, b], [b, c]] */
    float flat;                      /* -1 / (2 xx): a row's greatest alpha is at dx = flat * xy * dy */
    int32_t row_first, row_last;     /* pixel rows that it may touch */
} splat;

_Static_assert(sizeof(splat) == 64, "a splat is one line of cache");

typedef struct {
    int32_t splat, slot; /* whose, and where its gradient in this tile goes */
} entry;

typedef struct {
    pool pool;
    view view;
    int32_t count; /* Gaussians of the last projection */
    int32_t tiles_x, tiles_y, padded_width, padded_height;
    int32_t visible;
    int64_t pairs;

    size_t splat_capacity;
    splat *splats;          /* [count] */
    int32_t *tiles_touched; /* [count]: 0 where not visible */
    int32_t *tile_bound;    /* [count]: tiles in its bounding rectangle */
    int32_t (*tile_rectangle)[4];
    int64_t *slot_first;    /* [count + 1] */
    uint32_t *keys, *keys_spare;
    int32_t *order, *order_spare; /* [visible]: front to back */
    uint8_t *clamped;       /* [count]: bits 0-2: a colour channel was below 0; 3, 4: x/z, y/z were out of view */

    size_t pair_capacity;
    int32_t *slot_tile; /* [pairs bound] */
    float *pair_gradients;
    entry *entries;

    size_t tile_capacity;
    int32_t *chunk_counts; /* [CHUNKS][tiles] */
    int64_t *tile_first;   /* [tiles + 1] */
    int32_t *tile_last;    /* [tiles]: entries that were looked at before every pixel was opaque */

    size_t pixel_capacity;
    float *image;    /* [3][padded_height][padded_width] */
    float *gradient; /* the same: of the loss with respect to the image */
    float *depth, *transmittance; /* [padded_height][padded_width] */
    float *photo;    /* [3][…], photo in [0, 1] */
    float *blurred;  /* [9][…]: three derivative maps for each channel */
    double *band_loss;
} context;

INLINE size_t plane(const context *c) { return (size_t)c->padded_width * (size_t)c->padded_height; }

/* The tile that a pixel coordinate falls in, at most the first or last one; takes infinities, not NaN. */
static int32_t tile_of(float pixel, int32_t tiles) {
    float tile = floorf(pixel * (1.0f / TILE));
    return tile < 0 ? 0 : tile > (float)(tiles - 1) ? tiles - 1 : (int32_t)tile;
}

/* Grow-only memory on lines of cache; 0 where there is none. */
static int reserve(void **memory, size_t bytes) {
    free(*memory);
    *memory = NULL;
    return posix_memalign(memory, 64, bytes + 64) == 0;
}

#define RESERVE(pointer, count) reserve((void **)&(pointer), (size_t)(count) * sizeof *(pointer))

#endif
