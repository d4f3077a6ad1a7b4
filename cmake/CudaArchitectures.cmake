# For which architectures the CUDA kernels are compiled where nobody says: those that this nvcc knows, and PTX of compute
# 9.0 and of the newest, which the driver compiles for what lies between (Jetson Thor, 11.0) and for what comes.
function(score_cuda_architectures compiler_version result)
  if(compiler_version VERSION_LESS 12.8)
    set(${result} 80-real 86-real 89-real 90 PARENT_SCOPE)
  else()
    set(${result} 80-real 86-real 89-real 90 100-real 120 PARENT_SCOPE)
  endif()
endfunction()
