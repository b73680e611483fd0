// Sums of products of 16-bit numbers, two to a lane, in the instruction set of the file that includes this.
//
// A step of the depth is two inputs: `widen` makes a panel's 8-bit or 4-bit codes of a step 16-bit pairs,
// `dot` adds the products of two pairs in each lane.

constexpr int kVectors = kPanel / kLanes;

typedef I32 Pairs;

// Two activations, in every lane.
static inline Pairs spread(const int16_t* x) {
    int32_t both;
    __builtin_memcpy(&both, x, 4);
    return both - I32{};
}

static inline I32 dot(I32 sum, Pairs a, Pairs b) {
#if OUTCROP_LANES == 16 && defined(OUTCROP_VNNI)
    return reinterpret_cast<I32>(_mm512_dpwssd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(a),
                                                     reinterpret_cast<__m512i>(b)));
#elif OUTCROP_LANES == 16
    return sum + reinterpret_cast<I32>(_mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif OUTCROP_LANES == 8
    return sum + reinterpret_cast<I32>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#else
    return sum + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

// Bytes made 16-bit: one instruction, which the compiler does not find by itself for 32 bytes of result.
static inline Pairs widen_signed(const uint8_t* at) {
#if OUTCROP_LANES == 8
    return reinterpret_cast<Pairs>(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
#else
    typedef int8_t Narrow __attribute__((vector_size(kLanes * 2), aligned(1), may_alias));
    typedef int16_t Wide __attribute__((vector_size(kLanes * 4)));
    return reinterpret_cast<Pairs>(__builtin_convertvector(*reinterpret_cast<const Narrow*>(at), Wide));
#endif
}

struct Int8 {
    static constexpr int kStepBytes = 2 * kPanel;
    static inline void widen(const uint8_t* at, Pairs* pairs) {
        for (int vector = 0; vector < kVectors; ++vector) pairs[vector] = widen_signed(at + vector * kLanes * 2);
    }
};

// The upper halves of the bytes of features 0..7 are features 8..15.
struct Int4 {
    static constexpr int kStepBytes = kPanel;
#if OUTCROP_LANES == 16
    static inline void widen(const uint8_t* at, Pairs* pairs) {
        typedef int32_t Eight __attribute__((vector_size(32)));
        typedef uint8_t Bytes __attribute__((vector_size(16), aligned(1), may_alias));
        typedef uint16_t Words __attribute__((vector_size(32)));
        const Eight both = reinterpret_cast<Eight>(
            __builtin_convertvector(*reinterpret_cast<const Bytes*>(at), Words));
        pairs[0] = __builtin_shufflevector(both, both >> 4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) &
                   0x000F000F;
    }
#elif OUTCROP_LANES == 8
    static inline void widen(const uint8_t* at, Pairs* pairs) {
        const __m256i both = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
        pairs[0] = reinterpret_cast<Pairs>(both) & 0x000F000F;
        pairs[1] = reinterpret_cast<Pairs>(_mm256_srli_epi16(both, 4));
    }
#else
    static inline void widen(const uint8_t* at, Pairs* pairs) {
        typedef uint8_t Bytes __attribute__((vector_size(kLanes * 2), aligned(1), may_alias));
        typedef uint16_t Words __attribute__((vector_size(kLanes * 4)));
        for (int vector = 0; vector < kVectors / 2; ++vector) {
            const Bytes bytes = *reinterpret_cast<const Bytes*>(at + vector * kLanes * 2);
            const Words both = __builtin_convertvector(bytes, Words);
            pairs[vector] = reinterpret_cast<Pairs>(both & 15);
            pairs[vector + kVectors / 2] = reinterpret_cast<Pairs>(both >> 4);
        }
    }
#endif
};

// float16 to float32.
static inline F32 halves(const uint16_t* from) {
#if OUTCROP_LANES == 16
    return reinterpret_cast<F32>(_mm512_maskz_cvtph_ps(0xFFFF, *reinterpret_cast<const __m256i_u*>(from)));
#elif OUTCROP_LANES == 8
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
    // Exponent and fraction at their places, then the difference of the exponents' biases.
    const U32 bits = __builtin_convertvector(*reinterpret_cast<const U16*>(from), U32);
    const F32 magnitude = reinterpret_cast<F32>((bits & 0x7FFF) << 13) * 0x1p112f;
    return reinterpret_cast<F32>(reinterpret_cast<U32>(magnitude) | (bits & 0x8000) << 16);
#endif
}
