// What the main job puts into binaries: arrays of float64 in the machine's own order, random data, and its SHA-256.
#pragma once

#include <ferry/payload.hpp>

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace example {

inline constexpr std::size_t megabyte = std::size_t{1} << 20;

inline double to_megabytes(std::uint64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(megabyte); }

inline ferry::bytes to_bytes(std::vector<double> numbers) { return ferry::bytes::own(std::move(numbers)); }

/// Throws `std::runtime_error` unless the binary holds `count` numbers.
inline std::vector<double> to_numbers(const ferry::bytes& binary, std::size_t count) {
    std::vector<double> numbers(count);
    if (binary.size() != count * sizeof(double))
        throw std::runtime_error("a binary of " + std::to_string(binary.size()) + " bytes is no array of " +
                                 std::to_string(count) + " float64");
    if (count > 0) std::memcpy(numbers.data(), binary.data(), binary.size());
    return numbers;
}

/// The same data for the same seed.
inline ferry::bytes random_megabytes(std::size_t megabytes, const std::string& seed) {
    std::seed_seq from(seed.begin(), seed.end());
    std::mt19937_64 engine(from);
    std::vector<std::uint64_t> words(megabytes * (megabyte / sizeof(std::uint64_t)));
    for (auto& word : words) word = engine();
    return ferry::bytes::own(std::move(words));
}

/// As hexadecimal digits.
inline std::string sha256(const ferry::bytes& data) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
    unsigned int length = 0;
    if (EVP_Digest(data.data(), data.size(), digest.data(), &length, EVP_sha256(), nullptr) != 1)
        throw std::runtime_error("OpenSSL could not compute a SHA-256");
    std::string digits;
    for (unsigned int i = 0; i < length; ++i) {
        digits += "0123456789abcdef"[digest[i] >> 4];
        digits += "0123456789abcdef"[digest[i] & 15];
    }
    return digits;
}

}  // namespace example
