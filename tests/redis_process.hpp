// A Redis of a test's own: a redis-server in a temporary folder, reached by a unix socket there, which can be killed, stopped
// and started again on the same data. Nothing else of the machine's is used, in particular no Redis that runs already.
#pragma once

#include "temporary_folder.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace ferry_test {

struct redis_settings {
    bool on_a_port = false;                ///< it listens on 127.0.0.1, too, at a port that was free
    std::string password{};                ///< `requirepass`
    std::vector<std::string> users{};      ///< of access lists: "ferry on >secret ~ferry:* &ferry:* +@all"
    bool append_only = false;              ///< without it all is gone when the process ends
    std::string append_sync = "everysec";  ///< `appendfsync`: always, everysec or no
    int databases = 16;
    std::string max_memory{};         ///< as "10mb"; then writes are refused
    std::vector<std::string> more{};  ///< further lines of its configuration
    std::string program = "redis-server";
};

class redis_process {
public:
    /// Starts it, and returns once it answers. Throws `std::runtime_error` where it does not.
    explicit redis_process(redis_settings settings = {}) : settings_(std::move(settings)) {
        if (settings_.on_a_port) port_ = free_port();
        start();
    }
    redis_process(const redis_process&) = delete;
    redis_process& operator=(const redis_process&) = delete;
    ~redis_process() { stop(); }

    std::string socket() const { return folder_.file("socket"); }
    std::uint16_t port() const { return port_; }  ///< 0: none is listened on
    const std::string& folder() const { return folder_.path(); }

    bool is_running() const {
        const std::lock_guard lock(mutex_);
        return pid_ > 0;
    }

    /// Again, on what it had written. Does nothing where it runs.
    void start() {
        if (is_running()) return;
        if (keeper_.joinable()) keeper_.join();
        for (int attempt = 1;; ++attempt) {
            begin();
            if (answers()) return;
            stop();
            const auto told = log();
            if (!port_ || told.find("Address already in use") == std::string::npos || attempt == 5) {
                throw std::runtime_error(settings_.program + " does not answer; the end of its log:\n" +
                                         told.substr(told.size() > 1000 ? told.size() - 1000 : 0));
            }
            port_ = free_port();  // somebody has taken it meanwhile
        }
    }

    /// In an orderly way.
    void stop() {
        send(SIGCONT);
        send(SIGTERM);
        if (!has_ended(std::chrono::seconds(10))) send(SIGKILL);
        if (keeper_.joinable()) keeper_.join();
    }

    /// As in a crash.
    void kill() {
        send(SIGKILL);
        if (keeper_.joinable()) keeper_.join();
    }

    /// It does nothing more, and its connections stay open, until `resume`.
    void pause() {
        const auto id = send(SIGSTOP);
        siginfo_t ignored{};
        while (id > 0 && ::waitid(P_PID, static_cast<id_t>(id), &ignored, WSTOPPED) != 0 && errno == EINTR) {
        }
    }
    void resume() { send(SIGCONT); }

    /// What it has told in all its lives.
    std::string log() const {
        std::ifstream file(folder_.file("log"));
        return {std::istreambuf_iterator<char>(file), {}};
    }

private:
    using clock = std::chrono::steady_clock;

