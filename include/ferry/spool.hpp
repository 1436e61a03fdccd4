// A folder for payloads that are larger than memory should hold. It is one process's alone, and nobody else can read it.
#pragma once

#include <ferry/detail/spool_file.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry {

struct spool_options {
    std::string folder;                                 ///< made where it's missing; empty: nothing is spooled
    std::uint64_t threshold = std::uint64_t{64} << 20;  ///< a larger payload goes to the folder, in bytes
};

/// An open spool folder, locked against other processes and other spools. Its members may be called from several threads.
/// What fails later than the constructor fails with `error{spool_failed}`; a bad name, with `error{invalid_argument}`.
///
/// A name is a file name of 1 to 200 bytes without '/' that doesn't begin with '.'. What is written survives the process,
/// and a power cut where it was written with `sync`: nothing else waits for the disk.
class spool {
public:
    struct entry {
        std::string name;
        std::uint64_t bytes;
        std::chrono::system_clock::time_point written;  ///< last
    };

    /// Opens the folder, and makes it with mode 0700 where it's missing (its parent must be there). Throws
    /// `error{invalid_argument}`, which says what to do, where it can't be used, isn't this user's alone, or is in use.
    explicit spool(spool_options options) : options_(std::move(options)) {
        const auto refuse = [&](const std::string& why) { throw error(errc::invalid_argument, at() + why); };
        const auto& path = options_.folder;
        if (path.empty()) refuse(": name a folder");
        if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
            refuse(": the folder can't be made: " + words() + ": make its parent, or name another one");
        folder_.number = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct stat about {};
        if (folder_.number < 0 || ::fstat(folder_.number, &about) != 0)
            refuse(": the folder can't be opened: " + words() + ": name another one");
        if (about.st_uid != ::geteuid()) refuse(": the folder belongs to another user: name one of this process's own");
        if ((about.st_mode & 077) != 0)
            refuse(": other users can get into the folder: chmod 700 it, or name another one");
        lock_.number = open_file(lock_name, O_RDWR | O_CREAT);
        if (lock_.number < 0) refuse(": the folder can't be written: " + words());
        if (::flock(lock_.number, LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK) refuse(": the folder can't be locked: " + words());
            refuse(": the folder is in use by another process or spool: give each a folder of its own");
        }
        for (const auto& name : names()) {
            if (name.starts_with(part_prefix)) ::unlinkat(folder_.number, name.c_str(), 0);  // left by a killed process
        }
    }

    spool(const spool&) = delete;
    spool& operator=(const spool&) = delete;

    const std::string& folder() const noexcept { return options_.folder; }
    std::uint64_t threshold() const noexcept { return options_.threshold; }

