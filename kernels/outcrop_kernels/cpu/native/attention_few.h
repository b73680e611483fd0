// Causal attention over paged keys and values for few queries, as in decoding: the pages are read where they lie.
// Queries of one kv head are taken kQueries at a time, so that a key or value that was read serves them all.

constexpr int kQueries = 4;

// Keys that are taken at once, and vectors of a value: enough sums in flight to hide the latency of an addition,
// few enough to stay in 16 registers.
template <int kCount>
constexpr int kKeys = kCount == 1 ? 8 : kCount == 4 ? 2 : 4;
template <int kCount>
constexpr int kParts = kCount == 4 ? 2 : 4;

// Scores of kCount queries with kNumber keys, `stride` elements apart: scores[query][first + key]. A function of its
// own, like mix_part below, or the compiler would find no registers for the sums among all else that goes on.
template <int kCount, int kNumber, class Element>
static __attribute__((noinline)) void dot(const float* const (&queries)[kQueries], const Element* keys, long stride, long dim, float scale,
                       float* const (&scores)[kQueries], long first) {
    F32 sums[kCount][kNumber];
#pragma GCC unroll 4
    for (int query = 0; query < kCount; ++query)
#pragma GCC unroll 8
        for (int key = 0; key < kNumber; ++key) sums[query][key] = F32{};
    long d = 0;
    for (; d + kLanes <= dim; d += kLanes) {
        F32 factors[kCount];
#pragma GCC unroll 4
        for (int query = 0; query < kCount; ++query) factors[query] = load(queries[query] + d);
#pragma GCC unroll 8
        for (int key = 0; key < kNumber; ++key) {
            const F32 part = load(keys + key * stride + d);
#pragma GCC unroll 4
            for (int query = 0; query < kCount; ++query) multiply_add(sums[query][key], factors[query], part);
        }
    }
#pragma GCC unroll 4
    for (int query = 0; query < kCount; ++query) {
        float* to = scores[query] + first;
        if constexpr (kNumber % 4 == 0) {
#pragma GCC unroll 2
            for (int key = 0; key < kNumber; key += 4)
                *reinterpret_cast<Four*>(to + key) =
                    across(sums[query][key], sums[query][key + 1], sums[query][key + 2], sums[query][key + 3]) * scale;
        } else {
#pragma GCC unroll 8
            for (int key = 0; key < kNumber; ++key) to[key] = sum(sums[query][key]) * scale;
        }
        for (int key = 0; key < kNumber; ++key)
            for (long rest = d; rest < dim; ++rest)
                to[key] += widen(keys[key * stride + rest]) * queries[query][rest] * scale;
    }
}

// Probabilities in place of scores [0, visible), zero in [visible, span). Returns their sum.
static inline float softmax(float* scores, long visible, long span) {
    long at = 0;
    F32 tops = splat(scores[0]);
    for (; at + kLanes <= visible; at += kLanes) tops = larger(load(scores + at), tops);
    float largest = tops[0];
    for (int lane = 1; lane < kLanes; ++lane) largest = tops[lane] > largest ? tops[lane] : largest;
    for (; at < visible; ++at) largest = scores[at] > largest ? scores[at] : largest;
    F32 sums{};
    at = 0;
    for (; at + kLanes <= visible; at += kLanes) {
        const F32 odds = exponential(load(scores + at) - largest);
        store(scores + at, odds);
        sums += odds;
    }
    float total = sum(sums);
    for (; at < visible; ++at) {
        F32 odds = exponential(splat(scores[at] - largest));
        scores[at] = odds[0];
        total += odds[0];
    }
    for (; at < span; ++at) scores[at] = 0;
    return total;
}

// out[query] += weights[query][position] * value[position] for kNumber vectors of the values of one block.
template <int kCount, int kNumber, class Element>
static __attribute__((noinline)) void mix_part(float* const (&out)[kQueries], const float* const (&weights)[kQueries],
                            const Element* values, long count, long stride, long d) {
    F32 sums[kCount][kNumber];
#pragma GCC unroll 4
    for (int query = 0; query < kCount; ++query)
#pragma GCC unroll 4
        for (int part = 0; part < kNumber; ++part) sums[query][part] = load(out[query] + d + part * kLanes);
    for (long position = 0; position < count; ++position) {
        F32 parts[kNumber];
#pragma GCC unroll 4
        for (int part = 0; part < kNumber; ++part) parts[part] = load(values + position * stride + d + part * kLanes);
#pragma GCC unroll 4
        for (int query = 0; query < kCount; ++query) {
            const F32 weight = splat(weights[query][position]);
#pragma GCC unroll 4
            for (int part = 0; part < kNumber; ++part) multiply_add(sums[query][part], weight, parts[part]);
        }
    }
#pragma GCC unroll 4
    for (int query = 0; query < kCount; ++query)
#pragma GCC unroll 4
        for (int part = 0; part < kNumber; ++part) store(out[query] + d + part * kLanes, sums[query][part]);
}

