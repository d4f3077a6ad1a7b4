// What main.cpp asks of the device that it drives. tests/ptx has another header of this name, for the same main.cpp.
#pragma once

#include <cstdlib>

#include "cuda_runtime_api.h"

namespace emulation {

inline void start(int, char**) {}

// Memory that kernels may touch. Of exactly the size asked for, so that AddressSanitizer sees a step outside.
inline void* allocate(size_t bytes) { return std::malloc(bytes); }
inline void release(void* memory) { std::free(memory); }
// Whether what lies there means something, or must be written before it is read. Here nobody keeps account.
inline void set_defined(void*, size_t, bool) {}

}  // namespace emulation
