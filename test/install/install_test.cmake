# Installs the edge part of BUILD_DIR below WORK_DIR, moves it, builds the README's program against it with CMake and with
# pkg-config, and runs both.
#
#   cmake -DSOURCE_DIR=... -DBUILD_DIR=... -DWORK_DIR=... [-DMODEL=...] -P install_test.cmake
set(consumer ${SOURCE_DIR}/test/install/consumer)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output)
  if(NOT result EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${command}\nfailed (${result}):\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

function(check_program program)
  execute_process(COMMAND ${program} missing.gguf isthmus://127.0.0.1:1 hello RESULT_VARIABLE code ERROR_VARIABLE message)
  if(NOT code EQUAL 1 OR NOT message MATCHES "missing.gguf")
    message(FATAL_ERROR "${program} ended with ${code} and '${message}' instead of naming the missing file")
  endif()
  if(MODEL)
    run(${SOURCE_DIR}/tools/with-server ${BUILD_DIR}/bin --model ${MODEL} --quiet --
        sh -c "exec \"$0\" \"$1\" \"$ISTHMUS_SERVER\" \"$2\"" ${program} ${MODEL} "What is the capital of France?")
    if(NOT output MATCHES "Paris.*\n[0-9]+ tokens\n$")
      message(FATAL_ERROR "${program} printed '${output}'")
    endif()
  endif()
  run(ldd ${program})
  if(output MATCHES "lib(torch|c10|cu)|not found")
    message(FATAL_ERROR "${program} must link neither libtorch nor CUDA, but does:\n${output}")
  endif()
endfunction()

file(READ ${SOURCE_DIR}/README.md readme)
file(READ ${consumer}/main.cpp program)
string(FIND "${readme}" "```cpp\n${program}```" position)
if(position EQUAL -1)
  message(FATAL_ERROR "the README's program is not ${consumer}/main.cpp")
endif()

file(REMOVE_RECURSE ${WORK_DIR})
run(${CMAKE_COMMAND} --install ${BUILD_DIR} --component edge --prefix ${WORK_DIR}/first)
file(RENAME ${WORK_DIR}/first ${WORK_DIR}/prefix) # an installed tree must not remember where it was

run(${CMAKE_COMMAND} -S ${consumer} -B ${WORK_DIR}/build -G Ninja -DCMAKE_BUILD_TYPE=Release
    -DCMAKE_PREFIX_PATH=${WORK_DIR}/prefix)
run(${CMAKE_COMMAND} --build ${WORK_DIR}/build)
check_program(${WORK_DIR}/build/consumer)

file(GLOB_RECURSE pc ${WORK_DIR}/prefix/isthmus.pc)
cmake_path(GET pc PARENT_PATH pc_dir)
run(${CMAKE_COMMAND} -E env PKG_CONFIG_PATH=${pc_dir} pkg-config --cflags --libs isthmus)
separate_arguments(flags UNIX_COMMAND "${output}")
run(c++ ${consumer}/main.cpp -o ${WORK_DIR}/consumer ${flags})
check_program(${WORK_DIR}/consumer)
