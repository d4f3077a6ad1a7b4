// Stand-in for cub::BlockReduce.
#pragma once

#include "emulated_collective.h"

namespace cub {

template <typename T, int kThreads>
class BlockReduce {
 public:
  using TempStorage = emulation::Slots<T, kThreads>;

  explicit BlockReduce(TempStorage& storage) : storage_(storage) {}

  template <typename Op>
  T Reduce(const T& value, Op op, std::source_location where = std::source_location::current()) {
    emulation::collect(
        storage_, value,
        [&] {
          storage_.total = storage_.values[0];
          for (int t = 1; t < kThreads; ++t) storage_.total = op(storage_.total, storage_.values[t]);
        },
        where);
    return emulation::thread_number() == 0 ? storage_.total : emulation::undefined<T>();
  }

  T Sum(const T& value, std::source_location where = std::source_location::current()) {
    return Reduce(value, [](const T& a, const T& b) { return a + b; }, where);
  }

 private:
  TempStorage& storage_;
};

}  // namespace cub
