// What tests of files need: a folder of their own, and a disk that is full.
#pragma once

#include <sys/resource.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

namespace ferry_test {

/// A folder that only its owner may read, removed in the end with all that's in it.
class temporary_folder {
public:
    temporary_folder() : path_((std::filesystem::temp_directory_path() / "ferry_test.XXXXXX").string()) {
        if (!::mkdtemp(path_.data())) throw std::runtime_error("can't make " + path_);
    }
    temporary_folder(const temporary_folder&) = delete;
    temporary_folder& operator=(const temporary_folder&) = delete;
    ~temporary_folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    const std::string& path() const { return path_; }
    std::string file(const std::string& name) const { return path_ + "/" + name; }

private:
    std::string path_;
};

/// While it lives, no file of this process can grow beyond so many bytes.
class file_size_limit {
public:
    explicit file_size_limit(std::uint64_t size) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
        ::getrlimit(RLIMIT_FSIZE, &before_);
        auto now = before_;
        now.rlim_cur = size;
        ::setrlimit(RLIMIT_FSIZE, &now);
    }
    file_size_limit(const file_size_limit&) = delete;
    file_size_limit& operator=(const file_size_limit&) = delete;
    ~file_size_limit() {
        ::setrlimit(RLIMIT_FSIZE, &before_);
        std::signal(SIGXFSZ, handler_);
    }

private:
    void (*handler_)(int);
    ::rlimit before_{};
};

}  // namespace ferry_test
