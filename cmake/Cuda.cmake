# The CUDA library, where wanted. SCORE_CUDA=ON demands nvcc, but no GPU and no CUDA torch; AUTO builds where this torch
# has CUDA and nvcc is found, and says what it chose.
set(SCORE_CUDA_VERSION "")
set(SCORE_CUDA_ARCHITECTURES "")
if(NOT SCORE_CUDA MATCHES "^(ON|OFF|AUTO)$")
  message(FATAL_ERROR "SCORE_CUDA must be ON, OFF or AUTO, got '${SCORE_CUDA}'")
endif()
if(SCORE_CUDA STREQUAL "OFF" OR SCORE_SANITIZE)
  message(STATUS "CUDA kernels: not built (SCORE_CUDA=${SCORE_CUDA})")
  return()
endif()

if(SCORE_CUDA STREQUAL "AUTO" AND NOT EXISTS "${TORCH_LIB_DIR}/libtorch_cuda.so")
  message(STATUS "CUDA kernels: not built (SCORE_CUDA=AUTO and this torch has no CUDA)")
  return()
endif()

include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(SCORE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SCORE_CUDA=ON needs nvcc, and none was found. Put the CUDA toolkit's bin folder on PATH or set "
                        "CUDACXX to its nvcc, or build with SCORE_CUDA=OFF.")
  endif()
  message(STATUS "CUDA kernels: not built (SCORE_CUDA=AUTO and no nvcc found)")
  return()
endif()

set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
if(DEFINED CMAKE_CUDA_ARCHITECTURES)
  enable_language(CUDA)
else()
  set(CMAKE_CUDA_ARCHITECTURES 90)  # while CMake tries the compiler; it would cache a default of its own
  enable_language(CUDA)
  include(cmake/CudaArchitectures.cmake)
  score_cuda_architectures("${CMAKE_CUDA_COMPILER_VERSION}" CMAKE_CUDA_ARCHITECTURES)
endif()
find_package(CUDAToolkit REQUIRED)
set(SCORE_CUDA_VERSION "${CMAKE_CUDA_COMPILER_VERSION}")
string(REPLACE ";" " " SCORE_CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
message(STATUS "CUDA kernels: nvcc ${SCORE_CUDA_VERSION} for ${SCORE_CUDA_ARCHITECTURES}")

# The bindings call three functions of libtorch_cuda.so. A CPU torch has no such library: a stub of the same name lets
# the linker name it; beside a CUDA torch the real one is loaded.
set(SCORE_TORCH_CUDA "${TORCH_LIB_DIR}/libtorch_cuda.so")
if(NOT EXISTS "${SCORE_TORCH_CUDA}")
  add_library(torch_cuda_stub SHARED cmake/torch_cuda_stub.cpp)
  set_target_properties(torch_cuda_stub PROPERTIES
    OUTPUT_NAME torch_cuda LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/stub" CXX_VISIBILITY_PRESET default)
  set(SCORE_TORCH_CUDA torch_cuda_stub)
endif()

file(GLOB SCORE_CUDA_SOURCES CONFIGURE_DEPENDS csrc/cuda/*.cu)
add_library(_ops_cuda MODULE csrc/ops_cuda.cpp csrc/arguments.cpp ${SCORE_CUDA_SOURCES})
target_include_directories(_ops_cuda PRIVATE csrc/cuda)
target_compile_definitions(_ops_cuda PRIVATE USE_CUDA)
target_link_options(_ops_cuda PRIVATE -Wl,--no-as-needed)
target_link_libraries(_ops_cuda PRIVATE score_flags CUDA::cudart_static "${SCORE_TORCH_CUDA}" "${TORCH_LIB_DIR}/libtorch_cpu.so")
set_target_properties(_ops_cuda PROPERTIES PREFIX "" SKIP_BUILD_RPATH ON)
install(TARGETS _ops_cuda LIBRARY DESTINATION score_ext)
