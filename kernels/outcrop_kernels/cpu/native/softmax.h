// The softmax of attention, brought up to date with one chunk of keys after the other.

constexpr long kChunkKeys = 32;
constexpr float kLeastScore = -3.0e38f;  // before there is any

// Turns one query's scores of a chunk, of which `seen` are visible, into odds relative to the largest score so far,
// to which what was summed before is scaled; zeros behind those. scores: kChunkKeys. out: [dim], values summed by odds.
static void update_softmax(float* scores, long seen, float* out, long dim, float& largest, float& total) {
    if (seen <= 0) {
        __builtin_memset(scores, 0, kChunkKeys * sizeof(float));
        return;
    }
    for (long key = seen; key < kChunkKeys; ++key) scores[key] = -__builtin_inff();
    F32 tops = load(scores);
    for (long key = kLanes; key < kChunkKeys; key += kLanes) tops = larger(load(scores + key), tops);
    float top = largest;
    for (int lane = 0; lane < kLanes; ++lane) top = tops[lane] > top ? tops[lane] : top;
    if (top > largest) {
        const float factor = exponential(splat(largest - top))[0];
        long d = 0;
        for (; d + kLanes <= dim; d += kLanes) store(out + d, load(out + d) * factor);
        for (; d < dim; ++d) out[d] *= factor;
        total *= factor;
        largest = top;
    }
    F32 sums{};
    for (long key = 0; key < kChunkKeys; key += kLanes) {
        const F32 odds = exponential(load(scores + key) - top);
        store(scores + key, odds);
        sums += odds;
    }
    total += sum(sums);
}
