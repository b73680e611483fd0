// The next token of each row, without sorting the vocabulary: one pass over the logits keeps those that may still
// be among the largest kCandidates, and only these are sorted.

constexpr long kCandidates = 256;  // TOPK_CAP of outcrop_kernels.reference

struct Candidate {
    float logit;
    int32_t token;
    bool operator<(const Candidate& other) const {  // larger logits first, then smaller tokens
        return logit > other.logit || (logit == other.logit && token < other.token);
    }
};

class Largest {
  public:
    explicit Largest(long wanted) : wanted_(wanted) {}

    // Offers the logits of tokens [first, first + kLanes).
    void offer(F32 logits, int32_t first) {
        if (!any(logits > threshold_)) return;
        for (int lane = 0; lane < kLanes; ++lane)
            if (logits[lane] > threshold_) kept_[count_++] = {logits[lane], first + lane};
        if (count_ > kRoom - kLanes) drop();
    }

    void offer(float logit, int32_t token) {
        if (!(logit > threshold_)) return;
        kept_[count_++] = {logit, token};
        if (count_ == kRoom) drop();
    }

    // The largest, in order. Returns how many there are.
    long sorted(const Candidate*& candidates) {
        if (count_ > wanted_) drop();
        std::sort(kept_, kept_ + count_);
        candidates = kept_;
        return count_;
    }

  private:
    // Room for as many again, so that dropping costs little for each candidate that comes.
    static constexpr long kRoom = 2 * kCandidates + kLanes;

    void drop() {
        std::nth_element(kept_, kept_ + wanted_ - 1, kept_ + count_);
        count_ = wanted_;
        threshold_ = kept_[wanted_ - 1].logit;
    }

    const long wanted_;
    long count_ = 0;
    float threshold_ = -__builtin_inff();
    Candidate kept_[kRoom];
};

// The candidate that a draw in [0, 1) falls on; the steps are those of outcrop_kernels.reference.sample.
static int32_t drawn(const Candidate* candidates, long count, const float* sampling, float draw) {
    const float temperature = sampling[0] > 1e-4f ? sampling[0] : 1e-4f, top_p = sampling[2];
    const float least = sampling[3] > 1e-38f ? sampling[3] : 1e-38f;
    const long limit = sampling[1] > 0.5f && sampling[1] < static_cast<float>(count)
                           ? static_cast<long>(__builtin_ceilf(sampling[1]))
                           : count;
    float odds[kCandidates], total = 0;
    for (long rank = 0; rank < limit; ++rank) {
        odds[rank] = __builtin_expf((candidates[rank].logit - candidates[0].logit) / temperature);
        total += odds[rank];
    }
    long kept = 0;  // the nucleus is a prefix: odds fall with the rank
    float before = 0, mass = 0;
    for (; kept < limit && before < top_p && odds[kept] >= least; ++kept) {
        mass += odds[kept] / total;
        before = mass;
    }
    float reached = 0;
    for (long rank = 0; rank + 1 < kept; ++rank) {
        reached += odds[rank] / total;
        if (reached > draw * mass) return candidates[rank].token;
    }
    return candidates[kept > 0 ? kept - 1 : 0].token;
}

static int32_t largest(const float* logits, long vocab) {
    F32 best = splat(-__builtin_inff());
    I32 where{}, index{};
    for (int lane = 0; lane < kLanes; ++lane) index[lane] = lane;
    long at = 0;
    for (; at + kLanes <= vocab; at += kLanes, index += kLanes) {
        const F32 value = load(logits + at);
        const I32 better = value > best;
        best = blend(better, value, best);
        where = (where & ~better) | (index & better);
    }
    float top = best[0];
    int32_t token = where[0];
    for (int lane = 1; lane < kLanes; ++lane)
        if (best[lane] > top || (best[lane] == top && where[lane] < token)) {
            top = best[lane];
            token = where[lane];
        }
    for (; at < vocab; ++at)
        if (logits[at] > top) {
            top = logits[at];
            token = static_cast<int32_t>(at);
        }
    return token;
}

static void sample(const Sample& job, Part part) {
    const Share rows(job.rows, part);
    for (long row = rows.first; row < rows.last; ++row) {
        const float* logits = job.logits + row * job.vocab;
        const float* sampling = job.sampling + row * 4;
        if (!(sampling[0] > 0)) {
            job.tokens[row] = largest(logits, job.vocab);
            continue;
        }
        Largest found(job.vocab < kCandidates ? job.vocab : kCandidates);
        long at = 0;
        for (; at + kLanes <= job.vocab; at += kLanes) found.offer(load(logits + at), static_cast<int32_t>(at));
        for (; at < job.vocab; ++at) found.offer(logits[at], static_cast<int32_t>(at));
        const Candidate* candidates;
        const long count = found.sorted(candidates);
        job.tokens[row] = count == 0 ? 0 : drawn(candidates, count, sampling, job.draws[row]);
    }
}
