/* Decoding on a processor: a few rows through a whole transformer in one call.
 *
 * Every output is one accumulator over its inputs in a fixed order, made by one thread: a row's result does not depend, to the
 * bit, on the rows beside it or on the number of threads. Activations are float32; for int8 and int4 weights they are quantized
 * to int8 in groups of 32 on the way into each product (as in the block formats of GGUF).
 *
 * plan.py mirrors the structures below; it fills them once, and `run` walks the operations with one thread team.
 */
#include <math.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#ifdef _OPENMP
int omp_get_thread_num(void), omp_get_num_threads(void);    /* the header is not installed with every compiler */
#else
#define omp_get_thread_num() 0
#define omp_get_num_threads() 1
#endif
#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define X86 1
#endif

#define GROUP 32        /* inputs that share an activation scale, and an int4 weight scale */
#define ROW_TILE 4      /* rows that share a loaded weight */
#define OUTPUT_TILE 4   /* outputs whose products are in flight at once for one row; half as many for several rows */

enum kind { FLOAT32, BFLOAT16, INT8, INT4 };
enum code { LINEAR, NORM, ATTEND, SWIGLU, GATE };
enum activation { NONE, GELU_TANH, GELU, RELU2 };

typedef struct {
    int32_t code, kind, activation, adds;      /* adds: onto dst instead of into it */
    int32_t in, out, layer, window;
    int32_t centered, has_mix;                 /* LayerNorm instead of RMSNorm; values mixed with the first layer's */
    float eps, mix;
    const void *weight, *scale;                /* (out, in) in `kind`; float32 (out,) for int8, bfloat16 (out, in / 32) for int4 */
    const float *bias, *q_norm, *k_norm;
    float *src, *dst;
} op_t;

typedef struct {
    int32_t num_ops, num_threads, num_heads, num_kv_heads, head_width, cache_kind, max_tokens, unused;
    int64_t layer_stride, value_stride, slot_stride, head_stride;   /* of the cache, in elements */
    void *cache;
    const float *cos, *sin;                    /* (positions, head_width), sin negated in its first half; NULL: no rotation */
    int8_t *codes; float *code_scales;         /* (rows, widest in) and (rows, widest in / 4): quantized activations */
    float *scores, *first_values;              /* (threads, max_tokens + 8); (rows, kv heads * head_width) of layer 0 */
    const op_t *ops;
    int32_t arrived, generation, next[2];      /* of the barrier; of the outputs that are handed out, for even and odd operations */
} plan_t;

/* ---- the thread team ---- */

/* A barrier that gives its core away when it waits long: OpenMP's own spins, and where another program or thread needs the core, a
 * step then takes whole time slices of the scheduler. */
static void wait_for_all(plan_t *p, int threads) {
    const int32_t generation = __atomic_load_n(&p->generation, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&p->arrived, 1, __ATOMIC_ACQ_REL) == threads) {
        __atomic_store_n(&p->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&p->generation, generation + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spins = 0; __atomic_load_n(&p->generation, __ATOMIC_ACQUIRE) == generation; spins++) {
        if (spins > 2000) sched_yield();
#ifdef X86
        else _mm_pause();
#endif
    }
}

/* ---- vectors of eight floats: one type on every processor ---- */

typedef float vec __attribute__((vector_size(32)));
typedef float vec_in_memory __attribute__((vector_size(32), aligned(4), may_alias));   /* may stand anywhere a float may */
typedef int32_t ivec __attribute__((vector_size(32)));
typedef int8_t bvec __attribute__((vector_size(8), aligned(1)));

static inline vec load(const float *p) { return *(const vec_in_memory *)p; }
static inline void store(float *p, vec v) { *(vec_in_memory *)p = v; }
static inline vec splat(float x) { return (vec){x, x, x, x, x, x, x, x}; }

static inline vec fma8(vec a, vec b, vec c) {
#ifdef X86
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    vec r;
    for (int i = 0; i < 8; i++) r[i] = fmaf(a[i], b[i], c[i]);
    return r;
#endif
}

