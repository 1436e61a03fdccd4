// layer 0
// Collects what a serializer writes: small pieces go into owned runs, large binaries are taken by reference.
#pragma once

#include <ferry/payload.hpp>

#include <cstddef>
#include <string>
#include <utility>

namespace ferry::detail {

class payload_builder {
public:
    /// Below this size a copy is cheaper than a run of its own.
    static constexpr std::size_t by_reference_from = 1024;

    void write(const char* data, std::size_t size) { small_.append(data, size); }

    void append(const bytes& run) {
        if (run.size() < by_reference_from) {
            write(reinterpret_cast<const char*>(run.data()), run.size());
            return;
        }
        flush();
        out_.append(run);
    }

    payload finish() {
        flush();
        return std::move(out_);
    }

private:
    void flush() {
        if (!small_.empty()) out_.append(bytes::own(std::exchange(small_, {})));
    }

    std::string small_;
    payload out_;
};

}  // namespace ferry::detail
