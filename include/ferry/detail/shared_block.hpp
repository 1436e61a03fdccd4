// layer 0
// Counted owners of memory. Intrusive, so that a gRPC slice can carry one reference as a plain pointer, without an
// allocation of its own.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <utility>

namespace ferry::detail {

struct block {
    std::atomic<std::size_t> references{1};
    void (*destroy)(block*) noexcept = nullptr;

    void retain() noexcept { references.fetch_add(1, std::memory_order_relaxed); }
    void release() noexcept {
        if (references.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy(this);
    }
};

class block_ref {
public:
    block_ref() = default;
    explicit block_ref(block* adopted) noexcept : block_(adopted) {}
    block_ref(const block_ref& other) noexcept : block_(other.block_) {
        if (block_) block_->retain();
    }
    block_ref(block_ref&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
    block_ref& operator=(block_ref other) noexcept {
        std::swap(block_, other.block_);
        return *this;
    }
    ~block_ref() {
        if (block_) block_->release();
    }

    block* get() const noexcept { return block_; }
    block* detach() noexcept { return std::exchange(block_, nullptr); }

private:
    block* block_ = nullptr;
};

struct shared_block {
    struct memory {
        block_ref block;
        std::uint8_t* data;
    };

    template <class T>
    struct kept {
        block_ref block;
        T* object;
    };

    /// Uninitialised memory behind its own count, in one allocation.
    static memory allocate(std::size_t size) {
        void* raw = std::malloc(sizeof(block) + size);
        if (!raw) throw std::bad_alloc();
        return {adopt(raw), static_cast<std::uint8_t*>(raw) + sizeof(block)};
    }

    /// A count at the beginning of memory of malloc's, which goes with it.
    static block_ref adopt(void* raw) noexcept {
        auto* made = new (raw) block;
        made->destroy = [](block* b) noexcept {
            b->~block();
            std::free(b);
        };
        return block_ref(made);
    }

    template <class T>
    static kept<T> keep(T&& value) {
        struct holder : block {
            explicit holder(T&& v) : object(std::move(v)) {}
            T object;
        };
        auto* made = new holder(std::move(value));
        made->destroy = [](block* b) noexcept { delete static_cast<holder*>(b); };
        return {block_ref(made), &made->object};
    }
};

struct mapped_file {
    block_ref block;
    const std::uint8_t* data = nullptr;
    std::size_t size = 0;
    std::string problem;
};

/// The whole of an open file, mapped read-only; the descriptor stays the caller's.
inline mapped_file map_descriptor(int fd) {
    struct mapping : block {
        void* at;
        std::size_t length;
    };
    mapped_file out;
    struct stat about {};
    if (fd < 0 || ::fstat(fd, &about) != 0) {
        out.problem = std::strerror(errno);
    } else if (!S_ISREG(about.st_mode)) {
        out.problem = "not a regular file";
    } else if (about.st_size > 0) {
        const auto length = static_cast<std::size_t>(about.st_size);
        void* at = ::mmap(nullptr, length, PROT_READ, MAP_PRIVATE, fd, 0);
        if (at == MAP_FAILED) {
            out.problem = std::strerror(errno);
        } else {
            auto* made = new mapping;
            made->at = at;
            made->length = length;
            made->destroy = [](block* b) noexcept {
                auto* self = static_cast<mapping*>(b);
                ::munmap(self->at, self->length);
                delete self;
            };
            out.block = block_ref(made);
            out.data = static_cast<const std::uint8_t*>(at);
            out.size = length;
        }
    }
    return out;
}

inline mapped_file map_file(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe is refused, not waited for
    auto out = map_descriptor(fd);
    if (fd >= 0) ::close(fd);
    return out;
}

}  // namespace ferry::detail