static inline vec max8(vec a, vec b) {
#ifdef X86
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vec r;
    for (int i = 0; i < 8; i++) r[i] = a[i] > b[i] ? a[i] : b[i];
    return r;
#endif
}

static inline float sum8(vec v) { return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])); }

typedef float quad __attribute__((vector_size(16)));

static inline quad sum8_of_four(vec a, vec b, vec c, vec d) {    /* in the order of sum8 */
#ifdef X86
    __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps((__m256)a, (__m256)b), _mm256_hadd_ps((__m256)c, (__m256)d));
    return (quad)_mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
#else
    return (quad){sum8(a), sum8(b), sum8(c), sum8(d)};
#endif
}

static inline vec load_bf16(const uint16_t *p) {
#ifdef X86
    return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
#else
    ivec v;
    for (int i = 0; i < 8; i++) v[i] = (int32_t)((uint32_t)p[i] << 16);
    return (vec)v;
#endif
}

static inline float bf16_to_float(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint16_t float_to_bf16(float x) {    /* to nearest, ties to even, as torch rounds */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* e^x, relative error below 3e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes) */
static inline vec exp8(vec x) {
    const vec low = splat(-87.3f), high = splat(88.3f);
    x = (vec)(((ivec)(x < low) & (ivec)low) | (~(ivec)(x < low) & (ivec)x));
    x = (vec)(((ivec)(x > high) & (ivec)high) | (~(ivec)(x > high) & (ivec)x));
    const vec magic = splat(12582912.0f);          /* 1.5 * 2^23: adding it rounds to an integer */
    vec n = fma8(x, splat(1.44269504f), magic) - magic;
    vec r = fma8(n, splat(-0.693359375f), x);
    r = fma8(n, splat(2.12194440e-4f), r);
    vec y = splat(1.9875691500e-4f);
    y = fma8(y, r, splat(1.3981999507e-3f));
    y = fma8(y, r, splat(8.3334519073e-3f));
    y = fma8(y, r, splat(4.1665795894e-2f));
    y = fma8(y, r, splat(1.6666665459e-1f));
    y = fma8(y, r, splat(5.0000001201e-1f));
    y = fma8(y, r * r, r) + splat(1.0f);
    ivec exponent = __builtin_convertvector(n, ivec) + 127;
    return y * (vec)(exponent << 23);
}

/* ---- dot products of 32 int8 ---- */

#ifdef X86
typedef __m256i codes_t;
static inline codes_t load_codes(const int8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline codes_t load_nibbles(const uint8_t *p) {
    __m128i packed = _mm_loadu_si128((const __m128i *)p);
    __m256i both = _mm256_set_m128i(_mm_srli_epi16(packed, 4), packed);
    return _mm256_sub_epi8(_mm256_and_si256(both, _mm256_set1_epi8(15)), _mm256_set1_epi8(8));
}
static inline vec dot32(codes_t w, codes_t abs_w, codes_t x) {   /* |w| <= 127 and |x| <= 127: two products fit 16 bits */
    __m256i signed_x = _mm256_sign_epi8(x, w);
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    __m256i sum = _mm256_dpbusd_epi32(_mm256_setzero_si256(), abs_w, signed_x);
#elif defined(__AVXVNNI__)
    __m256i sum = _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), abs_w, signed_x);
#else
    __m256i sum = _mm256_madd_epi16(_mm256_maddubs_epi16(abs_w, signed_x), _mm256_set1_epi16(1));
#endif
    return (vec)_mm256_cvtepi32_ps(sum);
}
static inline codes_t abs_codes(codes_t w) { return _mm256_abs_epi8(w); }
#else
typedef struct { int8_t at[GROUP]; } codes_t;
static inline codes_t load_codes(const int8_t *p) { codes_t c; memcpy(&c, p, GROUP); return c; }
static inline codes_t load_nibbles(const uint8_t *p) {
    codes_t c;
    for (int i = 0; i < 16; i++) c.at[i] = (int8_t)((p[i] & 15) - 8), c.at[i + 16] = (int8_t)((p[i] >> 4) - 8);
    return c;
}
static inline vec dot32(codes_t w, codes_t abs_w, codes_t x) {
    vec sums;
    (void)abs_w;
    for (int lane = 0; lane < 8; lane++) {
        int32_t sum = 0;
        for (int i = 0; i < 4; i++) sum += (int32_t)w.at[lane * 4 + i] * x.at[lane * 4 + i];
        sums[lane] = (float)sum;
    }
    return sums;
}
static inline codes_t abs_codes(codes_t w) { return w; }
#endif

