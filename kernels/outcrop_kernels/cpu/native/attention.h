// Causal attention over paged keys and values, divided among the threads.
#include "attention_few.h"
#include "attention_many.h"

// Calls body(row, kv head, first query, count) for each tile of queries that falls to a part.
template <class Body>
static void for_tiles(const Attention& job, long tile_queries, Part part, const Body& body) {
    const long queries = job.width * (job.heads / job.kv_heads);
    const long tiles = (queries + tile_queries - 1) / tile_queries;
    const Share tasks(job.rows * job.kv_heads * tiles, part);
    for (long task = tasks.first; task < tasks.last; ++task) {
        const long first = task % tiles * tile_queries, left = queries - first;
        body(task / tiles / job.kv_heads, task / tiles % job.kv_heads, first,
             left < tile_queries ? left : tile_queries);
    }
}

template <class Element>
static void attend_all(const Attention& job, Part part) {
    // A tile of few queries would spend its time on laying out keys.
    constexpr long kWorthLayingOut = 12;
    if (job.width * (job.heads / job.kv_heads) >= kWorthLayingOut && job.dim % kPanel == 0) {
        ManyScratch scratch(job.dim);
        for_tiles(job, kTileQueries, part, [&](long row, long kv_head, long first, long count) {
            attend_many<Element>(job, row, kv_head, first, count, scratch);
        });
        return;
    }
    static thread_local std::vector<float> scratch;
    scratch.resize(kQueries * job.table_width * job.pages.block_size);
    for_tiles(job, kQueries, part, [&](long row, long kv_head, long first, long count) {
        const long index[kQueries] = {first, first + 1, first + 2, first + 3};
        switch (count) {
            case 1: return attend<1, Element>(job, row, kv_head, index, scratch.data());
            case 2: return attend<2, Element>(job, row, kv_head, index, scratch.data());
            case 3: return attend<3, Element>(job, row, kv_head, index, scratch.data());
            default: return attend<4, Element>(job, row, kv_head, index, scratch.data());
        }
    });
}

static void attention(const Attention& job, Part part) {
    if (job.pages.format == Format::float32)
        attend_all<float>(job, part);
    else
        attend_all<uint16_t>(job, part);
}
