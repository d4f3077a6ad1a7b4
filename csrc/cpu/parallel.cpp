#include "parallel.h"

#include <torch/csrc/stable/ops.h>

namespace score::cpu {

void parallel_ranges(int64_t end, int64_t grain, RangeFunction function, void* context) {
  if (end <= 0) return;
  torch::stable::parallel_for(
      0, end, grain, [&](int64_t range_begin, int64_t range_end) { function(range_begin, range_end, context); });
}

int64_t num_threads() { return torch::stable::get_num_threads(); }

}  // namespace score::cpu