/* Quantize one row in groups: scale = largest magnitude / 127. */
static void quantize_row(const float *x, int in, int8_t *codes, float *scales) {
    for (int g = 0; g < in / GROUP; g++, x += GROUP, codes += GROUP) {
        vec top = splat(0.0f);
        for (int i = 0; i < GROUP; i += 8) {
            vec v = load(x + i);
            top = max8(top, max8(v, -v));
        }
        float largest = 0.0f;
        for (int i = 0; i < 8; i++) largest = top[i] > largest ? top[i] : largest;
        scales[g] = largest / 127.0f;
        vec inverse = splat(largest > 0.0f ? 127.0f / largest : 0.0f);
        for (int i = 0; i < GROUP; i += 8) {
            const vec magic = splat(12582912.0f);
            bvec rounded = __builtin_convertvector(__builtin_convertvector(fma8(load(x + i), inverse, magic) - magic, ivec), bvec);
            memcpy(codes + i, &rounded, sizeof rounded);
        }
    }
}

#ifdef X86
/* int4 weights are multiplied two groups at a time: the low nibbles of both are 32 bytes that lie together, and so are the high ones.
 * The codes of a row are laid out to match: [g 0-15][g+1 0-15][g 16-31][g+1 16-31]. Nibbles stay unsigned; what that adds, 8 times
 * the sum of a group's codes, is subtracted by `corrections`. Scales stand four times, once for each lane of their group. */
static void quantize_row_in_pairs(const float *x, int in, int8_t *codes, float *scales, int32_t *corrections) {
    int8_t plain[2 * GROUP];
    float pair[2];
    for (int g = 0; g < in / GROUP; g += 2, x += 2 * GROUP, codes += 2 * GROUP, scales += 8, corrections += 8) {
        quantize_row(x, 2 * GROUP, plain, pair);
        for (int k = 0; k < 2; k++) {
            int32_t sum = 0;
            for (int i = 0; i < GROUP; i++) sum += plain[k * GROUP + i];
            memcpy(codes + k * 16, plain + k * GROUP, 16);
            memcpy(codes + 32 + k * 16, plain + k * GROUP + 16, 16);
            for (int lane = 0; lane < 4; lane++) scales[k * 4 + lane] = pair[k], corrections[k * 4 + lane] = lane ? 0 : -8 * sum;
        }
    }
}

static inline vec dot_pair(__m256i low, __m256i high, __m256i low_x, __m256i high_x, __m256i correction) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return (vec)_mm256_cvtepi32_ps(_mm256_dpbusd_epi32(_mm256_dpbusd_epi32(correction, low, low_x), high, high_x));
#elif defined(__AVXVNNI__)
    return (vec)_mm256_cvtepi32_ps(_mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(correction, low, low_x), high, high_x));
#else
    __m256i sums = _mm256_add_epi16(_mm256_maddubs_epi16(low, low_x), _mm256_maddubs_epi16(high, high_x));
    return (vec)_mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(sums, _mm256_set1_epi16(1)), correction));
#endif
}

static inline vec load_scale_pair(const uint16_t *p) {    /* two bfloat16 to [a a a a b b b b] */
    const __m256i spread = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 0, 1, -1, -1, 0, 1, -1, -1, 0, 1,
                                            -1, -1, 2, 3, -1, -1, 2, 3, -1, -1, 2, 3, -1, -1, 2, 3);
    int32_t both;
    memcpy(&both, p, sizeof both);
    return (vec)_mm256_shuffle_epi8(_mm256_set1_epi32(both), spread);
}
#define IN_PAIRS(op) ((op)->kind == INT4 && (op)->in % (2 * GROUP) == 0)
#else
#define IN_PAIRS(op) 0
#endif

