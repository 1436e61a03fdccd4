// The most memory that this process ever had in use.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

namespace example {

/// In bytes, as the kernel counts it (VmHWM); 0 where it doesn't say.
inline std::uint64_t peak_memory() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        std::uint64_t kilobytes = 0;
        if (word == "VmHWM:" && status >> kilobytes) return kilobytes * 1024;
    }
    return 0;
}

}  // namespace example
