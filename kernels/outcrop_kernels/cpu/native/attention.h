// Causal attention over paged keys and values, divided among the threads.
#include "softmax.h"
#include "attention_few.h"
#include "attention_many.h"

template <class Element>
static void attend_all(const Attention& job, Part part) {
    if (job.stretches > 0)
        attend_few<Element>(job, part);
    else
        attend_many<Element>(job, part);
}

static void attention(const Attention& job, Part part) {
    if (job.pages.format == Format::float32)
        attend_all<float>(job, part);
    else
        attend_all<uint16_t>(job, part);
}
