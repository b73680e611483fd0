// Causal attention over paged keys and values for few queries, as in decoding: the pages are read where they lie.
// Queries of one kv head are taken kQueries at a time, so that a key or value that was read serves them all.
//
// A row's positions are cut into stretches, for there may be fewer rows and heads than threads. Each stretch is
// attended to by itself, and what they make is put together by another kernel. Where a row is cut depends on nothing
// but its own length: its company must not change its answer.

constexpr int kQueries = 4;

// Asks for kElements from `at` ahead of their use.
template <long kElements, class Element>
static inline void fetch(const Element* at) {
#pragma GCC unroll 4
    for (long element = 0; element < kElements; element += 64 / sizeof(Element)) __builtin_prefetch(at + element, 0, 2);
}

template <class Element>
static inline void fetch(const Element* at, long elements) {
    for (long element = 0; element < elements; element += 64 / sizeof(Element)) __builtin_prefetch(at + element, 0, 2);
}

// Keys that are taken at once, and vectors of a value: enough sums in flight to hide the latency of an addition,
// few enough to stay in 16 registers.
template <int kCount>
constexpr int kKeys = kCount == 1 ? 8 : kCount == 4 ? 2 : 4;
template <int kCount>
constexpr int kParts = kCount == 4 ? 2 : 4;

// Scores of kCount queries with kNumber keys, `stride` elements apart: scores[query][first + key]. A function of its
// own, like mix_part below, or the compiler would find no registers for the sums among all else that goes on.
template <int kCount, int kNumber, class Element>
static __attribute__((noinline)) void dot(const float* const (&queries)[kQueries], const Element* keys, long stride,
                                          long dim, float scale, float* const (&scores)[kQueries], long first) {
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

// The positions that the longest of a row's queries sees.
static inline long span_of(const Attention& job, long row) {
    long last = 0;
    for (long token = 0; token < job.width; ++token) {
        const long position = job.positions[row * job.width + token];
        last = position > last ? position : last;
    }
    return last + 1;
}

// How long the stretches of so many positions are: so long that there are no more of them than there may be, and
// whole blocks.
static inline long stretch_of(const Attention& job, long span) {
    const long size = job.pages.block_size, unit = (kStretch + size - 1) / size * size;
    const long units = (span + unit - 1) / unit;
    return (units + kMostStretches - 1) / kMostStretches * unit;
}

// out[query] += weights[query][position] * value[position] for kNumber vectors of the values of a chunk. Asks for the
// same of those at `next`.
template <int kCount, int kNumber, class Element>
static __attribute__((noinline)) void mix_part(float* const (&out)[kQueries], const float* const (&weights)[kQueries],
                                               const Element* values, const Element* next, long count, long stride,
                                               long d) {
    F32 sums[kCount][kNumber];
#pragma GCC unroll 4
    for (int query = 0; query < kCount; ++query)
#pragma GCC unroll 8
        for (int part = 0; part < kNumber; ++part) sums[query][part] = load(out[query] + d + part * kLanes);
    for (long position = 0; position < count; ++position) {
        fetch<kNumber * kLanes>(next + position * stride + d);
        F32 factors[kCount];
#pragma GCC unroll 4
        for (int query = 0; query < kCount; ++query) factors[query] = splat(weights[query][position]);
#pragma GCC unroll 8
        for (int part = 0; part < kNumber; ++part) {
            const F32 vector = load(values + position * stride + d + part * kLanes);
#pragma GCC unroll 4
            for (int query = 0; query < kCount; ++query) multiply_add(sums[query][part], factors[query], vector);
        }
    }
#pragma GCC unroll 4
    for (int query = 0; query < kCount; ++query)
#pragma GCC unroll 8
        for (int part = 0; part < kNumber; ++part) store(out[query] + d + part * kLanes, sums[query][part]);
}

template <int kCount, class Element>
static inline void mix(float* const (&out)[kQueries], const float* const (&weights)[kQueries], const Element* values,
                       const Element* next, long count, long stride, long dim) {
    constexpr int kNumber = kParts<kCount>;
    long d = 0;
    for (; d + kNumber * kLanes <= dim; d += kNumber * kLanes)
        mix_part<kCount, kNumber>(out, weights, values, next, count, stride, d);
    for (; d + kLanes <= dim; d += kLanes) mix_part<kCount, 1>(out, weights, values, next, count, stride, d);
    for (; d < dim; ++d)
        for (long position = 0; position < count; ++position)
            for (int query = 0; query < kCount; ++query)
                out[query][d] += weights[query][position] * widen(values[position * stride + d]);
}

// What a query found in a stretch: its values [dim], summed by their odds relative to the largest score, then that
// score, and the sum of the odds.
static inline float* found(const Attention& job, long query, long stretch) {
    return job.found + (query * job.stretches + stretch) * (job.dim + 2);
}

// Some queries of a row and kv head, and a stretch of the positions they see.
struct Task {
    long row, kv_head, query, queries, stretch, first, last;

    Task(const Attention& job, long index) {
        const long all = job.width * (job.heads / job.kv_heads), tiles = (all + kQueries - 1) / kQueries;
        const long tile = index / job.stretches;
        stretch = index % job.stretches;
        row = tile / tiles / job.kv_heads;
        kv_head = tile / tiles % job.kv_heads;
        query = tile % tiles * kQueries;
        queries = all - query < kQueries ? all - query : kQueries;
        const long span = span_of(job, row), length = stretch_of(job, span);
        first = stretch * length;
        last = first + length < span ? first + length : span;
    }

    // Which query of the job one of these is. They are counted by token first, then by head of the group.
    long place(const Attention& job, long index) const {
        const long group = job.heads / job.kv_heads, token = (query + index) / group;
        return (row * job.width + token) * job.heads + kv_head * group + (query + index) % group;
    }

    // How many positions from `start` on are taken at once: they are of one block.
    long chunk(const Attention& job, long start) const {
        const long size = job.pages.block_size, block_end = start - start % size + size;
        const long end = start + kChunkKeys;
        return std::min({end, block_end, last}) - start;
    }

    bool empty() const { return first >= last; }

    // Where the keys and values of a position lie.
    long at(const Attention& job, long position) const {
        const int32_t* table = job.block_tables + row * job.table_width;
        const long size = job.pages.block_size;
        return table[position / size] * job.pages.block + position % size * job.pages.token + kv_head * job.pages.head;
    }
};

// Attends to a task's positions chunk by chunk. While one is computed with, the next one is asked for, which behind the
// last one is that of another task, at `after`: a row of one head lies apart from the next one, and a block from the
// next block, so the processor's own prefetching does not follow.
template <int kCount, class Element>
static void attend(const Attention& job, const Task& task, long after) {
    const long stride = job.pages.token;
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(job.dim));
    const Element* keys = static_cast<const Element*>(job.keys);
    const Element* values = static_cast<const Element*>(job.values);
    float chunk_scores[kQueries][kChunkKeys];
    const float* queries[kQueries];
    float *outs[kQueries], *scores[kQueries];
    long visible[kQueries];
    for (int query = 0; query < kCount; ++query) {
        const long place = task.place(job, query);
        queries[query] = job.query + place * job.dim;
        visible[query] = job.positions[place / job.heads] + 1;
        scores[query] = chunk_scores[query];
        outs[query] = found(job, place, task.stretch);
        __builtin_memset(outs[query], 0, (job.dim + 2) * sizeof(float));
        outs[query][job.dim] = kLeastScore;
    }
    long at = task.at(job, task.first), next;
    for (long start = task.first, count; start < task.last; start += count, at = next) {
        count = task.chunk(job, start);
        next = start + count < task.last ? task.at(job, start + count) : after;
        long position = 0;
        for (; position + kKeys<kCount> <= count; position += kKeys<kCount>) {
            for (int key = 0; key < kKeys<kCount>; ++key) fetch(keys + next + (position + key) * stride, job.dim);
            dot<kCount, kKeys<kCount>>(queries, keys + at + position * stride, stride, job.dim, scale, scores,
                                       position);
        }
        for (; position < count; ++position)
            dot<kCount, 1>(queries, keys + at + position * stride, stride, job.dim, scale, scores, position);
        for (int query = 0; query < kCount; ++query) {
            const long left = visible[query] - start;
            float *out = outs[query], *largest = out + job.dim, *total = largest + 1;
            update_softmax(scores[query], left < count ? left : count, out, job.dim, *largest, *total);
        }
        mix<kCount>(outs, scores, values + at, values + next, count, stride, job.dim);
    }
}