    /// A file without a name: it's gone when it's closed and its mapped bytes are released, however the process ends.
    detail::spool_file create_unnamed() {
        const int made = ::openat(folder_.number, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        return made >= 0 ? detail::spool_file(made) : create_unlinked();  // not every file system can
    }

    /// The same for file systems that know no files without names.
    detail::spool_file create_unlinked() {
        const auto name = part_name();
        auto made = make(name);
        ::unlinkat(folder_.number, name.c_str(), 0);
        return made;
    }

    /// An empty file of this name. One that is there is removed first: bytes that are mapped from it stay as they are.
    detail::spool_file create(std::string_view name) {
        const auto checked = check(name);
        ::unlinkat(folder_.number, checked.c_str(), 0);
        return make(checked);
    }

    /// The file of this name, to go on at its end; its checksum is computed by reading it. Nothing where there is none.
    std::optional<detail::spool_file> reopen(std::string_view name) {
        const auto checked = check(name);
        const int opened = open_file(checked, O_RDWR | O_NONBLOCK);
        if (opened < 0 && errno == ENOENT) return std::nullopt;
        if (opened < 0) fail(checked, words());
        detail::spool_file file(opened);
        struct stat about {};
        if (::fstat(opened, &about) != 0) fail(checked, words());
        if (!S_ISREG(about.st_mode)) fail(checked, "not a regular file");
        if (const auto problem = file.read_existing(); !problem.empty()) fail(checked, problem);
        return file;
    }

    /// The named files, by name.
    std::vector<entry> list() const {
        std::vector<entry> out;
        for (auto& name : names()) {
            struct stat about {};
            if (name.front() == '.' || ::fstatat(folder_.number, name.c_str(), &about, AT_SYMLINK_NOFOLLOW) != 0)
                continue;
            if (S_ISREG(about.st_mode))
                out.push_back({std::move(name), static_cast<std::uint64_t>(about.st_size), to_time(about.st_mtim)});
        }
        std::sort(out.begin(), out.end(), [](const entry& a, const entry& b) { return a.name < b.name; });
        return out;
    }

    /// False where there is no such file. Bytes that are mapped from it stay as they are.
    bool remove(std::string_view name) {
        const auto checked = check(name);
        if (::unlinkat(folder_.number, checked.c_str(), 0) == 0) return true;
        if (errno != ENOENT) fail(checked, words());
        return false;
    }

    /// Puts all of a payload in memory under a name, or leaves what is there as it is. With `sync` it is on the disk then.
    /// Throws `error{invalid_argument}` for a payload with a source.
    void write(std::string_view name, const payload& content, bool sync = false) {
        const auto checked = check(name);
        if (!content.in_memory())
            throw error(errc::invalid_argument, at() + ": a payload with a source can't be written");
        const auto part = part_name();
        auto file = make(part);
        std::string problem;
        content.for_each_run(0, content.size(), [&](const bytes& run) {
            if (problem.empty()) problem = file.append(run);
        });
        if (problem.empty() && sync) problem = file.sync();
        if (problem.empty() && ::renameat(folder_.number, part.c_str(), folder_.number, checked.c_str()) != 0)
            problem = words();
        if (problem.empty() && sync && ::fsync(folder_.number) != 0) {
            problem = words();
            ::unlinkat(folder_.number, checked.c_str(), 0);
        }
        if (problem.empty()) return;
        ::unlinkat(folder_.number, part.c_str(), 0);
        fail(checked, problem);
    }

private:
    struct descriptor {
        descriptor() = default;
        descriptor(const descriptor&) = delete;
        descriptor& operator=(const descriptor&) = delete;
        ~descriptor() {
            if (number >= 0) ::close(number);
        }
        int number = -1;
    };

    static constexpr const char* lock_name = ".lock";
    static constexpr std::string_view part_prefix = ".part-";

    static std::chrono::system_clock::time_point to_time(const timespec& t) {
        using namespace std::chrono;
        return system_clock::time_point(
            duration_cast<system_clock::duration>(seconds(t.tv_sec) + nanoseconds(t.tv_nsec)));
    }
    static std::string words() { return std::strerror(errno); }
    std::string at() const { return "spool: " + options_.folder; }
    [[noreturn]] void fail(const std::string& name, const std::string& problem) const {
        throw error(errc::spool_failed, at() + "/" + name + ": " + problem);
    }

    std::string check(std::string_view name) const {
        if (name.empty() || name.size() > 200 || name.front() == '.' || name.find('/') != name.npos ||
            name.find('\0') != name.npos)
            throw error(errc::invalid_argument, at() + ": not a name for a file: \"" + std::string(name) + '"');
        return std::string(name);
    }

    std::string part_name() { return std::string(part_prefix) + std::to_string(++parts_); }

    int open_file(const std::string& name, int flags) const noexcept {
        return ::openat(folder_.number, name.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    }

    detail::spool_file make(const std::string& name) const {
        const int made = open_file(name, O_RDWR | O_CREAT | O_EXCL);
        if (made < 0) fail(name, words());
        return detail::spool_file(made);
    }

    std::vector<std::string> names() const {
        const int opened = ::openat(folder_.number, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        const std::unique_ptr<DIR, int (*)(DIR*)> open(opened < 0 ? nullptr : ::fdopendir(opened),
                                                       [](DIR* d) { return ::closedir(d); });
        if (!open) fail("", words());
        std::vector<std::string> out;
        while (const auto* each = ::readdir(open.get())) out.emplace_back(each->d_name);
        return out;
    }

    spool_options options_;
    descriptor folder_, lock_;
    std::atomic<std::uint64_t> parts_{0};
};

}  // namespace ferry
