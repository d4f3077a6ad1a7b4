// A parallel loop over torch's thread pool, without a torch header: parallel.cpp, which has one, implements it.
#pragma once

#include <algorithm>
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

// A range cut into one chunk for each thread that it is worth, for loops whose chunks must know what the ones before
// them counted: a pass that counts, a sum over the chunks, a pass that writes.
class Chunks {
 public:
  Chunks(int64_t length, int64_t grain)
      : length_(length), count_(std::clamp<int64_t>(length / grain, 1, std::max<int64_t>(num_threads(), 1))) {}

  int64_t count() const { return count_; }

  // Calls body(chunk, begin, end) for every chunk.
  template <typename Body>
  void run(const Body& body) const {
    parallel_for(count_, 1, [&](int64_t first, int64_t last) {
      for (int64_t chunk = first; chunk < last; ++chunk) {
        body(chunk, length_ * chunk / count_, length_ * (chunk + 1) / count_);
      }
    });
  }

 private:
  int64_t length_, count_;
};

}  // namespace score::cpu
