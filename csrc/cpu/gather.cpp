// gather: rows of a tensor by index.
#include <algorithm>

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace score::cpu {
namespace {

// Copies rows in registers of full width. memcpy would use the processor's string instructions for rows of a few
// kilobytes, which cost more to start than they save.
SCORE_CLONES void copy_rows(
    const char* from, int64_t row_bytes, const int64_t* index, int64_t begin, int64_t end, char* to) {
  constexpr int64_t kLine = 64;
  for (int64_t i = begin; i < end; ++i) {
    const char* row = from + index[i] * row_bytes;
    char* target = to + i * row_bytes;
    int64_t at = 0;
    for (; at + kLine <= row_bytes; at += kLine) {
#pragma omp simd
      for (int64_t byte = 0; byte < kLine; ++byte) target[at + byte] = row[at + byte];
    }
    for (; at < row_bytes; ++at) target[at] = row[at];
  }
}

}  // namespace

void gather(const void* tokens, int64_t row_bytes, const int64_t* index, int64_t num_rows, void* out) {
  if (row_bytes == 0) return;  // the pointers may be null, which memcpy must not get
  const char* from = static_cast<const char*>(tokens);
  char* to = static_cast<char*>(out);
  const int64_t grain = std::max<int64_t>(1, (int64_t{64} << 10) / std::max<int64_t>(row_bytes, 1));
  parallel_for(num_rows, grain, [&](int64_t begin, int64_t end) { copy_rows(from, row_bytes, index, begin, end, to); });
}

}  // namespace score::cpu