/* ---- tiles: `outs` outputs times `rows` rows; both are constants where these are inlined ---- */

#define TILE static inline __attribute__((always_inline)) void
#define UNROLL _Pragma("GCC unroll 16")

/* A tile's weights lie one after the other in memory but are read in `outs` interleaved runs, which hardware prefetchers follow
 * badly: ask for the line that stands AHEAD bytes behind the tile's progress. */
#define AHEAD 4096
static inline __attribute__((always_inline)) void ask(const void *tile, int64_t done, int num) {
    UNROLL for (int i = 0; i < num; i += 64) __builtin_prefetch((const char *)tile + done + AHEAD + i, 0, 2);
}

TILE add_up(int outs, int rows, vec sums[OUTPUT_TILE][ROW_TILE], float *y) {
    if (rows == 4) {
        UNROLL for (int o = 0; o < outs; o++) {
            quad four = sum8_of_four(sums[o][0], sums[o][1], sums[o][2], sums[o][3]);
            memcpy(y + o * ROW_TILE, &four, sizeof four);
        }
    } else if (outs == 4) {
        quad four = sum8_of_four(sums[0][0], sums[1][0], sums[2][0], sums[3][0]);
        UNROLL for (int o = 0; o < 4; o++) y[o * ROW_TILE] = four[o];
    } else {
        UNROLL for (int o = 0; o < outs; o++)
            UNROLL for (int r = 0; r < rows; r++) y[o * ROW_TILE + r] = sum8(sums[o][r]);
    }
}

TILE tile_float(int is_bf16, int outs, int rows, const op_t *op, int first, const float *x, float *y) {
    vec sums[OUTPUT_TILE][ROW_TILE] = {{{0}}};
    const int in = op->in, whole = in & ~7;
    const int bytes = is_bf16 ? 2 : 4;
    const char *own = (const char *)op->weight + (int64_t)first * in * bytes;
    for (int i = 0; i < whole; i += 8) {
        ask(own, (int64_t)i * bytes * outs, 8 * bytes * outs);
        vec loaded[ROW_TILE];
        UNROLL for (int r = 0; r < rows; r++) loaded[r] = load(x + (int64_t)r * in + i);
        UNROLL for (int o = 0; o < outs; o++) {
            int64_t at = (int64_t)(first + o) * in + i;
            vec w = is_bf16 ? load_bf16((const uint16_t *)op->weight + at) : load((const float *)op->weight + at);
            UNROLL for (int r = 0; r < rows; r++) sums[o][r] = fma8(w, loaded[r], sums[o][r]);
        }
    }
    add_up(outs, rows, sums, y);
    for (int i = whole; i < in; i++)
        UNROLL for (int o = 0; o < outs; o++) {
            int64_t at = (int64_t)(first + o) * in + i;
            float w = is_bf16 ? bf16_to_float(((const uint16_t *)op->weight)[at]) : ((const float *)op->weight)[at];
            UNROLL for (int r = 0; r < rows; r++) y[o * ROW_TILE + r] = fmaf(w, x[(int64_t)r * in + i], y[o * ROW_TILE + r]);
        }
}

TILE tile_codes(int is_int4, int outs, int rows, const op_t *op, int first, const int8_t *x, const float *scales, float *y) {
    vec sums[OUTPUT_TILE][ROW_TILE] = {{{0}}};
    const int in = op->in, groups = in / GROUP;
    const int bytes = is_int4 ? GROUP / 2 : GROUP;
    const char *begin = (const char *)op->weight + (int64_t)first * groups * bytes;
    for (int g = 0; g < groups; g++) {
        ask(begin, (int64_t)g * bytes * outs, bytes * outs);
        UNROLL for (int o = 0; o < outs; o++) {
            int64_t at = (int64_t)(first + o) * groups + g;
            codes_t w = is_int4 ? load_nibbles((const uint8_t *)op->weight + at * (GROUP / 2)) : load_codes((const int8_t *)op->weight + at * GROUP);
            codes_t abs_w = abs_codes(w);
            float own = is_int4 ? bf16_to_float(((const uint16_t *)op->scale)[at]) : 1.0f;
            UNROLL for (int r = 0; r < rows; r++) {
                float scale = scales[(int64_t)r * groups + g];
                vec dots = dot32(w, abs_w, load_codes(x + (int64_t)r * in + g * GROUP));
                sums[o][r] = fma8(dots, splat(is_int4 ? scale * own : scale), sums[o][r]);
            }
        }
    }
    add_up(outs, rows, sums, y);
    if (!is_int4)
        UNROLL for (int o = 0; o < outs; o++)
            UNROLL for (int r = 0; r < rows; r++) y[o * ROW_TILE + r] *= ((const float *)op->scale)[first + o];
}

