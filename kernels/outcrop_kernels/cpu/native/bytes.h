// Sums of products of bytes: kLanes lanes of four bytes each, in the instruction set of the file that includes this.
//
// Int8 and Int4 say how weights are read at a step of four inputs (`unpack`), how they are multiplied with four
// activations (`dot`), and what their sum over a group is in the end (`finish`, given the sum of the activations).

constexpr int kVectors = kPanel / kLanes;

typedef uint8_t Bytes __attribute__((vector_size(kLanes * 4), aligned(1), may_alias));

static inline Bytes read(const uint8_t* at) { return *reinterpret_cast<const Bytes*>(at); }

// Four activations, in every lane.
static inline Bytes factors(const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return reinterpret_cast<Bytes>(four - I32{});
}

#if defined(OUTCROP_BYTES_AVX2)

// There is no product of signed bytes: the weights' signs go to the activations. No pair of products, at most
// 2 * 128 * 127, saturates.
struct Int8 {
    static constexpr int kStepBytes = 4 * kPanel;
    typedef I32 Sum;
    struct Weight {
        __m256i value, magnitude;
    };
    static inline void unpack(const uint8_t* at, Weight* weights) {
        for (int vector = 0; vector < kVectors; ++vector) {
            const __m256i value = reinterpret_cast<__m256i>(read(at + vector * 32));
            weights[vector] = {value, _mm256_abs_epi8(value)};
        }
    }
    static inline Sum dot(Sum sum, const Weight& weight, Bytes x) {
        const __m256i signed_x = _mm256_sign_epi8(reinterpret_cast<__m256i>(x), weight.value);
        const __m256i pairs = _mm256_maddubs_epi16(weight.magnitude, signed_x);
        return sum + reinterpret_cast<I32>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    static inline I32 finish(Sum sum, int32_t) { return sum; }
};

// Products of 4-bit weights are so small that those of a whole group add up in 16 bits: 16 * 15 * 127.
struct Int4 {
    static constexpr int kStepBytes = 2 * kPanel;
    typedef int16_t Sum __attribute__((vector_size(32)));
    typedef __m256i Weight;
    static inline void unpack(const uint8_t* at, Weight* weights) {
        const __m256i both = reinterpret_cast<__m256i>(read(at)), low = _mm256_set1_epi8(15);
        weights[0] = _mm256_and_si256(both, low);
        weights[1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
    }
    static inline Sum dot(Sum sum, Weight weight, Bytes x) {
        return sum + reinterpret_cast<Sum>(_mm256_maddubs_epi16(weight, reinterpret_cast<__m256i>(x)));
    }
    static inline I32 finish(Sum sum, int32_t) {
        return reinterpret_cast<I32>(_mm256_madd_epi16(reinterpret_cast<__m256i>(sum), _mm256_set1_epi16(1)));
    }
};

static inline F32 halves(const uint16_t* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

#else

// sum + the products of unsigned with signed bytes, four to a lane.
static inline I32 dot_bytes(I32 sum, Bytes weight, Bytes x) {
#if defined(OUTCROP_BYTES_VNNI)
    return reinterpret_cast<I32>(_mm512_dpbusd_epi32(
        reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(weight), reinterpret_cast<__m512i>(x)));
#else
    for (int byte = 0; byte < 4; ++byte) {
        const I32 code = reinterpret_cast<I32>(reinterpret_cast<U32>(weight) >> (8 * byte)) & 255;
        sum += code * (reinterpret_cast<I32>(reinterpret_cast<U32>(x) << (24 - 8 * byte)) >> 24);
    }
    return sum;
#endif
}

// Weights are moved up by 128 to become unsigned, and their sum back.
struct Int8 {
    static constexpr int kStepBytes = 4 * kPanel;
    typedef I32 Sum;
    typedef Bytes Weight;
    static inline void unpack(const uint8_t* at, Weight* weights) {
        for (int vector = 0; vector < kVectors; ++vector) weights[vector] = read(at + vector * kLanes * 4) ^ 128;
    }
    static inline Sum dot(Sum sum, Weight weight, Bytes x) { return dot_bytes(sum, weight, x); }
    static inline I32 finish(Sum sum, int32_t activations) { return sum - 128 * activations; }
};

struct Int4 {
    static constexpr int kStepBytes = 2 * kPanel;
    typedef I32 Sum;
    typedef Bytes Weight;
    static inline void unpack(const uint8_t* at, Weight* weights) {
#if defined(OUTCROP_BYTES_VNNI)
        const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
        const __m512i spread = _mm512_inserti64x4(_mm512_castsi256_si512(both), _mm256_srli_epi16(both, 4), 1);
        weights[0] = reinterpret_cast<Bytes>(_mm512_and_si512(spread, _mm512_set1_epi8(15)));
#else
        for (int vector = 0; vector < kVectors / 2; ++vector) {
            const Bytes both = read(at + vector * kLanes * 4);
            weights[vector] = both & 15;
            weights[vector + kVectors / 2] = both >> 4;
        }
#endif
    }
    static inline Sum dot(Sum sum, Weight weight, Bytes x) { return dot_bytes(sum, weight, x); }
    static inline I32 finish(Sum sum, int32_t) { return sum; }
};

static inline F32 halves(const uint16_t* from) {
#if defined(OUTCROP_BYTES_VNNI)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#else
    // Exponent and fraction at their places in float32, then the difference of the exponents' biases.
    const U32 bits = __builtin_convertvector(*reinterpret_cast<const U16*>(from), U32);
    const F32 magnitude = reinterpret_cast<F32>((bits & 0x7FFF) << 13) * 0x1p112f;
    return reinterpret_cast<F32>(reinterpret_cast<U32>(magnitude) | (bits & 0x8000) << 16);
#endif
}

#endif
