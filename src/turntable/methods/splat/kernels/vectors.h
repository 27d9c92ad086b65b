/* Vectors of as many floats as one register of the instruction set holds, in the compiler's portable types
 * (GCC and Clang; no intrinsics), with the few functions that the language lacks. Lanes that hold NaN stay NaN
 * unless said otherwise; nothing here assumes finite values, and nothing may be built with -ffast-math. */
#ifndef SPLAT_VECTORS_H
#define SPLAT_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

#define INLINE static inline __attribute__((always_inline, unused))

INLINE vf load(const float *from) {
    vf v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void store(float *to, vf v) { memcpy(to, &v, sizeof v); }

INLINE vf all(float x) { return x - (vf){0}; }

INLINE vi all_int(int32_t x) { return x + (vi){0}; }

/* Lane by lane: where the mask (all ones or all zeros) is set, a, else b. */
INLINE vf choose(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

INLINE vi choose_int(vi mask, vi a, vi b) { return (mask & a) | (~mask & b); }

INLINE vf keep(vi mask, vf a) { return (vf)(mask & (vi)a); }

/* A NaN in a gives b, so that a value can be brought into bounds with certainty: larger(NaN, b) is b. */
INLINE vf larger(vf a, vf b) { return choose((vi)(a > b), a, b); }

INLINE vf smaller(vf a, vf b) { return choose((vi)(a < b), a, b); }

INLINE vf absolute(vf a) { return (vf)((vi)a & 0x7fffffff); }

INLINE vi is_finite(vf a) { return (vi)(absolute(a) < all(3.0e38f)); }

INLINE vf root(vf a) {
    for (int i = 0; i < LANES; i++) a[i] = sqrtf(a[i]);
    return a;
}

/* 2^x for x in [-126, 126], relative error below 3e-7: the integer part goes into the exponent's bits, the rest,
 * in [-1/2, 1/2], through the series of degree 6. */
INLINE vf exp2_of(vf x) {
    vf shifted = x + 12582912.0f; /* 1.5 * 2^23: the sum's low bits are the nearest integer */
    vf f = x - (shifted - 12582912.0f);
    /* Estrin's order: half of Horner's wait, and a splat's first row waits for it */
    vf ff = f * f, low = 6.9314718e-1f * f + 1.0f, middle = 5.5504109e-2f * f + 2.4022651e-1f;
    vf high = (1.5403530e-4f * f + 1.3333558e-3f) * f + 9.6181291e-3f;
    vf p = (high * ff + middle) * ff + low;
    return (vf)((vu)p + ((vu)shifted << 23));
}

/* 1 / sqrt(x) for x from 1e-37 to 1e37, relative error below 5e-6: a guess from the exponent's bits, then Newton's
 * step twice. A root and a division cost three times as much. */
INLINE vf inverse_root(vf x) {
    vf y = (vf)(0x5f375a86 - ((vi)x >> 1));
    vf half = 0.5f * x;
    y = y * (1.5f - half * y * y);
    return y * (1.5f - half * y * y);
}

/* e^x, relative error below 1e-6; x is brought into [-87, 87] first, a NaN becomes e^-87. */
INLINE vf exp_exact(vf x) {
    x = smaller(larger(x, all(-87.0f)), all(87.0f));
    vf shifted = x * 1.44269504f + 12582912.0f;
    vf n = shifted - 12582912.0f;
    vf f = (x - n * 0.693145752f) - n * 1.42860677e-6f; /* ln 2 in two parts */
    vf p = all(1.0f / 5040);
    p = p * f + 1.0f / 720;
    p = p * f + 1.0f / 120;
    p = p * f + 1.0f / 24;
    p = p * f + 1.0f / 6;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    return (vf)((vu)p + ((vu)shifted << 23));
}

/* log2 of finite x >= 2^-126, absolute error below 1e-6: ln m = 2 atanh((m-1)/(m+1)), m in [sqrt 1/2, sqrt 2). */
INLINE vf log2_exact(vf x) {
    vi bits = (vi)x - 0x3f3504f3; /* sqrt(1/2) */
    vi exponent = bits >> 23;
    vf m = (vf)((bits & 0x7fffff) + 0x3f3504f3);
    vf t = (m - 1.0f) / (m + 1.0f), tt = t * t;
    vf series = ((tt * (1.0f / 9) + 1.0f / 7) * tt + 1.0f / 5) * tt + 1.0f / 3;
    vf ln = 2.0f * (t + t * tt * series);
    return __builtin_convertvector(exponent, vf) + ln * 1.44269504f;
}

INLINE v4 fold(vf v) { /* lanes i, i+4, i+8 … added up */
    const char *at = (const char *)&v;
    v4 sum, part;
    memcpy(&sum, at, 16);
    for (int i = 1; i < LANES / 4; i++) {
        memcpy(&part, at + 16 * i, 16);
        sum += part;
    }
    return sum;
}

INLINE float total4(v4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }

INLINE float total(vf v) { return total4(fold(v)); }

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#define SHUFFLE8(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (i4){i, j, k, l})
#define SHUFFLE8(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

#if LANES == 8
/* The totals of eight vectors, as one: halves of two are added side by side, then pairs, then neighbours. */
INLINE vf totals8(const vf v[8]) {
    vf half[4], quarter[2];
    for (int i = 0; i < 4; i++)
        half[i] = SHUFFLE8(v[i], v[i + 4], 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE8(v[i], v[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    for (int i = 0; i < 2; i++)
        quarter[i] = SHUFFLE8(half[2 * i], half[2 * i + 1], 0, 2, 8, 10, 4, 6, 12, 14) +
                     SHUFFLE8(half[2 * i], half[2 * i + 1], 1, 3, 9, 11, 5, 7, 13, 15);
    return SHUFFLE8(quarter[0], quarter[1], 0, 2, 8, 10, 4, 6, 12, 14) +
           SHUFFLE8(quarter[0], quarter[1], 1, 3, 9, 11, 5, 7, 13, 15);
}
#endif

/* The four totals of four vectors, as one vector of four. */
INLINE v4 totals(vf a, vf b, vf c, vf d) {
    v4 p = fold(a), q = fold(b), r = fold(c), s = fold(d);
    v4 pq = SHUFFLE4(p, q, 0, 4, 1, 5) + SHUFFLE4(p, q, 2, 6, 3, 7); /* p02 q02 p13 q13 */
    v4 rs = SHUFFLE4(r, s, 0, 4, 1, 5) + SHUFFLE4(r, s, 2, 6, 3, 7);
    return SHUFFLE4(pq, rs, 0, 1, 4, 5) + SHUFFLE4(pq, rs, 2, 3, 6, 7);
}

#endif
