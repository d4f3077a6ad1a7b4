// gather: rows of a tensor by index.
#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "parallel.h"

namespace score::cpu {

void gather(const void* tokens, int64_t row_bytes, const int64_t* index, int64_t num_rows, void* out) {
  if (row_bytes == 0) return;  // the pointers may be null, which memcpy must not get
  const char* from = static_cast<const char*>(tokens);
  char* to = static_cast<char*>(out);
  const int64_t grain = std::max<int64_t>(1, (int64_t{64} << 10) / std::max<int64_t>(row_bytes, 1));
  parallel_for(num_rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::memcpy(to + i * row_bytes, from + index[i] * row_bytes, row_bytes);
  });
}

}  // namespace score::cpu
