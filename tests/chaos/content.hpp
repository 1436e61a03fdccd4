// What tasks and replies carry: bytes that follow from a seed, and a hash that no wrong byte leaves as it was.
#pragma once

#include <ferry/payload.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace chaos {

/// One to one, with no pattern that could be seen.
constexpr std::uint64_t mixed(std::uint64_t bits) noexcept {
    bits += 0x9e3779b97f4a7c15ULL;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ULL;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebULL;
    return bits ^ (bits >> 31);
}

inline ferry::bytes content(std::uint64_t seed, std::size_t size) {
    std::vector<std::uint64_t> words(size / sizeof(std::uint64_t) + 1);
    seed = mixed(seed);
    for (auto& word : words) word = mixed(seed++);
    return ferry::bytes::own(std::move(words)).slice(0, size);
}

/// Of all the bytes, their number, and the task that they belong to.
inline std::uint64_t hash(const ferry::bytes& of, std::uint64_t task) {
    auto out = mixed(mixed(task) ^ of.size());
    for (std::size_t at = 0; at < of.size(); at += sizeof(std::uint64_t)) {
        std::uint64_t word = 0;
        std::memcpy(&word, of.data() + at, std::min(sizeof word, of.size() - at));
        out = mixed(out ^ word);
    }
    return out;
}

/// Of the reply's content, which both ends can make.
constexpr std::uint64_t reply_seed(std::uint64_t seed, std::uint64_t task) noexcept { return mixed(~seed) ^ task; }

}  // namespace chaos