#ifdef X86
TILE tile_pairs(int outs, int rows, const op_t *op, int first, const int8_t *x, const float *scales, float *y) {
    vec sums[OUTPUT_TILE][ROW_TILE] = {{{0}}};
    const int in = op->in, groups = in / GROUP;
    const uint8_t *begin = (const uint8_t *)op->weight + (int64_t)first * (in / 2);
    const uint16_t *own_scales = (const uint16_t *)op->scale + (int64_t)first * groups;
    const __m256i nibble = _mm256_set1_epi8(15);
    for (int g = 0; g < groups; g += 2) {
        ask(begin, (int64_t)g * (GROUP / 2) * outs, GROUP * outs);
        UNROLL for (int o = 0; o < outs; o++) {
            __m256i packed = _mm256_loadu_si256((const __m256i *)(begin + (int64_t)o * (in / 2) + g * (GROUP / 2)));
            __m256i low = _mm256_and_si256(packed, nibble), high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble);
            vec own = load_scale_pair(own_scales + (int64_t)o * groups + g);
            UNROLL for (int r = 0; r < rows; r++) {
                const int8_t *codes = x + (int64_t)r * in + g * GROUP;
                const float *row_scales = scales + (int64_t)r * groups * 8 + g * 4;
                vec dots = dot_pair(low, high, load_codes(codes), load_codes(codes + 32), _mm256_loadu_si256((const __m256i *)(row_scales + groups * 4)));
                sums[o][r] = fma8(dots, own * load(row_scales), sums[o][r]);
            }
        }
    }
    add_up(outs, rows, sums, y);
}
#endif

#define FOR_EACH_SHAPE(CALL) \
    if (rows == 1) { if (outs == 4) { CALL(4, 1); } else if (outs == 3) { CALL(3, 1); } else if (outs == 2) { CALL(2, 1); } else { CALL(1, 1); } } \
    else if (rows == 2) { if (outs == 2) { CALL(2, 2); } else { CALL(1, 2); } } \
    else if (rows == 3) { if (outs == 2) { CALL(2, 3); } else { CALL(1, 3); } } \
    else { if (outs == 2) { CALL(2, 4); } else { CALL(1, 4); } }

/* Floats of p->code_scales that a row takes: a scale a group, or in pairs four scales and four corrections a group. */
static inline int64_t scales_per_row(const op_t *op) { return (int64_t)(op->in / GROUP) * (IN_PAIRS(op) ? 8 : 1); }

static void tile(const plan_t *p, const op_t *op, int first, int outs, int row, int rows, float *y) {
    const float *x = op->src + (int64_t)row * op->in;
    const int8_t *codes = p->codes + (int64_t)row * op->in;
    const float *scales = p->code_scales + (int64_t)row * scales_per_row(op);
#define F32(o, r) tile_float(0, o, r, op, first, x, y)
#define B16(o, r) tile_float(1, o, r, op, first, x, y)
#define Q8(o, r) tile_codes(0, o, r, op, first, codes, scales, y)
#define Q4(o, r) tile_codes(1, o, r, op, first, codes, scales, y)
#ifdef X86
#define Q4_PAIRS(o, r) tile_pairs(o, r, op, first, codes, scales, y)
    if (IN_PAIRS(op)) { FOR_EACH_SHAPE(Q4_PAIRS) return; }
#endif
    switch (op->kind) {
        case FLOAT32: FOR_EACH_SHAPE(F32) break;
        case BFLOAT16: FOR_EACH_SHAPE(B16) break;
        case INT8: FOR_EACH_SHAPE(Q8) break;
        default: FOR_EACH_SHAPE(Q4) break;
    }
}

