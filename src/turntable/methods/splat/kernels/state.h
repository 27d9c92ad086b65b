/* What the kernels share: the layout of a model, of a projected Gaussian, and of a context.
 *
 * A model is float[blocks][RECORD][16]: sixteen neighbouring Gaussians lie together, and a row of sixteen holds one of
 * their numbers: parameters, Adam's moments, what densification wants to know. A step reads and writes
 * memory in one direction, and a block that a view doesn't show is never touched.
 * Coordinates and words are those of the method's reference.py, where each formula is derived. */
#ifndef SPLAT_STATE_H
#define SPLAT_STATE_H

#include <sys/mman.h>

#include "pool.h"
#include "vectors.h"

#define GROUP 16 /* Gaussians that lie together: the widest vector there is */
#define BLOCK 256 /* Gaussians that one task projects or updates */
#define TILE_X (LANES > 8 ? LANES : 8) /* px: a tile's row is one register, two where they hold four floats */
#define TILE_Y 64 /* px: what is kept for a tile's pixels fits into 32 KB, and a Gaussian touches few tiles */
#define ROW (TILE_X / LANES) /* vectors in a tile's row */
#define PAIR_FLOATS 12 /* gradient of one Gaussian in one tile: 9 used, padded to three vectors of four */
#define DIGITS 2048 /* of the depth sort: 11 bits each of two passes */

enum {
    MEAN = 0, SCALE = 3, QUATERNION = 6, OPACITY = 10, HARMONIC = 11, ROWS = 59, /* parameters */
    MOMENTS = 14, /* parameters that have moments of their own: all but the harmonics above degree 0 */
    FIRST = ROWS, SECOND = FIRST + MOMENTS, /* moments of these */
    HARMONIC_SECOND = SECOND + MOMENTS, /* one second moment for all harmonics above degree 0 */
    ACTIVITY, /* sum of the means' gradients in view units */
    RECORD
};

#define ALPHA_LEAST (1.0f / 255)
#define ALPHA_MOST 0.99f
#define LOGIT_MOST 4.59511985f /* of ALPHA_MOST */
#define LOG2_ALPHA_LEAST -7.99435344f /* log2(1/255) */
#define TRANSMITTANCE_LEAST 1e-4f
#define LOG2E 1.44269504f

typedef struct {
    int32_t width, height;
    float fx, fy, cx, cy;
    float rotation[9], translation[3]; /* world to camera */
    float near;                        /* scene units; what is nearer is not drawn */
    float dilation;                    /* px², added to the diagonal of every projected covariance */
    float background[3];
    int32_t degree; /* of the spherical harmonics in use */
    int32_t filter; /* 1: opacity scaled so that dilation keeps a Gaussian's total (Mip-Splatting's 2D filter) */
} view;

typedef struct { /* one Gaussian as the rasteriser sees it: 64 bytes, a line of cache */
    float x, y;                      /* centre, px */
    float xx, xy, yy;                /* log2 of alpha is top + xx dx² + xy dx dy + yy dy² */
    float top;                       /* log2 of the opacity */
    float red, green, blue, depth;
    float decay;                     /* 2^(2 yy): by which the ratio of two rows' alphas falls from row to row */
    float a, b, c;                   /* inverse of the projected covariance, 1/px²: [[a, b], [b, c]] */
    float padding[2];
} splat;

_Static_assert(sizeof(splat) == 64, "a splat is one line of cache");

typedef struct {
    int32_t first, count; /* slots of one Gaussian's tiles */
} span;

typedef struct {
    int32_t tile;
    uint8_t first, last; /* rows of the tile that the Gaussian may touch */
} touch;

typedef struct {
    int32_t splat, slot; /* whose, and where its gradient in this tile goes */
    uint8_t first, last;
} entry;

typedef struct { /* scratch memory of one thread */
    size_t touch_capacity, line_capacity;
    touch *touches;
    vi *first_rows, *last_rows; /* [tiles_x]: of LANES Gaussians, each in a column of its own */
    float *lines;
} bench_of_thread;

enum { PROJECT, BIN, FORWARD, LOSS, BACKWARD, UPDATE, STAGES };

typedef struct {
    pool pool;
    int threads;
    bench_of_thread *benches; /* [threads] */
    double seconds[STAGES]; /* spent in each, in all */
    view view;
    int32_t count; /* Gaussians of the last projection */
    int32_t tiles_x, tiles_y, padded_width, padded_height;
    int32_t visible;
    int64_t pairs;
    atomic_llong slots; /* taken so far by this projection */
    atomic_int out_of_memory;

    size_t splat_capacity;
    splat *splats;          /* [count] */
    span *spans;            /* [count]: count is 0 where not visible */
    uint8_t *clamped;       /* [count]: bits 0-2: a colour channel was below 0 */
    uint64_t *order, *order_spare; /* [count]: depth key << 32 | Gaussian; [visible] front to back once sorted */
    int32_t *block_visible; /* [blocks + 1] */
    uint32_t *block_nearest, *block_farthest; /* [blocks]: depths as the bits of floats */

    size_t pair_capacity;
    touch *touches; /* [pairs], by slot */
    float *pair_gradients;
    entry *entries; /* [pairs], by tile, front to back */

    int chunks; /* pieces in which Gaussians are sorted and binned: results don't depend on how many */
    int32_t *digit_counts; /* [chunks][DIGITS] */
    size_t tile_capacity;
    int32_t *chunk_counts; /* [chunks][tiles] */
    int64_t *tile_first;   /* [tiles + 1] */
    int32_t *tile_last;    /* [tiles]: entries, in whole batches, that were looked at until every pixel was opaque */

    size_t pixel_capacity;
    float *image;    /* [3][padded_height][padded_width] */
    float *gradient; /* the same: of the loss with respect to the image */
    size_t depth_capacity;
    float *depth, *transmittance; /* [padded_height][padded_width] */
    size_t column_capacity;
    size_t row_capacity;
    double *row_loss; /* [3][padded_height][2] */
} context;

INLINE size_t plane(const context *c) { return (size_t)c->padded_width * (size_t)c->padded_height; }

/* A model's numbers of the Gaussians from `at` on: row r is r * GROUP further. */
INLINE size_t place(size_t at, size_t rows) { return at / GROUP * rows * GROUP + at % GROUP; }

/* Other memory, on lines of cache, whose contents are lost; 0 where there is none. What is large lies in large pages
 * where the system has them: most of it is read in no order, and looking up a small page takes as long as the rest. */
static int reserve(void **memory, size_t bytes) {
    free(*memory);
    *memory = NULL;
    size_t page = (size_t)1 << 21;
    if (bytes < page) return posix_memalign(memory, 64, bytes + 64) == 0;
    bytes = (bytes + 64 + page - 1) / page * page;
    if (posix_memalign(memory, page, bytes)) return 0;
#ifdef MADV_HUGEPAGE
    madvise(*memory, bytes, MADV_HUGEPAGE);
#endif
    return 1;
}

#define RESERVE(pointer, count) reserve((void **)&(pointer), (size_t)(count) * sizeof *(pointer))

#endif
