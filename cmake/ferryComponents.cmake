# ferry's components: what each stands on, needs and owns. Read by ferry's own build and by the installed package, so that
# both find, name and refuse the same things. Nothing is looked for until a component is asked for.
#
# A further header with a library of its own is an OPTIONAL component: one line for the library, one for the component.

# ferry_library(<package> TARGET <what to link> [FIND <more arguments of find_package>...] DEBIAN <packages>...)
macro(ferry_library package)
    cmake_parse_arguments(ferry_library_${package} "" "TARGET" "FIND;DEBIAN" ${ARGN})
endmacro()

# ferry_component(<name> [OPTIONAL] [ON <components>...] [NEEDS <packages>...] [HEADERS <patterns>...])
# OPTIONAL: nothing but headers of its own, which are installed in any case, and a library that only its users need.
macro(ferry_component name)
    cmake_parse_arguments(ferry_component_${name} "OPTIONAL" "" "ON;NEEDS;HEADERS" ${ARGN})
    list(APPEND ferry_components ${name})
endmacro()

ferry_library(Threads       TARGET Threads::Threads             DEBIAN libc6-dev)
ferry_library(nlohmann_json TARGET nlohmann_json::nlohmann_json FIND CONFIG DEBIAN nlohmann-json3-dev)
ferry_library(msgpack_cxx   TARGET msgpack_cxx::msgpack_cxx     DEBIAN libmsgpack-cxx-dev)
ferry_library(Protobuf      TARGET protobuf::libprotobuf        DEBIAN libprotobuf-dev protobuf-compiler)
ferry_library(gRPC          TARGET gRPC::grpc++                 FIND CONFIG DEBIAN libgrpc++-dev protobuf-compiler-grpc)
ferry_library(simdjson      TARGET simdjson::simdjson           FIND CONFIG DEBIAN libsimdjson-dev)
ferry_library(SQLite3       TARGET SQLite::SQLite3              DEBIAN libsqlite3-dev)
ferry_library(hiredis       TARGET hiredis::hiredis             DEBIAN libhiredis-dev)
ferry_library(GTest         TARGET GTest::gtest                 FIND CONFIG DEBIAN libgtest-dev)

set(ferry_components)
ferry_component(core NEEDS Threads nlohmann_json msgpack_cxx)
ferry_component(proto NEEDS Protobuf gRPC)
ferry_component(ferry ON core proto)
ferry_component(simdjson OPTIONAL ON core NEEDS simdjson HEADERS serializer/simdjson.hpp)
ferry_component(sqlite OPTIONAL ON core NEEDS SQLite3
                HEADERS agent_store/sqlite.hpp detail/sqlite_*.hpp)
ferry_component(redis OPTIONAL ON core NEEDS hiredis
                HEADERS agent_store/redis.hpp detail/redis_*.hpp)
ferry_component(conformance OPTIONAL ON core NEEDS GTest HEADERS conformance/*.hpp)

# Sets the first variable to the components named and all that they stand on, in an order in which they can be made, and the
# second to a sentence where there is no such component, else to nothing.
function(ferry_resolve_components result_name fault_name)
    set(resolved)
    foreach(component IN LISTS ARGN)
        if(NOT component IN_LIST ferry_components)
            list(JOIN ferry_components ", " all)
            set(${result_name} "" PARENT_SCOPE)
            set(${fault_name} "ferry has no component \"${component}\". It has ${all}." PARENT_SCOPE)
            return()
        endif()
        ferry_resolve_components(below ${fault_name} ${ferry_component_${component}_ON})
        list(APPEND resolved ${below} ${component})
    endforeach()
    list(REMOVE_DUPLICATES resolved)
    set(${result_name} ${resolved} PARENT_SCOPE)
    set(${fault_name} "" PARENT_SCOPE)
endfunction()

# Looks for the libraries of one component that have no target yet. Sets the variable to a sentence about what is missing, else
# to nothing. A function, so that variables of the packages found stay in here.
function(ferry_find_libraries component fault_name)
    list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_FUNCTION_LIST_DIR}")
    set(missing)
    set(debian)
    foreach(package IN LISTS ferry_component_${component}_NEEDS)
        if(NOT TARGET ${ferry_library_${package}_TARGET})
            find_package(${package} QUIET ${ferry_library_${package}_FIND})
        endif()
        if(NOT TARGET ${ferry_library_${package}_TARGET})
            list(APPEND missing ${package})
            list(APPEND debian ${ferry_library_${package}_DEBIAN})
        endif()
    endforeach()
    set(${fault_name} "" PARENT_SCOPE)
    if(missing)
        list(JOIN missing " and " missing)
        list(JOIN debian " " debian)
        set(${fault_name} "ferry's component \"${component}\" needs ${missing}, not found here. Debian's packages: ${debian}."
            PARENT_SCOPE)
    endif()
endfunction()

# Makes ferry::<component> for an optional one, whose libraries have been found. GLOBAL: for the whole project.
function(ferry_add_optional component)
    add_library(ferry::${component} INTERFACE IMPORTED ${ARGN})
    foreach(other IN LISTS ferry_component_${component}_ON)
        target_link_libraries(ferry::${component} INTERFACE ferry::${other})
    endforeach()
    foreach(package IN LISTS ferry_component_${component}_NEEDS)
        target_link_libraries(ferry::${component} INTERFACE ${ferry_library_${package}_TARGET})
    endforeach()
endfunction()
