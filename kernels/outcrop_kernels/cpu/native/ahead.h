// Weights that are needed next, asked for while tiles compute: the processor's own prefetching stops at every page, and
// with few rows it is the waiting for weights that takes the time.

// One of `tiles` tiles with the same panels asks for its share of the panels that follow, a little at each step: all at
// once by the first tile, and memory would have nothing to do during the others.
class Ahead {
  public:
    // next: the panels that follow. step_bytes: how much of a panel a tile reads in a step.
    Ahead(const void* next, long panel_bytes, long step_bytes, long tile, long tiles)
        : at_(static_cast<const char*>(next) + panel_bytes * tile / tiles), panel_bytes_(panel_bytes),
          pace_(step_bytes / tiles) {}

    // For tiles with all they need in the cache.
    explicit Ahead(const void* anything) : at_(static_cast<const char*>(anything)), panel_bytes_(0), pace_(0) {}

    template <int kPanels>
    inline void step() {
#pragma GCC unroll 16
        for (int panel = 0; panel < kPanels; ++panel) __builtin_prefetch(at_ + panel * panel_bytes_, 0, 2);
        at_ += pace_;
    }

  private:
    const char* at_;
    long panel_bytes_, pace_;
};
