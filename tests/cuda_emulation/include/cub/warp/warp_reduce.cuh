// Stand-in for cub::WarpReduce.
#pragma once

#include "cub/block/emulated_collective.h"

namespace cub {

template <typename T>
class WarpReduce {
 public:
  struct TempStorage {};

  explicit WarpReduce(TempStorage&) {}

  T Sum(T value, std::source_location where = std::source_location::current()) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(value));
    const uint64_t* all = emulation::exchange(0xFFFFFFFFu, bits, "WarpReduce", where);
    T sum{};
    for (int lane = 0; lane < 32; ++lane) {
      T one;
      memcpy(&one, &all[lane], sizeof(one));
      sum = lane == 0 ? one : sum + one;
    }
    return emulation::thread_number() % 32 == 0 ? sum : emulation::undefined<T>();
  }
};

}  // namespace cub
