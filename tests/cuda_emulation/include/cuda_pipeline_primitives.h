// Stand-in: a copy lands when it is waited for, so that reading too early reads what was there before.
#pragma once

#include "cuda_runtime_api.h"

inline void __pipeline_memcpy_async(void* to_shared, const void* from_global, size_t bytes) {
  const auto misaligned = [bytes](const void* p) { return reinterpret_cast<uintptr_t>(p) % bytes != 0; };
  if ((bytes != 4 && bytes != 8 && bytes != 16) || misaligned(to_shared) || misaligned(from_global)) {
    emulation::fail("__pipeline_memcpy_async of %zu bytes, or not aligned to them", bytes);
  }
  emulation::copy_later(to_shared, from_global, bytes);
}
inline void __pipeline_commit() { emulation::commit_copies(); }
inline void __pipeline_wait_prior(int groups_left) { emulation::wait_for_copies(groups_left); }
