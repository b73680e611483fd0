// Vectors of kLanes floats in the instruction set of the file that includes this (see isa_*.cpp). The
// compiler's vector extension does most of the work: `a * b + c` becomes one fused instruction where there
// is one.

constexpr int kLanes = OUTCROP_LANES;

typedef float F32 __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef int32_t I32 __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef uint32_t U32 __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef uint16_t U16 __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));

static inline F32 splat(float value) { return value - F32{}; }

static inline F32 load(const float* from) { return *reinterpret_cast<const F32*>(from); }

static inline F32 load(const uint16_t* from) {  // bfloat16
    const U16 bits = *reinterpret_cast<const U16*>(from);
#if OUTCROP_LANES == 8  // for which the compiler finds four instructions
    return reinterpret_cast<F32>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(bits)), 16));
#else
    return reinterpret_cast<F32>(__builtin_convertvector(bits, U32) << 16);
#endif
}

static inline void store(float* to, F32 value) { *reinterpret_cast<F32*>(to) = value; }

static inline float widen(float value) { return value; }

static inline float widen(uint16_t bits) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    __builtin_memcpy(&value, &wide, 4);
    return value;
}

// To bfloat16, to nearest, ties to even. Finite values only.
static inline uint16_t narrow(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// sum += a * b, as the one instruction in which the sum keeps its register. With nearly all registers in use, the
// compiler's own choice of instructions moves sums about until it keeps some in memory.
static inline void multiply_add(F32& sum, F32 a, F32 b) {
#if OUTCROP_LANES == 8
    asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
#elif OUTCROP_LANES == 16
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#else
    sum += a * b;
#endif
}

#ifdef OUTCROP_BFLOAT16
// sum += a * b for both numbers of bfloat16 in each lane, whose bits pass for one of float32.
static inline void multiply_add_pairs(F32& sum, F32 a, F32 b) {
#if OUTCROP_LANES == 16
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#else
    const U32 left = reinterpret_cast<U32>(a), right = reinterpret_cast<U32>(b);
    sum += reinterpret_cast<F32>(left & 0xFFFF0000u) * reinterpret_cast<F32>(right & 0xFFFF0000u);
    sum += reinterpret_cast<F32>(left << 16) * reinterpret_cast<F32>(right << 16);
#endif
}
#endif

// Keeps the upper 16 bits of each lane. The mask stays in memory, for the compiler would rather have a sum there and
// keep the mask in a register.
static inline F32 upper_half(U32 bits) {
#if OUTCROP_LANES == 8
    alignas(32) static const U32 mask = ~U32{} << 16;
    F32 kept;
    asm("vpand %2, %1, %0" : "=x"(kept) : "x"(bits), "m"(mask));
    return kept;
#else
    return reinterpret_cast<F32>(bits & 0xFFFF0000u);
#endif
}

static inline F32 blend(I32 choose, F32 yes, F32 no) {
    return reinterpret_cast<F32>((reinterpret_cast<I32>(yes) & choose) | (reinterpret_cast<I32>(no) & ~choose));
}

// Whether any lane of a comparison's result is set.
static inline bool any(I32 chosen) {
#if OUTCROP_LANES == 8
    return !_mm256_testz_si256(reinterpret_cast<__m256i>(chosen), reinterpret_cast<__m256i>(chosen));
#elif OUTCROP_LANES == 16
    return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(chosen), reinterpret_cast<__m512i>(chosen)) != 0;
#else
    int32_t found = 0;
    for (int lane = 0; lane < kLanes; ++lane) found |= chosen[lane];
    return found != 0;
#endif
}

static inline F32 larger(F32 a, F32 b) { return blend(a > b, a, b); }

#ifdef OUTCROP_BFLOAT16
// To bfloat16, to nearest, ties to even; what is no number stays so.
static inline U16 narrow(F32 value) {
    const U32 bits = reinterpret_cast<U32>(value);
    const F32 rounded = reinterpret_cast<F32>(bits + 0x7FFF + (bits >> 16 & 1));
    const F32 kept = blend(value == value, rounded, reinterpret_cast<F32>(bits | 0x400000));
    return __builtin_convertvector(reinterpret_cast<U32>(kept) >> 16, U16);
}
#endif

static inline float sum(F32 value) {
#if OUTCROP_LANES == 8
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
#elif OUTCROP_LANES == 16
    return _mm512_reduce_add_ps(value);
#else
    float total = 0;
    for (int lane = 0; lane < kLanes; ++lane) total += value[lane];
    return total;
#endif
}

// The sums across four vectors' lanes, side by side: a good deal cheaper than one after the other.
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

static inline Four across(F32 a, F32 b, F32 c, F32 d) {
#if OUTCROP_LANES == 4
    return Four{sum(a), sum(b), sum(c), sum(d)};
#else
#if OUTCROP_LANES == 16
#define OUTCROP_HALF(wide) _mm256_add_ps(_mm512_castps512_ps256(wide), _mm512_extractf32x8_ps(wide, 1))
#else
#define OUTCROP_HALF(value) value
#endif
    const __m256 first = _mm256_hadd_ps(OUTCROP_HALF(a), OUTCROP_HALF(b));
    const __m256 second = _mm256_hadd_ps(OUTCROP_HALF(c), OUTCROP_HALF(d));
    const __m256 both = _mm256_hadd_ps(first, second);
    return _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
#undef OUTCROP_HALF
#endif
}

// e to the power of x, x <= 88; below -87 it is 0. Relative error under 2e-7 (Cephes' polynomial).
static inline F32 exponential(F32 x) {
    const I32 tiny = x < splat(-87.0f);
    x = blend(tiny, splat(-87.0f), x);
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const F32 magic = splat(12582912.0f);
    F32 power = x * 1.44269504088896341f + magic;
    const I32 exponent = reinterpret_cast<I32>(power) - reinterpret_cast<I32>(magic);
    power -= magic;
    const F32 rest = (x - power * 0.693359375f) + power * 2.12194440e-4f;
    F32 series = splat(1.9875691500e-4f);
    series = series * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    const F32 value = series * rest * rest + rest + 1.0f;
    const F32 scale = reinterpret_cast<F32>((exponent + 127) << 23);
    return blend(tiny, F32{}, value * scale);
}