template <int kCount, class Element>
static inline void mix(float* const (&out)[kQueries], const float* const (&weights)[kQueries], const Element* values,
                       long count, long stride, long dim) {
    constexpr int kNumber = kParts<kCount>;
    long d = 0;
    for (; d + kNumber * kLanes <= dim; d += kNumber * kLanes)
        mix_part<kCount, kNumber>(out, weights, values, count, stride, d);
    for (; d + kLanes <= dim; d += kLanes) mix_part<kCount, 1>(out, weights, values, count, stride, d);
    for (; d < dim; ++d)
        for (long position = 0; position < count; ++position)
            for (int query = 0; query < kCount; ++query)
                out[query][d] += weights[query][position] * widen(values[position * stride + d]);
}

// Asks for `count` rows of `dim` elements ahead of their use. A row of one head lies apart from the next one, and a
// block from the next block: the processor's own prefetching does not follow, and would wait for each.
template <class Element>
static inline void fetch(const Element* rows, long count, long stride, long dim) {
    constexpr long kLine = 64 / sizeof(Element);
    for (long row = 0; row < count; ++row)
        for (long d = 0; d < dim; d += kLine) __builtin_prefetch(rows + row * stride + d, 0, 2);
}

template <int kCount, class Element>
static void attend(const Attention& job, long row, long kv_head, const long (&index)[kQueries], float* scratch) {
    const long group = job.heads / job.kv_heads, stride = job.pages.token, size = job.pages.block_size;
    const int32_t* table = job.block_tables + row * job.table_width;
    const float* queries[kQueries];
    float *outs[kQueries], *scores[kQueries];
    long visible[kQueries], span = 0;
    const long most = job.table_width * size;
    for (int query = 0; query < kCount; ++query) {
        // index counts the queries of this row and kv head: token first, then head of the group.
        const long token = index[query] / group, head = kv_head * group + index[query] % group;
        const long at = ((row * job.width + token) * job.heads + head) * job.dim;
        queries[query] = job.query + at;
        outs[query] = job.out + at;
        scores[query] = scratch + query * most;
        visible[query] = job.positions[row * job.width + token] + 1;
        span = visible[query] > span ? visible[query] : span;
    }
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(job.dim));
    const Element* keys = static_cast<const Element*>(job.keys);
    const Element* values = static_cast<const Element*>(job.values);
    const auto offset_of = [&](long start) {
        return table[start / size] * job.pages.block + kv_head * job.pages.head;
    };
    fetch(keys + offset_of(0), span < size ? span : size, stride, job.dim);
    for (long start = 0; start < span; start += size) {
        const long offset = offset_of(start);
        const long count = span - start < size ? span - start : size;
        const Element* block = keys + offset;
        const Element* next = start + count < span ? keys + offset_of(start + count) : nullptr;
        long position = 0;
        for (; position + kKeys<kCount> <= count; position += kKeys<kCount>) {
            if (next != nullptr) fetch(next + position * stride, kKeys<kCount>, stride, job.dim);
            fetch(values + offset + position * stride, kKeys<kCount>, stride, job.dim);
            dot<kCount, kKeys<kCount>>(queries, block + position * stride, stride, job.dim, scale, scores,
                                       start + position);
        }
        for (; position < count; ++position)
            dot<kCount, 1>(queries, block + position * stride, stride, job.dim, scale, scores, start + position);
    }
    float totals[kQueries];
    for (int query = 0; query < kCount; ++query) {
        totals[query] = softmax(scores[query], visible[query], span);
        __builtin_memset(outs[query], 0, job.dim * sizeof(float));
    }
    for (long start = 0; start < span; start += size) {
        const long offset = offset_of(start);
        const long count = span - start < size ? span - start : size;
        const float* weights[kQueries];
        for (int query = 0; query < kCount; ++query) weights[query] = scores[query] + start;
        mix<kCount>(outs, weights, values + offset, count, stride, job.dim);
    }
    for (int query = 0; query < kCount; ++query)
        for (long d = 0; d < job.dim; ++d) outs[query][d] /= totals[query];
}

