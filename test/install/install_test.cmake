# Installs the edge part of BUILD_DIR below WORK_DIR, moves it, builds the consumer against it with CMake and with
# pkg-config, and runs both.
#
#   cmake -DBUILD_DIR=... -DCONSUMER_DIR=... -DWORK_DIR=... [-DMODEL=...] -P install_test.cmake

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY OUTPUT_VARIABLE output)
  set(output "${output}" PARENT_SCOPE)
endfunction()

function(check_program program)
  run(${program})
  if(NOT output STREQUAL "NotFound\n")
    message(FATAL_ERROR "${program} printed '${output}', not NotFound")
  endif()
  if(MODEL)
    run(${program} ${MODEL})
    if(NOT output MATCHES "^generated [1-8] tokens\n$")
      message(FATAL_ERROR "${program} printed '${output}', not how many tokens it generated")
    endif()
  endif()
  run(ldd ${program})
  if(output MATCHES "torch|c10|cuda|not found")
    message(FATAL_ERROR "${program} must link neither libtorch nor CUDA, but does:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK_DIR})
run(${CMAKE_COMMAND} --install ${BUILD_DIR} --component edge --prefix ${WORK_DIR}/first)
file(RENAME ${WORK_DIR}/first ${WORK_DIR}/prefix) # an installed tree must not remember where it was

run(${CMAKE_COMMAND} -S ${CONSUMER_DIR} -B ${WORK_DIR}/build -G Ninja -DCMAKE_BUILD_TYPE=Release
    -DCMAKE_PREFIX_PATH=${WORK_DIR}/prefix)
run(${CMAKE_COMMAND} --build ${WORK_DIR}/build)
check_program(${WORK_DIR}/build/consumer)

file(GLOB_RECURSE pc ${WORK_DIR}/prefix/isthmus.pc)
cmake_path(GET pc PARENT_PATH pc_dir)
run(${CMAKE_COMMAND} -E env PKG_CONFIG_PATH=${pc_dir} pkg-config --cflags --libs isthmus)
separate_arguments(flags UNIX_COMMAND "${output}")
run(c++ ${CONSUMER_DIR}/main.cpp -o ${WORK_DIR}/consumer ${flags})
check_program(${WORK_DIR}/consumer)
