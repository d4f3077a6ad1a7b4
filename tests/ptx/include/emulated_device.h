// What main.cpp of tests/cuda_emulation asks of the device that it drives: here, of the interpreter.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace emulation {

// How many multiprocessors the device claims to have, each running one block at a time, and in which order threads and
// blocks get their turns where that is not left to chance; how much shared memory a block may ask for.
struct Device {
  int multiprocessors = 1;
  bool backwards = false;
  int shared_bytes = 99 << 10;  // sm_86, 89 and 120 have the least of all from Ampere on
};
extern Device device;

// The one stream that launches may go to.
inline const cudaStream_t kStream = reinterpret_cast<cudaStream_t>(&device);

// Reads the PTX files that are named, and the interpreter's settings from the environment.
void start(int argc, char** argv);

// Memory that kernels may touch; nothing in it is defined.
void* allocate(size_t bytes);
void release(void* memory);
void set_defined(void* begin, size_t bytes, bool defined);

[[noreturn]] void fail(const char* format, ...);

}  // namespace emulation
