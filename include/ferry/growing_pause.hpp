// A pause that grows with each failure in a row, and the chance by which many that failed together come back apart.
// When to pause, and which part of the pause is taken, is up to whoever uses it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>

namespace ferry {

/// After the n-th failure in a row: `base` * `factor`^(n-1), at most `cap`.
struct growing_pause {
    std::chrono::milliseconds base;
    double factor = 2;
    std::chrono::milliseconds cap;

    /// The pause after so many failures, from 1; any number will do.
    std::chrono::duration<double, std::milli> after(int failures) const noexcept {
        const std::chrono::duration<double, std::milli> first = base, most = cap;
        if (first.count() == 0) return first;  // which no factor makes longer, not even an infinite one
        return std::min(most, first * std::pow(factor, failures - 1.0));
    }
};

namespace detail {

/// Numbers that are the same for a seed, each as cheap as a counter, and none twice within 2^64 of them (SplitMix64).
class random_bits {
public:
    explicit random_bits(std::uint64_t seed) noexcept : state_(seed) {}

    std::uint64_t next() noexcept {
        auto mixed = state_ += 0x9e3779b97f4a7c15U;
        mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9U;
        mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebU;
        return mixed ^ (mixed >> 31);
    }

    /// For what 0 means none.
    std::uint64_t next_id() noexcept {
        const auto drawn = next();
        return drawn != 0 ? drawn : next();
    }

private:
    std::uint64_t state_;
};

/// Numbers from 0 up to, but not including, 1; the same for a seed.
class random_part {
public:
    explicit random_part(std::uint64_t seed) noexcept : bits_(seed) {}

    double next() noexcept { return static_cast<double>(bits_.next() >> 11) * 0x1p-53; }

private:
    random_bits bits_;
};

}  // namespace detail

}  // namespace ferry