/* ---- operations; each thread does its share, and a barrier follows ---- */

static inline vec sigmoid8(vec x) { return splat(1.0f) / (splat(1.0f) + exp8(-x)); }

static inline vec gelu_tanh8(vec x) {    /* x * (1 + tanh(u)) / 2 = x * sigmoid(2u) */
    vec u = splat(0.7978845608f) * fma8(x * x, x * splat(0.044715f), x);
    return x * sigmoid8(u + u);
}

static void activate(int activation, float *y, int num) {
    int i = 0;
    for (; i + 8 <= num && activation != GELU; i += 8) {
        vec v = load(y + i);
        vec positive = max8(v, splat(0.0f));
        store(y + i, activation == GELU_TANH ? gelu_tanh8(v) : positive * positive);
    }
    for (; i < num; i++) {
        float v = y[i];
        if (activation == GELU_TANH) v = gelu_tanh8(splat(v))[0];
        else if (activation == GELU) v = 0.5f * v * (1.0f + erff(v * 0.70710678f));
        else v = v > 0.0f ? v * v : 0.0f;
        y[i] = v;
    }
}

static void quantize(const plan_t *p, const op_t *op, int row) {
    const float *x = op->src + (int64_t)row * op->in;
    int8_t *codes = p->codes + (int64_t)row * op->in;
    float *scales = p->code_scales + row * scales_per_row(op);
#ifdef X86
    if (IN_PAIRS(op)) {
        quantize_row_in_pairs(x, op->in, codes, scales, (int32_t *)(scales + op->in / GROUP * 4));
        return;
    }
#endif
    quantize_row(x, op->in, codes, scales);
}

/* Outputs are handed out in blocks, so that a thread whose core is busy elsewhere holds the others up little. */
static void linear(plan_t *p, const op_t *op, int rows, int thread, int threads, int32_t *next) {
    if (op->kind == INT8 || op->kind == INT4) {
        for (int r = thread; r < rows; r += threads) quantize(p, op, r);
        wait_for_all(p, threads);
    }
    const int width = rows == 1 ? OUTPUT_TILE : OUTPUT_TILE / 2;
    const int block = (op->out / (threads * 8) + 8) & ~7;
    float y[OUTPUT_TILE * ROW_TILE];
    for (int begin; (begin = __atomic_fetch_add(next, block, __ATOMIC_RELAXED)) < op->out;) {
        const int end = begin + block < op->out ? begin + block : op->out;
        for (int first = begin; first < end; first += width) {
            const int outs = end - first < width ? end - first : width;
            for (int row = 0; row < rows; row += ROW_TILE) {
                const int num = rows - row < ROW_TILE ? rows - row : ROW_TILE;
                tile(p, op, first, outs, row, num, y);
                for (int r = 0; r < num; r++) {
                    float *to = op->dst + (int64_t)(row + r) * op->out + first;
                    for (int o = 0; o < outs; o++) to[o] = y[o * ROW_TILE + r] + (op->adds ? to[o] : 0.0f);
                }
            }
        }
        for (int r = 0; r < rows; r++) {
            float *to = op->dst + (int64_t)r * op->out;
            if (op->bias) for (int o = begin; o < end; o++) to[o] += op->bias[o];
            if (op->activation) activate(op->activation, to + begin, end - begin);
        }
    }
}

static inline float sum_row(const float *x, int width, float shift, int squared) {
    vec sums = splat(0.0f);
    int i = 0;
    for (; i + 8 <= width; i += 8) {
        vec v = load(x + i) - splat(shift);
        sums = squared ? fma8(v, v, sums) : sums + v;
    }
    float total = sum8(sums);
    for (; i < width; i++) total += squared ? (x[i] - shift) * (x[i] - shift) : x[i] - shift;
    return total;
}