    static std::uint16_t free_port() {
        const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof at;
        const bool found = ::bind(fd, reinterpret_cast<sockaddr*>(&at), size) == 0 &&
                           ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) == 0;
        ::close(fd);
        if (!found) throw std::runtime_error("there is no free port");
        return ntohs(at.sin_port);
    }

    /// A file, so that no password is seen among the arguments.
    std::string write_configuration() const {
        const auto path = folder_.file("redis.conf");
        std::ofstream file(path);
        file << "port " << port_ << "\nbind 127.0.0.1\nunixsocket " << socket() << "\nunixsocketperm 700\ndir "
             << folder_.path() << "\ndaemonize no\nsave \"\"\ndatabases " << settings_.databases << "\nappendonly "
             << (settings_.append_only ? "yes" : "no") << "\nappendfsync " << settings_.append_sync
             << "\nmaxmemory-policy noeviction\n";
        if (!settings_.max_memory.empty()) file << "maxmemory " << settings_.max_memory << "\n";
        if (!settings_.password.empty()) file << "requirepass " << settings_.password << "\n";
        for (const auto& user : settings_.users) file << "user " << user << "\n";
        for (const auto& line : settings_.more) file << line << "\n";
        return path;
    }

    /// A thread of its own starts the process and waits for its end: a process that is to die with its parent dies with the
    /// thread that has started it.
    void begin() {
        ::unlink(socket().c_str());  // of a life that was killed
        int problem = 0;
        bool begun = false;
        keeper_ = std::thread([this, &problem, &begun] {
            const auto id = fork_and_exec(problem);
            {
                const std::lock_guard lock(mutex_);
                pid_ = id;
                begun = true;
                changed_.notify_all();
            }
            siginfo_t ignored{};
            while (id > 0 && ::waitid(P_PID, static_cast<id_t>(id), &ignored, WEXITED | WNOWAIT) != 0 &&
                   errno == EINTR) {
            }
            const std::lock_guard lock(mutex_);  // nobody signals an id that is no longer ours
            if (id > 0) ::waitpid(id, nullptr, 0);
            pid_ = 0;
            changed_.notify_all();
        });
        {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [&] { return begun; });
        }
        if (problem == 0) return;
        keeper_.join();
        throw std::runtime_error(settings_.program + " can't be started: " + std::strerror(problem) +
                                 ". It is in Debian's package redis-server");
    }

    /// Where it fails, as for a program that is not there, it sets `problem` and returns 0.
    pid_t fork_and_exec(int& problem) const {
        const auto configuration = write_configuration();
        const char* const arguments[] = {settings_.program.c_str(), configuration.c_str(), nullptr};
        const pid_t parent = ::getpid();
        const int output = ::open(folder_.file("log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        int told[2];
        if (::pipe2(told, O_CLOEXEC) != 0) {
            problem = errno;
            return 0;
        }
        const pid_t id = ::fork();
        if (id == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (::getppid() != parent) ::_exit(1);
            ::dup2(output, STDOUT_FILENO);
            ::dup2(output, STDERR_FILENO);
            ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
            ::execvp(arguments[0], const_cast<char* const*>(arguments));
            const int why = errno;
            [[maybe_unused]] const auto written = ::write(told[1], &why, sizeof why);
            ::_exit(1);
        }
        if (id < 0) problem = errno;
        ::close(output);
        ::close(told[1]);
        if (id > 0 && ::read(told[0], &problem, sizeof problem) == sizeof problem) ::waitpid(id, nullptr, 0);
        ::close(told[0]);
        return problem == 0 ? id : 0;
    }

    /// Returns the id of the process, or 0 where there is none.
    pid_t send(int signal) {
        const std::lock_guard lock(mutex_);
        if (pid_ > 0) ::kill(pid_, signal);
        return pid_;
    }

    bool has_ended(std::chrono::milliseconds within) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, within, [&] { return pid_ == 0; });
    }

    /// Waits until it does, and has read what there is from before.
    bool answers() {
        for (const auto until = clock::now() + std::chrono::seconds(20); clock::now() < until;) {
            const auto said = ask(settings_.password.empty() ? "PING\r\n" : "AUTH " + settings_.password + "\r\n");
            if (said.starts_with("+") || said.starts_with("-NOAUTH")) return true;
            if (has_ended(std::chrono::milliseconds(5))) return false;
        }
        return false;
    }

    /// The beginning of its answer.
    std::string ask(const std::string& command) const {
        const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un at{};
        at.sun_family = AF_UNIX;
        socket().copy(at.sun_path, sizeof at.sun_path - 1);
        const timeval a_second{1, 0};
        ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &a_second, sizeof a_second);
        char text[64];
        ssize_t size = 0;
        if (::connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0 &&
            ::send(fd, command.data(), command.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(command.size())) {
            size = ::recv(fd, text, sizeof text, 0);
        }
        ::close(fd);
        return {text, size > 0 ? static_cast<std::size_t>(size) : 0};
    }

    const redis_settings settings_;
    const temporary_folder folder_;
    std::uint16_t port_ = 0;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    pid_t pid_ = 0;
    std::thread keeper_;
};

}  // namespace ferry_test
