// Stands in for libcudart: the functions that nvcc's host code and csrc/cuda call. Launches go to the interpreter.
#include <cuda_runtime_api.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "emulated_device.h"
#include "interpreter/machine.h"
#include "settings.h"

namespace emulation {

Device device;

void start(int argc, char** argv) {
  read_settings();
  for (int i = 1; i < argc; ++i) load_file(argv[i]);
}

void* allocate(size_t bytes) {
  void* memory = std::malloc(bytes ? bytes : 1);
  ptx::add_memory(memory, bytes);
  return memory;
}

void release(void* memory) {
  ptx::remove_memory(memory);
  std::free(memory);
}

void set_defined(void* begin, size_t bytes, bool defined) { ptx::set_defined(begin, bytes, defined); }

void fail(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  ptx::fail("%s", text);
}

}  // namespace emulation

namespace {

constexpr int kShared = 48 << 10;  // of a block, unless it asked for more

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
};
Configuration pushed;
cudaError_t last_error = cudaSuccess;
std::map<std::string, int> most_dynamic;  // of kernels that asked for more

std::map<const void*, std::string>& kernel_names() {  // by nvcc's function on the host
  static std::map<const void*, std::string> names;
  return names;
}

const std::string& name_of(const void* function) {
  const auto found = kernel_names().find(function);
  if (found == kernel_names().end()) ptx::fail("a launch of what is no kernel");
  return found->second;
}

cudaError_t report(cudaError_t error) { return error == cudaSuccess ? error : last_error = error; }

bool has_shared_memory(const std::string& kernel, size_t dynamic) {
  const auto asked = most_dynamic.find(kernel);
  const int fixed = ptx::find_entry(kernel).shared_bytes;
  return dynamic <= static_cast<size_t>(asked != most_dynamic.end() ? asked->second : kShared - fixed);
}

cudaError_t launch(
    const void* function, dim3 grid, dim3 block, void** arguments, size_t shared_bytes, cudaStream_t stream,
    bool cooperative) {
  if (stream != emulation::kStream) ptx::fail("a launch on another stream than the caller's");
  const std::string& name = name_of(function);
  if (!has_shared_memory(name, shared_bytes)) return report(cudaErrorInvalidValue);
  const ptx::Dim blocks{grid.x, grid.y, grid.z};
  if (cooperative && blocks.count() > static_cast<uint64_t>(emulation::device.multiprocessors)) {
    return report(cudaErrorCooperativeLaunchTooLarge);
  }
  ptx::options.backwards = emulation::device.backwards;
  const bool fits = ptx::launch(name, blocks, {block.x, block.y, block.z}, shared_bytes, cooperative, arguments);
  return report(fits ? cudaSuccess : cudaErrorInvalidConfiguration);
}

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterFunction(
    void**, const char* function, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
  kernel_names()[function] = name;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, CUstream_st* stream) {
  pushed = {grid, block, shared_bytes, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes, void* stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared_bytes = pushed.shared_bytes;
  std::memcpy(stream, &pushed.stream, sizeof(pushed.stream));
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(
    cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared_bytes, cudaStream_t stream) {
  return launch(reinterpret_cast<const void*>(kernel), grid, block, arguments, shared_bytes, stream, false);
}
cudaError_t cudaLaunchKernel(
    const void* function, dim3 grid, dim3 block, void** arguments, size_t shared_bytes, cudaStream_t stream) {
  return launch(function, grid, block, arguments, shared_bytes, stream, false);
}
cudaError_t cudaLaunchCooperativeKernel(
    const void* function, dim3 grid, dim3 block, void** arguments, size_t shared_bytes, cudaStream_t stream) {
  return launch(function, grid, block, arguments, shared_bytes, stream, true);
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaGetDevice(int* number) {
  *number = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = emulation::device.multiprocessors;
      return cudaSuccess;
    case cudaDevAttrCooperativeLaunch:
      *value = 1;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = emulation::device.shared_bytes;
      return cudaSuccess;
    default:
      ptx::fail("the device's attribute %d, which the interpreter does not know", static_cast<int>(attribute));
  }
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* blocks, const void* function, int threads, size_t shared_bytes, unsigned) {
  const std::string& name = name_of(function);
  *blocks = threads <= ptx::find_entry(name).max_threads && has_shared_memory(name, shared_bytes);
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(
    int* blocks, const void* function, int threads, size_t shared_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared_bytes, 0);
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  const std::string& name = name_of(function);
  if (value + ptx::find_entry(name).shared_bytes > emulation::device.shared_bytes) return report(cudaErrorInvalidValue);
  most_dynamic[name] = value;
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* begin, int value, size_t bytes, cudaStream_t stream) {
  if (stream != emulation::kStream) ptx::fail("a memset on another stream than the caller's");
  ptx::set_defined(begin, bytes, true);
  std::memset(begin, value, bytes);
  return cudaSuccess;
}

}  // extern "C"
