// Everything that touches each value once: norms, rotations, activations, copies.

constexpr float kLargestFinite = 3.0e38f;

static void rms_norm(const RmsNorm& job, Part part) {
    const Share tokens(job.tokens, part);
    for (long token = tokens.first; token < tokens.last; ++token) {
        const long first = token * job.features;
        const float* x = job.x + first;
        if (job.update != nullptr) {
            float* total = job.total + first;
            for (long at = 0; at < job.features; ++at) total[at] = x[at] + job.update[first + at];
            x = total;
        }
        float* y = job.y + first;
        F32 sums{};
        long at = 0;
        for (; at + kLanes <= job.features; at += kLanes) sums += load(x + at) * load(x + at);
        float total = sum(sums);
        for (; at < job.features; ++at) total += x[at] * x[at];
        const float scale = 1.0f / __builtin_sqrtf(total / static_cast<float>(job.features) + job.eps);
        for (at = 0; at < job.features; ++at) y[at] = job.weight[at] * (x[at] * scale);
    }
}

static inline float finite_or_zero(float value) { return __builtin_fabsf(value) <= kLargestFinite ? value : 0.0f; }

static inline void put(float* to, float value) { *to = value; }
static inline void put(uint16_t* to, float value) { *to = narrow(value); }

// What is put into a pool is finite: a failed row must not poison the next owner of its blocks.
template <class Element>
static void rope_cache_of(const RopeCache& job, Part part) {
    const Share tokens(job.tokens, part);
    const long half = job.dim / 2;
    for (long token = tokens.first; token < tokens.last; ++token) {
        const float *cos = job.cos + token * half, *sin = job.sin + token * half;
        const float* made = job.made + token * (job.heads + 2 * job.kv_heads) * job.dim;
        float* query = job.query + token * job.heads * job.dim;
        for (long head = 0; head < job.heads; ++head, made += job.dim, query += job.dim)
            for (long pair = 0; pair < half; ++pair) {
                const float low = made[pair], high = made[pair + half];
                query[pair] = low * cos[pair] - high * sin[pair];
                query[pair + half] = high * cos[pair] + low * sin[pair];
            }
        for (long head = 0; head < job.kv_heads; ++head, made += job.dim) {
            Element* key = static_cast<Element*>(job.keys) + job.pages.at(job.slots[token], head);
            for (long pair = 0; pair < half; ++pair) {
                const float low = made[pair], high = made[pair + half];
                put(key + pair, finite_or_zero(low * cos[pair] - high * sin[pair]));
                put(key + pair + half, finite_or_zero(high * cos[pair] + low * sin[pair]));
            }
        }
        for (long head = 0; head < job.kv_heads; ++head, made += job.dim) {
            Element* value = static_cast<Element*>(job.values) + job.pages.at(job.slots[token], head);
            for (long d = 0; d < job.dim; ++d) put(value + d, finite_or_zero(made[d]));
        }
    }
}

static void rope_cache(const RopeCache& job, Part part) {
    if (job.pages.format == Format::float32)
        rope_cache_of<float>(job, part);
    else
        rope_cache_of<uint16_t>(job, part);
}

static void swiglu(const SwiGlu& job, Part part) {
    // Few tokens of many features: cut both ways.
    const Share work(job.tokens * job.features, part);
    for (long at = work.first; at < work.last;) {
        const long token = at / job.features, feature = at % job.features;
        const long left = job.features - feature, count = work.last - at < left ? work.last - at : left;
        const float* gate = job.gate_up + token * 2 * job.features + feature;
        const float* up = gate + job.features;
        float* y = job.y + at;
        long index = 0;
        for (; index + kLanes <= count; index += kLanes) {
            const F32 value = load(gate + index);
            store(y + index, value / (1.0f + exponential(-larger(value, splat(-87.0f)))) * load(up + index));
        }
        for (; index < count; ++index) {
            const F32 value = splat(gate[index]);
            const F32 result = value / (1.0f + exponential(-larger(value, splat(-87.0f)))) * up[index];
            y[index] = result[0];
        }
        at += count;
    }
}

static void take(const Take& job, Part part) {
    const Share rows(job.count, part);
    for (long row = rows.first; row < rows.last; ++row) {
        float* y = job.y + row * job.features;
        const long from = (job.indices[row] + row * job.apart) * job.features;
        if (job.format == Format::float32) {
            __builtin_memcpy(y, static_cast<const float*>(job.table) + from, job.features * sizeof(float));
        } else {
            const uint16_t* x = static_cast<const uint16_t*>(job.table) + from;
            for (long at = 0; at < job.features; ++at) y[at] = widen(x[at]);
        }
    }
}

static void step_tokens(const StepTokens& job, Part part) {
    const Share rows(job.rows, part);
    for (long at = rows.first * job.width; at < rows.last * job.width; ++at)
        job.tokens[at] = job.use_last[at] != 0 ? job.kept[job.slots[at / job.width]] : job.token_ids[at];
}

static void keep_tokens(const KeepTokens& job, Part part) {
    const Share rows(job.rows, part);
    for (long row = rows.first; row < rows.last; ++row)
        if (job.sampled[row] != 0) job.kept[job.slots[row]] = job.tokens[row];
}

static void add(const Add& job, Part part) {
    const Share work(job.count, part);
    for (long at = work.first; at < work.last; ++at) job.y[at] = job.a[at] + job.b[at];
}

// The largest magnitude of each row; NaN if there is a NaN in it.
static void peak(const Peak& job, Part part) {
    const Share rows(job.rows, part);
    for (long row = rows.first; row < rows.last; ++row) {
        const float* x = job.x + row * job.features;
        F32 largest{}, poison{};
        long at = 0;
        for (; at + kLanes <= job.features; at += kLanes) {
            const F32 value = load(x + at);
            largest = larger(largest, larger(value, -value));
            poison += value * 0.0f;  // NaN once there is a NaN or an infinity
        }
        float top = 0, spoiled = sum(poison);
        for (int lane = 0; lane < kLanes; ++lane) top = largest[lane] > top ? largest[lane] : top;
        for (; at < job.features; ++at) {
            const float size = __builtin_fabsf(x[at]);
            top = size > top ? size : top;
            spoiled += x[at] * 0.0f;
        }
        job.y[row] = top + spoiled;
    }
}

static void both_finite(const BothFinite& job, Part part) {
    const Share work(job.count, part);
    for (long at = work.first; at < work.last; ++at)
        job.y[at] = job.a[at] <= kLargestFinite && job.b[at] <= kLargestFinite;
}
