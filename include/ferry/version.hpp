// The version of these headers, as macros, so that the preprocessor can compare it too.
// They are the only macros of ferry. CMakeLists.txt states the same version, and a test compares the two.
#pragma once

#define FERRY_VERSION_MAJOR 0
#define FERRY_VERSION_MINOR 1
#define FERRY_VERSION_PATCH 0

/// One number that grows with the version: major * 1'000'000 + minor * 1'000 + patch.
#define FERRY_VERSION_NUMBER (FERRY_VERSION_MAJOR * 1000000 + FERRY_VERSION_MINOR * 1000 + FERRY_VERSION_PATCH)

/// "major.minor.patch"
#define FERRY_VERSION_STRING "0.1.0"
