// Causal attention over paged keys and values for many queries, as of a prompt: products of matrices. Keys and
// values of a chunk are laid out as the panels of a packed weight (see kernels.h), which pays for itself since all
// queries of a tile are multiplied with them; the softmax is brought up to date chunk by chunk.

constexpr long kTileQueries = 96;

// What one tile works on: it stays in the second-level cache.
struct ManyScratch {
    std::vector<float> query, keys, values, scores, out;
    float largest[kTileQueries], total[kTileQueries];
    long visible[kTileQueries];

    explicit ManyScratch(long dim)
        : query(kTileQueries * dim), keys(kChunkKeys * dim), values(kChunkKeys * dim),
          scores(kTileQueries * kChunkKeys), out(kTileQueries * dim) {}
};

// Positions [start, start + kChunkKeys) of a row. Those from `count` on are no longer anyone's: zeros, since what
// lies there may not be a number.
template <class Element>
static void lay_out(const Attention& job, long row, long kv_head, long start, long count, ManyScratch& scratch) {
    const int32_t* table = job.block_tables + row * job.table_width;
    for (long key = 0; key < kChunkKeys; ++key) {
        float* to_keys = scratch.keys.data() + key / kPanel * kPanel * job.dim + key % kPanel;
        float* to_values = scratch.values.data() + key * kPanel;
        if (key >= count) {
            for (long d = 0; d < job.dim; ++d) to_keys[d * kPanel] = 0;
            for (long d = 0; d < job.dim; ++d) to_values[d / kPanel * kPanel * kChunkKeys + d % kPanel] = 0;
            continue;
        }
        const long position = start + key;
        const long size = job.pages.block_size;
        const long at = job.pages.at(table[position / size] * size + position % size, kv_head);
        const Element* from_keys = static_cast<const Element*>(job.keys) + at;
        const Element* from_values = static_cast<const Element*>(job.values) + at;
        for (long d = 0; d < job.dim; ++d) to_keys[d * kPanel] = widen(from_keys[d]);
        for (long panel = 0; panel < job.dim; panel += kPanel)
            for (long d = 0; d < kPanel; d += kLanes)
                store(to_values + panel * kChunkKeys + d, load(from_values + panel + d));
    }
}

// The products of `rows` rows of x [rows, depth] with `features` features in panels; added to y where kAdd.
template <bool kAdd>
static void product(const float* x, const float* panels, float* y, long rows, long depth, long features) {
    const long tiles = (rows + kMostRows - 1) / kMostRows;
    for (long panel = 0; panel < features / kPanel; ++panel)
        for (long tile = 0; tile < tiles; ++tile) {
            const long first = rows * tile / tiles, last = rows * (tile + 1) / tiles;
            tile_of<Float32Panels, 1, kAdd>(last - first, x + first * depth, panels + panel * kPanel * depth,
                                            y + first * features + panel * kPanel, depth, features,
                                            Ahead(panels));
        }
}

template <class Element>
static void attend_tile(const Attention& job, long row, long kv_head, long first, long count, ManyScratch& scratch) {
    const long group = job.heads / job.kv_heads, dim = job.dim;
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(dim));
    const auto place = [&](long query) {  // of a query's values: token first, then head of the group
        const long token = (first + query) / group, head = kv_head * group + (first + query) % group;
        return ((row * job.width + token) * job.heads + head) * dim;
    };
    float *query = scratch.query.data(), *scores = scratch.scores.data(), *out = scratch.out.data();
    long span = 0;
    for (long index = 0; index < count; ++index) {
        const float* from = job.query + place(index);
        for (long d = 0; d < dim; d += kLanes) store(query + index * dim + d, load(from + d) * scale);
        scratch.visible[index] = job.positions[row * job.width + (first + index) / group] + 1;
        span = scratch.visible[index] > span ? scratch.visible[index] : span;
        scratch.largest[index] = kLeastScore;
        scratch.total[index] = 0;
    }
    std::fill(out, out + count * dim, 0.0f);
    for (long start = 0; start < span; start += kChunkKeys) {
        lay_out<Element>(job, row, kv_head, start, span - start, scratch);
        product<false>(query, scratch.keys.data(), scores, count, dim, kChunkKeys);
        for (long index = 0; index < count; ++index) {
            const long left = scratch.visible[index] - start, seen = left < kChunkKeys ? left : kChunkKeys;
            update_softmax(scores + index * kChunkKeys, seen, out + index * dim, dim, scratch.largest[index],
                           scratch.total[index]);
        }
        product<true>(scores, scratch.values.data(), out, count, kChunkKeys, dim);
    }
    for (long index = 0; index < count; ++index) {
        float* to = job.out + place(index);
        for (long d = 0; d < dim; d += kLanes) store(to + d, load(out + index * dim + d) / scratch.total[index]);
    }
}

template <class Element>
static void attend_many(const Attention& job, Part part) {
    const long queries = job.width * (job.heads / job.kv_heads), tiles = (queries + kTileQueries - 1) / kTileQueries;
    ManyScratch scratch(job.dim);
    const Share tasks(job.rows * job.kv_heads * tiles, part);
    for (long task = tasks.first; task < tasks.last; ++task) {
        const long first = task % tiles * kTileQueries, left = queries - first;
        attend_tile<Element>(job, task / tiles / job.kv_heads, task / tiles % job.kv_heads, first,
                             left < kTileQueries ? left : kTileQueries, scratch);
    }
}
