// What the stand-ins for CUB's collectives share: handing values around a block, and checks of CUB's rules.
#pragma once

#include <cstring>

#include "cuda_runtime_api.h"

namespace emulation {

// One value per thread; lives in the kernel's shared memory, as CUB's TempStorage does.
template <typename T, int kThreads>
struct Slots {
  T values[kThreads];
  T total;
};

// CUB wants a barrier before storage is used again; aborts where the kernel has none.
void check_storage_is_free(const void* storage);
void mark_storage_used(const void* storage);

// What CUB leaves undefined.
template <typename T>
T undefined() {
  T value;
  memset(static_cast<void*>(&value), 0xA5, sizeof(value));
  return value;
}

// All threads call it; `combine`, called by one of them, sees everybody's values.
template <typename T, int kThreads, typename Combine>
void collect(Slots<T, kThreads>& slots, const T& value, Combine combine, std::source_location where) {
  if (blockDim.x * blockDim.y * blockDim.z != kThreads) fail("a collective of %d threads in another block", kThreads);
  check_storage_is_free(&slots);
  slots.values[thread_number()] = value;
  wait_for_block(false, where);
  if (thread_number() == 0) {
    combine();
    mark_storage_used(&slots);
  }
  wait_for_block(false, where);
}

}  // namespace emulation
