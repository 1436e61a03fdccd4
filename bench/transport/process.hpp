// A side of a transfer as a process of its own: it is forked by the benchmark, which uses no gRPC itself, takes orders through a
// socket, and answers with what it measured.
#pragma once

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace bench {

enum class what : std::uint8_t {
    start,     // a server: answers its port; a node: connects to it, and answers when it is connected
    download,  // `bytes` to each node
    upload,    // `bytes` from a node
    requests,  // `count` requests to each node, each after the reply to the one before
    sends,     // `count` sends to each node, at most `window` outstanding to one
    idle,      // a node: `count` parked polls on `nodes` connections
    to_all,    // one small message to each idle node; a node: waits until all have come
    usage,     // of processor and memory since the last time
};

struct order {
    what kind = what::usage;
    std::uint64_t bytes = 0;
    int count = 0, nodes = 0, window = 0;
    int port = 0;
};

struct answer {
    bool ok = true;
    char problem[200] = {};
    int port = 0;
    double seconds = 0;
    double p50 = 0, p99 = 0;         // seconds
    double cpu = 0;                  // seconds
    double peak_mb = 0, rss_mb = 0;  // resident
    int threads = 0;
};

class side {
public:
    virtual ~side() = default;
    virtual answer run(const order& o) = 0;
};

namespace detail {

/// From a line of /proc/self/status.
inline double status_of_process(const char* key) {
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);) {
        if (line.starts_with(key)) return std::atof(line.c_str() + std::strlen(key) + 1);
    }
    return 0;
}

inline double cpu_seconds() {
    rusage u{};
    ::getrusage(RUSAGE_SELF, &u);
    const auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    return seconds(u.ru_utime) + seconds(u.ru_stime);
}

inline answer usage() {
    static double last_cpu = 0;
    answer out;
    const double now = cpu_seconds();
    out.cpu = now - std::exchange(last_cpu, now);
    out.peak_mb = status_of_process("VmHWM") / 1024;
    out.rss_mb = status_of_process("VmRSS") / 1024;
    out.threads = static_cast<int>(status_of_process("Threads"));
    std::ofstream("/proc/self/clear_refs") << 5;  // the peak starts anew
    return out;
}

template <class Make>
[[noreturn]] void serve(int fd, Make&& make) {
    std::unique_ptr<side> s;
    order o;
    while (::read(fd, &o, sizeof o) == static_cast<ssize_t>(sizeof o)) {
        answer a;
        try {
            if (!s) s = make();
            a = o.kind == what::usage ? usage() : s->run(o);
        } catch (const std::exception& e) {
            a.ok = false;
            std::snprintf(a.problem, sizeof a.problem, "%s", e.what());
        }
        if (::write(fd, &a, sizeof a) != static_cast<ssize_t>(sizeof a)) break;
    }
    ::_exit(0);  // what is still open goes with the process
}

}  // namespace detail

class process {
public:
    /// `make()` makes the side, in the child, with the first order. To be called while this process has one thread.
    template <class Make>
    explicit process(Make&& make) {
        int both[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) != 0) throw std::runtime_error("no socketpair");
        child_ = ::fork();
        if (child_ < 0) throw std::runtime_error("no fork");
        if (child_ == 0) {
            ::close(both[0]);
            detail::serve(both[1], make);
        }
        ::close(both[1]);
        fd_ = both[0];
        const timeval limit{.tv_sec = most_seconds, .tv_usec = 0};
        ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    }
    process(const process&) = delete;
    process& operator=(const process&) = delete;
    ~process() {
        ::close(fd_);
        ::kill(child_, SIGKILL);
        ::waitpid(child_, nullptr, 0);
    }

    void tell(const order& o) {
        if (::send(fd_, &o, sizeof o, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof o)) {
            throw std::runtime_error("a side is gone");
        }
    }
    answer hear() {
        answer a;
        const auto came = ::recv(fd_, &a, sizeof a, MSG_WAITALL);
        if (came < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) throw std::runtime_error("a side doesn't answer");
        if (came != static_cast<ssize_t>(sizeof a)) throw std::runtime_error("a side died");
        if (!a.ok) throw std::runtime_error(a.problem);
        return a;
    }
    answer ask(const order& o) {
        tell(o);
        return hear();
    }

private:
    static constexpr time_t most_seconds = 300;  // for one answer: more than a side waits for anything itself

    pid_t child_ = 0;
    int fd_ = -1;
};

}  // namespace bench
