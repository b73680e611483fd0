// y = x W' for packed weights: a tile of kRows rows by kPanels panels stays in registers. Where kAdd, y + x W'.

// How a vector of features is read at a step of the depth, and multiplied.
struct SingleSteps {
    static inline void add(F32& sum, F32 factor, F32 part) { multiply_add(sum, factor, part); }
};

struct Float32Panels : SingleSteps {
    typedef float Element;
    static constexpr int kSteps = 1;
    static inline F32 take(const Element* at, int) { return load(at); }
};

// bfloat16 lies in pairs of steps: each step takes its half anew from the cache, for which there is time, rather than
// keep the other half in a register.
struct BFloat16Panels : SingleSteps {
    typedef uint16_t Element;
    static constexpr int kSteps = 2;
    static inline F32 take(const Element* at, int step) {
        const U32 pairs = *reinterpret_cast<const U32*>(at);
        return step == 0 ? reinterpret_cast<F32>(pairs << 16) : upper_half(pairs);
    }
};

#ifdef OUTCROP_BFLOAT16
// The same panels for an instruction that does both steps of a lane. x is in pairs too, and a step here is two of them.
struct BFloat16Pairs {
    typedef uint32_t Element;
    static constexpr int kSteps = 1;
    static inline F32 take(const Element* at, int) { return load(reinterpret_cast<const float*>(at)); }
    static inline void add(F32& sum, F32 factor, F32 part) { multiply_add_pairs(sum, factor, part); }
};
#endif

template <class Panels, int kRows, int kPanels, bool kAdd = false>
static inline void tile(const float* x, const typename Panels::Element* weight, float* y, long depth,
                        long features, Ahead ahead) {
    constexpr int kVectors = kPanel / kLanes, kAcross = kPanels * kVectors;
    constexpr int kSteps = Panels::kSteps;
    F32 sums[kRows][kAcross];
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 16
        for (int vector = 0; vector < kAcross; ++vector)
            sums[row][vector] = kAdd ? load(y + row * features + vector * kLanes) : F32{};
    const float* from[kRows];
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row) from[row] = x + row * depth;
    const long panel_size = depth * kPanel;
    const long turn = ahead.before_turn() / static_cast<long>(kPanel * sizeof(typename Panels::Element));
    long k = 0;
    for (const long end : {turn, depth}) {
        for (; k < end; k += kSteps) {
            ahead.step<kPanels>();
#pragma GCC unroll 2
            for (int step = 0; step < kSteps; ++step) {
                // Of what is multiplied, the fewer wait in registers for the others to come one by one.
                F32 waiting[kRows < kAcross ? kRows : kAcross];
                if constexpr (kRows < kAcross) {
#pragma GCC unroll 16
                    for (int row = 0; row < kRows; ++row) waiting[row] = splat(from[row][k + step]);
                }
#pragma GCC unroll 16
                for (int panel = 0; panel < kPanels; ++panel)
#pragma GCC unroll 16
                    for (int vector = 0; vector < kVectors; ++vector) {
                        const F32 part = Panels::take(
                            weight + panel * panel_size + k * kPanel + vector * kLanes * kSteps, step);
                        if constexpr (kRows < kAcross) {
#pragma GCC unroll 16
                            for (int row = 0; row < kRows; ++row)
                                Panels::add(sums[row][panel * kVectors + vector], waiting[row], part);
                        } else {
                            waiting[panel * kVectors + vector] = part;
                        }
                    }
                if constexpr (kRows >= kAcross) {
#pragma GCC unroll 16
                    for (int row = 0; row < kRows; ++row) {
                        const F32 factor = splat(from[row][k + step]);
#pragma GCC unroll 16
                        for (int vector = 0; vector < kAcross; ++vector)
                            Panels::add(sums[row][vector], factor, waiting[vector]);
                    }
                }
            }
        }
        ahead.turn();
    }
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 16
        for (int vector = 0; vector < kAcross; ++vector)
            store(y + row * features + vector * kLanes, sums[row][vector]);
}

// As many sums as fit into registers beside what is multiplied, and so the tallest tile.
constexpr int kSums = kLanes == 16 ? 24 : 12;
constexpr int kMostRows = kSums * kLanes / kPanel < 12 ? kSums * kLanes / kPanel : 12;

