// layer 0
// What two processes, and two objects in one, should not have in common.
#pragma once

#include <cstdint>
#include <random>

namespace ferry::detail {

inline std::uint64_t random_seed() {
    std::random_device device;
    return (std::uint64_t{device()} << 32) ^ device();
}

}  // namespace ferry::detail
