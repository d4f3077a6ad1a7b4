// Stands in for libtorch_cuda.so while linking on a machine whose torch has no CUDA. Never installed, never loaded.
extern "C" {
void aoti_torch_get_current_cuda_stream() {}
void torch_c10_cuda_check_msg() {}
void torch_c10_cuda_free_error_msg() {}
}