// The most rows of a tile that is `panels` panels wide.
constexpr int rows_beside(int panels) {
    const int rows = kSums * kLanes / (panels * kPanel);
    return rows < 1 ? 1 : rows < kMostRows ? rows : kMostRows;
}

template <class Panels, int kPanels, bool kAdd = false, int kRows = rows_beside(kPanels)>
static inline void tile_of(long rows, const float* x, const typename Panels::Element* weight, float* y, long depth,
                           long features, Ahead ahead) {
    if (rows == kRows)
        tile<Panels, kRows, kPanels, kAdd>(x, weight, y, depth, features, ahead);
    else if constexpr (kRows > 1)
        tile_of<Panels, kPanels, kAdd, kRows - 1>(rows, x, weight, y, depth, features, ahead);
}

// Rows that stay in the second-level cache while all panels pass by them.
static inline long rows_in_cache(long depth) {
    const long rows = 128 * 1024 / (depth * 4);
    return rows < kMostRows ? kMostRows : rows / kMostRows * kMostRows;
}

template <class Panels>
static void linear_panels(const Linear& job, long first, long last) {
    typedef typename Panels::Element Element;
    const long depth = job.weight.depth, features = job.weight.features;
    const Element* weight = static_cast<const Element*>(job.weight.data);
    const long block = rows_in_cache(depth), panel_size = depth * kPanel;
    constexpr long step_bytes = kPanel * Panels::kSteps * sizeof(Element);
    for (long start = 0; start < job.rows; start += block) {
        const long rows = job.rows - start < block ? job.rows - start : block;
        const long tiles = (rows + kMostRows - 1) / kMostRows, tallest = (rows + tiles - 1) / tiles;
        // Few rows: more panels side by side, for there must be enough sums in flight to hide the latency.
        const int side_by_side = tallest <= rows_beside(4) ? 4 : tallest <= rows_beside(2) ? 2 : 1;
        for (long panel = first; panel < last;) {
            const long left = last - panel;
            const int panels = left >= side_by_side ? side_by_side : left >= 2 && side_by_side == 4 ? 2 : 1;
            const Element* at = weight + panel * panel_size;
            for (long index = 0; index < tiles; ++index) {
                const long begin = rows * index / tiles, count = rows * (index + 1) / tiles - begin;
                const float* x = job.x + (start + begin) * depth;
                float* y = job.y + (start + begin) * features + panel * kPanel;
                const Ahead ahead(at, panels, panel_size * sizeof(Element), step_bytes, index, tiles);
                if (panels == 4)
                    tile_of<Panels, 4>(count, x, at, y, depth, features, ahead);
                else if (panels == 2)
                    tile_of<Panels, 2>(count, x, at, y, depth, features, ahead);
                else
                    tile_of<Panels, 1>(count, x, at, y, depth, features, ahead);
            }
            panel += panels;
        }
    }
}

#ifdef OUTCROP_BFLOAT16
static void narrow_activations(const Narrow& job, Part part) {
    const auto put = [&](long at, F32 values) { *reinterpret_cast<U16*>(job.y + at) = narrow(values); };
    const long whole = job.count / kLanes * kLanes;
    const Share vectors(job.count / kLanes, part);
    for (long vector = vectors.first; vector < vectors.last; ++vector)
        put(vector * kLanes, load(job.x + vector * kLanes));
    if (part.last < part.of || whole == job.count) return;
    float rest[kLanes] = {};
    uint16_t narrowed[kLanes];
    __builtin_memcpy(rest, job.x + whole, (job.count - whole) * sizeof(float));
    *reinterpret_cast<U16*>(narrowed) = narrow(load(rest));
    __builtin_memcpy(job.y + whole, narrowed, (job.count - whole) * sizeof(uint16_t));
}
constexpr auto kNarrow = narrow_activations;
#else
constexpr void (*kNarrow)(const Narrow&, Part) = nullptr;
#endif

static void linear(const Linear& job, Part part) {
    const Share panels(job.weight.features / kPanel, part);
    if (panels.first == panels.last) return;
    if (job.weight.format == Format::float32) {
        linear_panels<Float32Panels>(job, panels.first, panels.last);
        return;
    }
#ifdef OUTCROP_BFLOAT16
    Linear in_pairs = job;
    in_pairs.weight.depth /= 2;
    linear_panels<BFloat16Pairs>(in_pairs, panels.first, panels.last);
#else
    linear_panels<BFloat16Panels>(job, panels.first, panels.last);
#endif
}
