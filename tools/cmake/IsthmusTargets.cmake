# isthmus_add_library, isthmus_add_tool, isthmus_add_test: the only ways a target is made here.
#
# isthmus_add_library(codec SOURCES codec.cpp PUBLIC_DEPS isthmus::core PRIVATE_DEPS isthmus::kernels)
# makes the static library isthmus_codec with the alias isthmus::codec, and compiles every header of
# include/isthmus/codec alone. A dependency on a module of the same or a higher rung is refused.

# Rungs of the module ladder, lowest first (lib/README.md).
set(ISTHMUS_RUNG_core 0)
set(ISTHMUS_RUNG_kernels 1)
set(ISTHMUS_RUNG_wire 1)
set(ISTHMUS_RUNG_text 1)
set(ISTHMUS_RUNG_privacy 1)
set(ISTHMUS_RUNG_model 2)
set(ISTHMUS_RUNG_codec 2)
set(ISTHMUS_RUNG_transport 2)
set(ISTHMUS_RUNG_engine 3)
set(ISTHMUS_RUNG_scheduler 3)
set(ISTHMUS_RUNG_planner 3)
set(ISTHMUS_RUNG_artefact 3)
set(ISTHMUS_RUNG_torch_engine 4) # implements engine's interface
set(ISTHMUS_RUNG_server 4)
set(ISTHMUS_RUNG_edge 4)
set(ISTHMUS_RUNG_audit 4)
set(ISTHMUS_RUNG_train 5)

# Warnings, sanitizers and language level for one target; nothing is set globally.
function(isthmus_compile_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
  # No contraction to fused multiply-add: the order and the rounding of every sum are part of the contract.
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
                                           -Wno-sign-conversion -ffp-contract=off
                                           -Wno-missing-field-initializers) # designated initialisers
  if(ISTHMUS_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(ISTHMUS_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${ISTHMUS_SANITIZE} -fno-sanitize-recover=all
                                             -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${ISTHMUS_SANITIZE})
  endif()
  if(ISTHMUS_BUILD_FUZZERS) # a fuzzer follows the branches of what is instrumented, not of itself alone
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
    target_link_options(${target} PUBLIC -fsanitize=fuzzer-no-link)
  endif()
endfunction()

# Test code under sanitizers: GCC 12 takes three times as long to optimise Catch's and nlohmann's templates there as to compile them plainly.
function(isthmus_test_compile_options target)
  isthmus_compile_options(${target})
  if(ISTHMUS_SANITIZE)
    target_compile_options(${target} PRIVATE -O0 -g1)
  endif()
endfunction()

function(isthmus_check_ladder name)
  foreach(dep IN LISTS ARGN)
    string(REGEX REPLACE "^isthmus::" "" module "${dep}")
    if(DEFINED ISTHMUS_RUNG_${module} AND NOT ISTHMUS_RUNG_${module} LESS ISTHMUS_RUNG_${name})
      message(FATAL_ERROR "module ladder: ${name} (rung ${ISTHMUS_RUNG_${name}}) may not depend on "
                          "${module} (rung ${ISTHMUS_RUNG_${module}})")
    endif()
  endforeach()
endfunction()

function(isthmus_add_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;PUBLIC_DEPS;PRIVATE_DEPS")
  if(NOT DEFINED ISTHMUS_RUNG_${name})
    message(FATAL_ERROR "module ladder: '${name}' has no rung in IsthmusTargets.cmake")
  endif()
  isthmus_check_ladder(${name} ${arg_PUBLIC_DEPS} ${arg_PRIVATE_DEPS})
  set(target isthmus_${name})
  add_library(${target} STATIC ${arg_SOURCES})
  add_library(isthmus::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(${target}
    PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(${target} PUBLIC ${arg_PUBLIC_DEPS} PRIVATE ${arg_PRIVATE_DEPS})
  isthmus_compile_options(${target})
  set_property(GLOBAL APPEND PROPERTY ISTHMUS_LIBRARIES ${target})

  # One throw-away source per public header proves that it compiles alone.
  if(ISTHMUS_BUILD_TESTS)
    file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/isthmus/${name}/*.h)
    set(proofs)
    foreach(header IN LISTS headers)
      cmake_path(GET header STEM stem)
      set(proof ${CMAKE_CURRENT_BINARY_DIR}/header_${stem}.cpp)
      file(CONFIGURE OUTPUT ${proof} CONTENT "#include <isthmus/${name}/${stem}.h>\n")
      list(APPEND proofs ${proof})
    endforeach()
    if(proofs)
      add_library(${target}_headers OBJECT ${proofs})
      target_link_libraries(${target}_headers PRIVATE ${target})
      isthmus_compile_options(${target}_headers)
    endif()
  endif()
endfunction()

# isthmus_add_tool(isthmus-chat SOURCES main.cpp DEPS isthmus::edge)
function(isthmus_add_tool name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPS")
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_DEPS})
  isthmus_compile_options(${name})
  # An installed tool finds libtorch where the build found it.
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin
                                           INSTALL_RPATH_USE_LINK_PATH ON)
  install(TARGETS ${name} RUNTIME)
endfunction()

# isthmus_add_test(codec SOURCES frame_test.cpp DEPS isthmus::codec LABELS unit)
# makes one Catch2 binary, test_codec, and one CTest entry, codec, that runs it.
function(isthmus_add_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SOURCES;DEPS;LABELS;ARGS")
  set(target test_${name})
  add_executable(${target} ${arg_SOURCES})
  target_link_libraries(${target} PRIVATE ${arg_DEPS} isthmus_test_support)
  isthmus_test_compile_options(${target})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  add_test(NAME ${name} COMMAND ${target} ${arg_ARGS})
  # 4 is the exit code of a test binary that found nothing it could run here (test/support/catch.h).
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 4)
  if(ISTHMUS_SANITIZE MATCHES "thread")
    set_property(TEST ${name} APPEND PROPERTY
                 ENVIRONMENT "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/test/support/tsan.supp")
  endif()
endfunction()
