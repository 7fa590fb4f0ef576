# What an application needs to use a device's side: static libraries, headers, a CMake package and a pkg-config file.
#
#   cmake --install build/release --component edge --prefix ...
#
# Libraries that need libtorch, and the server's, are parts of tools and are not installed.

include(CMakePackageConfigHelpers)

set(ISTHMUS_EDGE_MODULES edge artefact engine planner transport codec model privacy wire text kernels core) # dependents before what they need
set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/isthmus)
set(ISTHMUS_PC_LIBS)
foreach(module IN LISTS ISTHMUS_EDGE_MODULES)
  install(TARGETS isthmus_${module} EXPORT isthmus ARCHIVE COMPONENT edge)
  install(DIRECTORY include/isthmus/${module} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/isthmus
          COMPONENT edge FILES_MATCHING PATTERN *.h)
  string(APPEND ISTHMUS_PC_LIBS " -listhmus_${module}")
endforeach()

install(EXPORT isthmus FILE isthmus-targets.cmake NAMESPACE isthmus:: DESTINATION ${config_dir} COMPONENT edge)
configure_package_config_file(tools/cmake/isthmus-config.cmake.in ${PROJECT_BINARY_DIR}/isthmus-config.cmake
                              INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/isthmus-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/isthmus-config.cmake ${PROJECT_BINARY_DIR}/isthmus-config-version.cmake
        DESTINATION ${config_dir} COMPONENT edge)

# The prefix is written relative to the file, so that an installed tree can be moved.
file(RELATIVE_PATH ISTHMUS_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(tools/cmake/isthmus.pc.in ${PROJECT_BINARY_DIR}/isthmus.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/isthmus.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT edge)
