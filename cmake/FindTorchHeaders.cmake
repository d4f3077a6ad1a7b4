# Finds the torch of the environment that the package is built for, without importing it and without find_package(Torch),
# which on a CUDA torch demands the whole toolkit. Under pip's build isolation the environment's site-packages are not on
# the path, but sys.prefix still names it; any torch from 2.10 up will do, its stable ABI is all that is used.
execute_process(
  COMMAND "${Python_EXECUTABLE}" "${CMAKE_SOURCE_DIR}/cmake/find_torch.py"
  OUTPUT_VARIABLE TORCH_FOUND ERROR_VARIABLE TORCH_ERROR RESULT_VARIABLE TORCH_RESULT
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
if(NOT TORCH_RESULT EQUAL 0)
  message(FATAL_ERROR "${TORCH_ERROR}")
endif()
list(GET TORCH_FOUND 0 TORCH_ROOT)
list(GET TORCH_FOUND 1 TORCH_VERSION)
set(TORCH_INCLUDE_DIR "${TORCH_ROOT}/include")
set(TORCH_LIB_DIR "${TORCH_ROOT}/lib")
message(STATUS "torch ${TORCH_VERSION}: ${TORCH_ROOT}")