static void norm_row(const float *x, float *y, int width, int centered, float eps, const float *weight, const float *bias) {
    const float mean = centered ? sum_row(x, width, 0.0f, 0) / (float)width : 0.0f;
    const float scale = 1.0f / sqrtf(sum_row(x, width, mean, 1) / (float)width + eps);
    for (int i = 0; i < width; i++) y[i] = (x[i] - mean) * scale * weight[i] + (bias ? bias[i] : 0.0f);
}

static void rotate(float *x, const float *cos, const float *sin, int width) {
    for (int i = 0; i < width / 2; i++) {
        const float a = x[i], b = x[i + width / 2];
        x[i] = a * cos[i] + b * sin[i];
        x[i + width / 2] = b * cos[i + width / 2] + a * sin[i + width / 2];
    }
}

static void keep(const plan_t *p, int64_t at, const float *x) {
    if (p->cache_kind == FLOAT32) memcpy((float *)p->cache + at, x, sizeof(float) * (size_t)p->head_width);
    else for (int i = 0; i < p->head_width; i++) ((uint16_t *)p->cache)[at + i] = float_to_bf16(x[i]);
}

/* Finish queries in place, put keys and values of this row into its slot: one head of q, k or v. */
static void place_head(const plan_t *p, const op_t *op, int row, int head, int slot, int position) {
    const int H = p->num_heads, K = p->num_kv_heads, E = p->head_width;
    float *x = op->src + ((int64_t)row * (H + 2 * K) + head) * E;
    const int is_value = head >= H + K;
    if (!is_value) {
        const float *weight = head < H ? op->q_norm : op->k_norm;
        if (weight) norm_row(x, x, E, 0, op->eps, weight, NULL);
        if (p->cos) rotate(x, p->cos + (int64_t)position * E, p->sin + (int64_t)position * E, E);
    } else if (p->first_values) {
        float *first = p->first_values + ((int64_t)row * K + head - H - K) * E;
        if (op->layer == 0) memcpy(first, x, sizeof(float) * (size_t)E);
        if (op->has_mix) for (int i = 0; i < E; i++) x[i] += op->mix * (first[i] - x[i]);
    }
    if (head >= H) {
        const int kv_head = (head - H) % K;
        keep(p, op->layer * p->layer_stride + is_value * p->value_stride + slot * p->slot_stride + kv_head * p->head_stride + (int64_t)position * E, x);
    }
}

static inline vec load_kept(const plan_t *p, int64_t at) {
    return p->cache_kind == FLOAT32 ? load((const float *)p->cache + at) : load_bf16((const uint16_t *)p->cache + at);
}

static inline float kept(const plan_t *p, int64_t at) {
    return p->cache_kind == FLOAT32 ? ((const float *)p->cache)[at] : bf16_to_float(((const uint16_t *)p->cache)[at]);
}

