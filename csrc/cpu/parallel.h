// A parallel loop over torch's thread pool, without a torch header: parallel.cpp, which has one, implements it.
#pragma once

#include <cstdint>

namespace score::cpu {

using RangeFunction = void (*)(int64_t begin, int64_t end, void* context);
void parallel_ranges(int64_t end, int64_t grain, RangeFunction function, void* context);
int64_t num_threads();

// Calls body(begin, end) on ranges that make up 0 .. end, none shorter than grain but the last. Inside another
// parallel loop it runs in the calling thread, so nesting is safe: the outermost loop with enough work wins.
template <typename Body>
void parallel_for(int64_t end, int64_t grain, const Body& body) {
  parallel_ranges(
      end, grain,
      [](int64_t range_begin, int64_t range_end, void* context) {
        (*static_cast<const Body*>(context))(range_begin, range_end);
      },
      const_cast<Body*>(&body));
}

}  // namespace score::cpu
