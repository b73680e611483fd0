// Weights that are needed next, asked for while tiles compute: the processor's own prefetching stops at every page, and
// with few rows it is the waiting for weights that takes the time.

// What one of `tiles` tiles with the same panels asks for. A single one asks for what it comes to itself a little
// later, and after its turn for the panels that follow. Of several, each asks for its share of the panels that follow:
// all at once by the first, and memory would have nothing to do during the others.
class Ahead {
  public:
    // panels: the first of the tile's. across: how many it has. step_bytes: how much of each it reads in a step.
    Ahead(const void* panels, long across, long panel_bytes, long step_bytes, long tile, long tiles)
        : at_(static_cast<const char*>(panels)), panel_bytes_(panel_bytes), pace_(step_bytes / tiles), tiles_(tiles) {
        if (tiles > 1) {
            at_ += across * panel_bytes + panel_bytes * tile / tiles;
            return;
        }
        const long distance = panel_bytes < kDistance ? panel_bytes : kDistance;
        at_ += distance;
        turn_ = panel_bytes - distance;
        jump_ = (across - 1) * panel_bytes;
    }

    // For tiles with all they need in the cache.
    explicit Ahead(const void* anything) : at_(static_cast<const char*>(anything)) {}

    // With each step.
    template <int kPanels>
    inline void step() {
#pragma GCC unroll 16
        for (int panel = 0; panel < kPanels; ++panel) __builtin_prefetch(at_ + panel * panel_bytes_, 0, 2);
        at_ += pace_;
    }

    // Past what lies between the steps of a panel.
    void skip(long bytes) { at_ += bytes / tiles_; }

    // How many bytes of each panel are read before the turn.
    long before_turn() const { return turn_; }

    void turn() { at_ += jump_; }

  private:
    static constexpr long kDistance = 1024;

    const char* at_;
    long panel_bytes_ = 0, pace_ = 0, tiles_ = 1, turn_ = 0, jump_ = 0;
};