static void attend_head(const plan_t *p, const op_t *op, int row, int head, int slot, int position, float *scores) {
    const int H = p->num_heads, K = p->num_kv_heads, E = p->head_width, whole = E & ~7;
    const float *q = op->src + ((int64_t)row * (H + 2 * K) + head) * E;
    float *y = op->dst + ((int64_t)row * H + head) * E;
    const int64_t keys = op->layer * p->layer_stride + slot * p->slot_stride + (head / (H / K)) * p->head_stride;
    const int64_t values = keys + p->value_stride;
    const int first = op->window && position + 1 > op->window ? position + 1 - op->window : 0;
    const int num = position + 1 - first;
    const float factor = 1.0f / sqrtf((float)E);
    float top = -INFINITY;
    for (int t = 0; t < num; t++) {
        const int64_t at = keys + (int64_t)(first + t) * E;
        vec sum = splat(0.0f);
        for (int i = 0; i < whole; i += 8) sum = fma8(load(q + i), load_kept(p, at + i), sum);
        float score = sum8(sum);
        for (int i = whole; i < E; i++) score = fmaf(q[i], kept(p, at + i), score);
        scores[t] = score * factor;
        top = scores[t] > top ? scores[t] : top;
    }
    float total = 0.0f;
    for (int t = 0; t < num; t += 8) {
        vec v = splat(-INFINITY);
        const int count = num - t < 8 ? num - t : 8;
        memcpy(&v, scores + t, sizeof(float) * (size_t)count);
        v = exp8(v - splat(top));
        for (int i = 0; i < count; i++) scores[t + i] = v[i], total += v[i];
    }
    const float inverse = 1.0f / total;
    int i = 0;
    for (; i + 32 <= E; i += 32) {
        vec a = splat(0.0f), b = a, c = a, d = a;
        for (int t = 0; t < num; t++) {
            const int64_t at = values + (int64_t)(first + t) * E + i;
            const vec share = splat(scores[t]);
            a = fma8(share, load_kept(p, at), a), b = fma8(share, load_kept(p, at + 8), b);
            c = fma8(share, load_kept(p, at + 16), c), d = fma8(share, load_kept(p, at + 24), d);
        }
        store(y + i, a * splat(inverse)), store(y + i + 8, b * splat(inverse));
        store(y + i + 16, c * splat(inverse)), store(y + i + 24, d * splat(inverse));
    }
    for (; i < E; i++) {
        float sum = 0.0f;
        for (int t = 0; t < num; t++) sum = fmaf(scores[t], kept(p, values + (int64_t)(first + t) * E + i), sum);
        y[i] = sum * inverse;
    }
}

static void attend(plan_t *p, const op_t *op, int rows, const int32_t *slots, const int32_t *positions, int thread, int threads) {
    const int heads = p->num_heads + 2 * p->num_kv_heads;
    for (int at = thread; at < rows * heads; at += threads)
        place_head(p, op, at / heads, at % heads, slots[at / heads], positions[at / heads]);
    wait_for_all(p, threads);
    for (int at = thread; at < rows * p->num_heads; at += threads)
        attend_head(p, op, at / p->num_heads, at % p->num_heads, slots[at / p->num_heads], positions[at / p->num_heads],
                    p->scores + (int64_t)thread * (p->max_tokens + 8));
}

/* dst (rows, out) = silu(first half of src) * second half, or dst *= sigmoid(src) */
static void combine(const op_t *op, int rows, int thread, int threads) {
    for (int r = thread; r < rows; r += threads) {
        const float *gate = op->src + (int64_t)r * op->in;
        float *y = op->dst + (int64_t)r * op->out;
        const float *value = op->code == SWIGLU ? gate + op->out : y;
        int i = 0;
        for (; i + 8 <= op->out; i += 8) {
            vec g = load(gate + i), open = sigmoid8(g);
            store(y + i, (op->code == SWIGLU ? g * open : open) * load(value + i));
        }
        for (; i < op->out; i++) {
            float g = gate[i], open = sigmoid8(splat(g))[0];
            y[i] = (op->code == SWIGLU ? g * open : open) * value[i];
        }
    }
}

void run(plan_t *p, int32_t rows, const int32_t *slots, const int32_t *positions) {
    p->arrived = p->next[0] = 0;
#pragma omp parallel num_threads(p->num_threads)
    {
        const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
        for (int i = 0; i < p->num_ops; i++) {
            const op_t *op = p->ops + i;
            if (thread == 0) p->next[(i + 1) & 1] = 0;    /* nobody uses that one before the barrier */
            if (op->code == LINEAR) linear(p, op, rows, thread, threads, &p->next[i & 1]);
            else if (op->code == ATTEND) attend(p, op, rows, slots, positions, thread, threads);
            else if (op->code == NORM)
                for (int r = thread; r < rows; r += threads)
                    norm_row(op->src + (int64_t)r * op->in, op->dst + (int64_t)r * op->in, op->in, op->centered, op->eps, (const float *)op->weight, op->bias);
            else combine(op, rows, thread, threads);
            wait_for_all(p, threads);
        }
    }
}

int32_t struct_sizes(int32_t which) { return which ? (int32_t)sizeof(plan_t) : (int32_t)sizeof(op_t); }
