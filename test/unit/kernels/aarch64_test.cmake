# Builds the kernels and their tests for AArch64 and runs them under qemu. Prints why and skips where one of the two is missing.
foreach(variable CXX QEMU)
  if(NOT ${variable})
    message("skipped: no AArch64 ${variable} here (Debian: g++-aarch64-linux-gnu, qemu-user)")
    return()
  endif()
endforeach()

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "failed: ${ARGN}")
  endif()
endfunction()

set(flags -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64
          -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} -DISTHMUS_WERROR=ON)
run(${CMAKE_COMMAND} -S ${SOURCE_DIR}/aarch64 -B ${WORK_DIR} ${flags})
run(${CMAKE_COMMAND} --build ${WORK_DIR})
run(${QEMU} -cpu max ${WORK_DIR}/test_kernels)
# The one below it, on a processor without the dot product.
run(${QEMU} -cpu cortex-a53 ${WORK_DIR}/test_kernels "ISTHMUS_CPU_ISA picks*")
message("passed: AArch64 with and without the dot product")
