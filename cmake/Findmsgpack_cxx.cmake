# Finds the headers of msgpack-cxx and makes the target msgpack_cxx::msgpack_cxx.
# Debian's own package file (find_package(msgpack)) makes a target that brings in Boost, which ferry does without.
find_path(msgpack_cxx_INCLUDE_DIR msgpack.hpp)
mark_as_advanced(msgpack_cxx_INCLUDE_DIR)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(msgpack_cxx REQUIRED_VARS msgpack_cxx_INCLUDE_DIR)

if(msgpack_cxx_FOUND AND NOT TARGET msgpack_cxx::msgpack_cxx)
    add_library(msgpack_cxx::msgpack_cxx INTERFACE IMPORTED)
    set_target_properties(msgpack_cxx::msgpack_cxx PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${msgpack_cxx_INCLUDE_DIR}")
endif()
