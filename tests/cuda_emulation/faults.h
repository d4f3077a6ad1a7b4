#pragma once

#include <cuda_runtime_api.h>

// Runs the kernel with fault `number`; out [size].
cudaError_t fault(int number, int* out, int size, cudaStream_t stream);
