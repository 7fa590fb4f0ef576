# Finds libtorch and makes isthmus::torch_cpu, which links libtorch_cpu and libc10 and nothing of CUDA.
#
# Looks at Torch_DIR (a CMake or an environment variable, .../share/cmake/Torch as libtorch ships it) and then at what
# tools/setup has put into its cache. Sets IsthmusTorch_VERSION.

set(_isthmus_torch_roots)
foreach(dir IN ITEMS "${Torch_DIR}" "$ENV{Torch_DIR}")
  if(dir)
    cmake_path(SET root NORMALIZE "${dir}/../../..")
    list(APPEND _isthmus_torch_roots ${root})
  endif()
endforeach()
if(NOT _isthmus_torch_roots)
  execute_process(COMMAND ${CMAKE_CURRENT_LIST_DIR}/../tools/setup --print-torch
                  OUTPUT_VARIABLE dir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(dir)
    cmake_path(SET root NORMALIZE "${dir}/../../..")
    list(APPEND _isthmus_torch_roots ${root})
  endif()
endif()

# Not cached: another Torch_DIR or a renewed download must not meet paths of the last one.
find_path(IsthmusTorch_INCLUDE_DIR ATen/ATen.h PATHS ${_isthmus_torch_roots} PATH_SUFFIXES include NO_DEFAULT_PATH NO_CACHE)
find_library(IsthmusTorch_CPU_LIBRARY torch_cpu PATHS ${_isthmus_torch_roots} PATH_SUFFIXES lib NO_DEFAULT_PATH NO_CACHE)
find_library(IsthmusTorch_C10_LIBRARY c10 PATHS ${_isthmus_torch_roots} PATH_SUFFIXES lib NO_DEFAULT_PATH NO_CACHE)

set(_isthmus_torch_version_header ${IsthmusTorch_INCLUDE_DIR}/torch/headeronly/version.h)
if(EXISTS ${_isthmus_torch_version_header})
  file(READ ${_isthmus_torch_version_header} _isthmus_torch_version)
  string(REGEX REPLACE ".*VERSION_MAJOR ([0-9]+).*VERSION_MINOR ([0-9]+).*VERSION_PATCH ([0-9]+).*" "\\1.\\2.\\3"
         IsthmusTorch_VERSION "${_isthmus_torch_version}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(IsthmusTorch
  REQUIRED_VARS IsthmusTorch_CPU_LIBRARY IsthmusTorch_C10_LIBRARY IsthmusTorch_INCLUDE_DIR
  VERSION_VAR IsthmusTorch_VERSION
  REASON_FAILURE_MESSAGE "run tools/setup, set Torch_DIR, or configure with -DISTHMUS_WITH_TORCH=OFF")

if(IsthmusTorch_FOUND AND NOT TARGET isthmus::torch_cpu)
  add_library(isthmus::torch_c10 SHARED IMPORTED)
  set_target_properties(isthmus::torch_c10 PROPERTIES IMPORTED_LOCATION ${IsthmusTorch_C10_LIBRARY})
  add_library(isthmus::torch_cpu SHARED IMPORTED)
  set_target_properties(isthmus::torch_cpu PROPERTIES
    IMPORTED_LOCATION ${IsthmusTorch_CPU_LIBRARY}
    INTERFACE_LINK_LIBRARIES isthmus::torch_c10
    INTERFACE_INCLUDE_DIRECTORIES ${IsthmusTorch_INCLUDE_DIR}) # imported, hence SYSTEM: no warnings from its headers
endif()