template <class Element>
static void attend_few(const Attention& job, Part part) {
    const long tiles = (job.width * (job.heads / job.kv_heads) + kQueries - 1) / kQueries;
    const Share tasks(job.rows * job.kv_heads * tiles * job.stretches, part);
    const auto next_of = [&](long index) {
        while (index < tasks.last && Task(job, index).empty()) ++index;
        return index;
    };
    for (long index = next_of(tasks.first); index < tasks.last;) {
        const Task task(job, index);
        index = next_of(index + 1);
        const Task after(job, index < tasks.last ? index : tasks.first);
        const long after_at = after.at(job, after.empty() ? 0 : after.first);
        switch (task.queries) {
            case 1: attend<1, Element>(job, task, after_at); break;
            case 2: attend<2, Element>(job, task, after_at); break;
            case 3: attend<3, Element>(job, task, after_at); break;
            default: attend<4, Element>(job, task, after_at);
        }
    }
}

// What each query found in all stretches.
static void attention_sum(const Attention& job, Part part) {
    const Share tokens(job.rows * job.width, part);
    for (long token = tokens.first; token < tokens.last; ++token) {
        const long span = span_of(job, token / job.width), stretch = stretch_of(job, span);
        const long stretches = (span + stretch - 1) / stretch;
        for (long query = token * job.heads; query < (token + 1) * job.heads; ++query) {
            float* out = job.out + query * job.dim;
            float largest = kLeastScore, total = 0;
            for (long index = 0; index < stretches; ++index) {
                const float top = found(job, query, index)[job.dim];
                largest = top > largest ? top : largest;
            }
            __builtin_memset(out, 0, job.dim * sizeof(float));
            for (long index = 0; index < stretches; ++index) {
                const float* from = found(job, query, index);
                const float factor = __builtin_expf(from[job.dim] - largest);
                total += from[job.dim + 1] * factor;
                for (long d = 0; d < job.dim; ++d) out[d] += from[d] * factor;
            }
            for (long d = 0; d < job.dim; ++d) out[d] /= total;
        }
    }
}
