// A TCP relay between nodes and a server, for tests: it does to connections what networks do to them. It listens on 127.0.0.1
// and, where there is IPv6, on ::1, at a port of its own that stays while servers come and go behind it.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace loopback {

class tcp_relay {
public:
    enum way : std::size_t { to_server, to_node };

    explicit tcp_relay(std::uint16_t server_port) : server_port_(server_port), wake_(::eventfd(0, EFD_CLOEXEC)) {
        if (wake_.get() < 0) fail("eventfd");
        listen();
        thread_ = std::thread([this] { run(); });
    }
    tcp_relay(const tcp_relay&) = delete;
    tcp_relay& operator=(const tcp_relay&) = delete;
    ~tcp_relay() {
        change([this] { stopped_ = true; });
        thread_.join();
    }

    std::uint16_t port() const noexcept { return port_; }

    // --- what it does -----------------------------------------------------------------------------------------------

    /// Connections from now on go there, on 127.0.0.1; 0: nowhere, they are closed at once.
    void forward_to(std::uint16_t server_port) {
        change([&] { server_port_ = server_port; });
    }

    /// Closes all connections, on both sides. What was not passed on is lost.
    void cut() {
        change([&] { connections_.clear(); });
    }

    /// Closes the first connection over which so many more bytes have passed this way, exactly then. Once.
    void cut_after(way direction, std::uint64_t bytes) { arm(direction, bytes, deed::cut); }

    /// From now on nothing passes over the connections of now, which stay open: both ends are left alone.
    void stall() {
        change([&] {
            for (auto& each : connections_) each.stalled = true;
        });
    }

    /// Stalls the first connection over which so many more bytes have passed this way. Once.
    void stall_after(way direction, std::uint64_t bytes) { arm(direction, bytes, deed::stall); }

    /// Nothing passes this way over any connection, also later ones.
    void hold(way direction) {
        change([&] { held_[direction] = true; });
    }

    /// What was stalled or held goes on.
    void go_on() {
        change([&] {
            held_ = {};
            for (auto& each : connections_) each.stalled = false;
        });
    }

    // --- what it has seen -------------------------------------------------------------------------------------------

    struct counts {
        std::size_t accepted = 0;                ///< connections, ever
        std::size_t open = 0;                    ///< of them
        std::size_t stalled = 0;                 ///< of those
        std::size_t limits_reached = 0;          ///< of `cut_after` and `stall_after`
        std::array<std::uint64_t, 2> passed{};   ///< bytes each way, ever
        std::array<std::uint64_t, 2> waiting{};  ///< bytes that came and were not passed on, of the open ones
    };

    counts seen() const {
        const std::lock_guard lock(mutex_);
        return count();
    }

    /// Waits until `enough(counts)`; false where the time has passed before.
    template <class Enough>
    bool wait(Enough&& enough, std::chrono::milliseconds within) const {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, within, [&] { return enough(count()); });
    }

private:
    class file {
    public:
        explicit file(int fd = -1) noexcept : fd_(fd) {}
        file(file&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
        file& operator=(file&& other) noexcept {
            std::swap(fd_, other.fd_);
            return *this;
        }
        ~file() {
            if (fd_ >= 0) ::close(fd_);
        }
        int get() const noexcept { return fd_; }

    private:
        int fd_;
    };

    enum class deed { cut, stall };
    struct limit {
        std::uint64_t bytes;
        deed then;
    };

    /// One way of a connection.
    struct flow {
        std::vector<char> buffer = std::vector<char>(std::size_t{1} << 16);
        std::size_t begin = 0, end = 0;  // of what waits in it
        bool no_more = false;            // its source has ended
        bool shut = false;               // and its sink was told
        std::uint64_t since_armed = 0;

        bool empty() const noexcept { return begin == end; }
    };

    struct connection {
        std::array<file, 2> ends;  // of the server and of the node: where each way leads
        std::array<flow, 2> flows;
        bool stalled = false;
        bool over = false;
    };

    [[noreturn]] static void fail(const char* what) {
        throw std::runtime_error(std::string("tcp_relay: ") + what + ": " + std::strerror(errno));
    }

    static sockaddr_in at_v4(std::uint16_t port) {
        sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        at.sin_port = htons(port);
        return at;
    }

    static file socket_of(int family) {
        file made(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const int on = 1;
        if (made.get() >= 0) ::setsockopt(made.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (made.get() >= 0 && family == AF_INET6) {
            ::setsockopt(made.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
        }
        return made;
    }

    template <class Address>
    static bool bind_and_listen(const file& on, const Address& at) {
        return ::bind(on.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) == 0 &&
               ::listen(on.get(), SOMAXCONN) == 0;
    }

    /// The same port on both addresses.
    void listen() {
        for (int attempt = 0; attempt < 100; ++attempt) {
            file v4 = socket_of(AF_INET);
            auto at = at_v4(0);
            if (!bind_and_listen(v4, at)) fail("listen");
            socklen_t size = sizeof(at);
            if (::getsockname(v4.get(), reinterpret_cast<sockaddr*>(&at), &size) != 0) fail("getsockname");
            port_ = ntohs(at.sin_port);
            file v6 = socket_of(AF_INET6);
            sockaddr_in6 at6{};
            at6.sin6_family = AF_INET6;
            at6.sin6_addr = in6addr_loopback;
            at6.sin6_port = at.sin_port;
            const bool both = v6.get() >= 0 && bind_and_listen(v6, at6);
            if (!both && errno == EADDRINUSE) continue;
            listeners_.push_back(std::move(v4));
            if (both) listeners_.push_back(std::move(v6));
            return;
        }
        fail("no port is free on both addresses");
    }

    template <class Change>
    void change(Change&& make) {
        {
            const std::lock_guard lock(mutex_);
            make();
        }
        changed_.notify_all();
        const std::uint64_t one = 1;
        if (::write(wake_.get(), &one, sizeof(one)) < 0) fail("write");
    }

    void arm(way direction, std::uint64_t bytes, deed then) {
        change([&] {
            limits_[direction] = limit{bytes, then};
            for (auto& each : connections_) each.flows[direction].since_armed = 0;
        });
    }

    counts count() const {
        counts out;
        out.accepted = accepted_;
        out.open = connections_.size();
        out.limits_reached = limits_reached_;
        out.passed = passed_;
        for (const auto& each : connections_) {
            out.stalled += each.stalled ? 1 : 0;
            for (std::size_t i = 0; i < 2; ++i) out.waiting[i] += each.flows[i].end - each.flows[i].begin;
        }
        return out;
    }

    // --- its thread ---------------------------------------------------------------------------------------------------

    static const file& source(const connection& of, std::size_t way) { return of.ends[1 - way]; }
    static const file& sink(const connection& of, std::size_t way) { return of.ends[way]; }

    /// What is wanted of an end; 0 keeps it out of `poll`, which would report its end again and again.
    short wanted(const connection& of, std::size_t end) const {
        if (of.stalled) return 0;
        const auto& from_it = of.flows[1 - end];
        const auto& to_it = of.flows[end];
        const bool reads = from_it.empty() && !from_it.no_more;
        const bool writes = !to_it.empty() && !held_[end];
        return static_cast<short>((reads ? POLLIN : 0) | (writes ? POLLOUT : 0));
    }

    void run() {
        std::vector<pollfd> polled;
        while (true) {
            polled.assign(1, {wake_.get(), POLLIN, 0});
            for (const auto& each : listeners_) polled.push_back({each.get(), POLLIN, 0});
            {
                const std::lock_guard lock(mutex_);
                if (stopped_) return;
                for (const auto& each : connections_) {
                    for (std::size_t end = 0; end < 2; ++end) {
                        const short events = wanted(each, end);
                        polled.push_back({events ? each.ends[end].get() : -1, events, 0});
                    }
                }
            }
            if (::poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) fail("poll");
            if (polled.front().revents) {
                std::uint64_t ignored = 0;
                if (::read(wake_.get(), &ignored, sizeof(ignored)) < 0) fail("read");
            }
            for (std::size_t i = 0; i < listeners_.size(); ++i) {
                if (polled[1 + i].revents) accept_from(listeners_[i]);
            }
            {
                const std::lock_guard lock(mutex_);
                for (auto& each : connections_) pass(each);
                connections_.remove_if([](const connection& each) { return each.over; });
            }
            changed_.notify_all();
        }
    }

    void accept_from(const file& listener) {
        connection made;
        made.ends[to_node] = file(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (made.ends[to_node].get() < 0) return;
        std::uint16_t server_port = 0;
        {
            const std::lock_guard lock(mutex_);
            ++accepted_;
            server_port = server_port_;
        }
        if (server_port == 0) return;
        made.ends[to_server] = socket_of(AF_INET);
        const auto at = at_v4(server_port);
        if (::connect(made.ends[to_server].get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0) return;
        for (const auto& each : made.ends) {
            const int on = 1;
            ::setsockopt(each.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
            ::fcntl(each.get(), F_SETFL, ::fcntl(each.get(), F_GETFL) | O_NONBLOCK);
        }
        const std::lock_guard lock(mutex_);
        connections_.push_back(std::move(made));
    }

    /// Moves what can be moved without waiting.
    void pass(connection& of) {
        for (std::size_t way = 0; way < 2 && !of.over && !of.stalled; ++way) {
            auto& f = of.flows[way];
            if (f.empty() && !f.no_more) receive(of, way);
            if (!f.empty() && !held_[way] && !of.over) send(of, way);
            if (f.empty() && f.no_more && !held_[way] && !std::exchange(f.shut, true)) {
                ::shutdown(sink(of, way).get(), SHUT_WR);
            }
        }
        if (of.flows[to_server].shut && of.flows[to_node].shut) of.over = true;
    }

    static void receive(connection& of, std::size_t way) {
        auto& f = of.flows[way];
        const auto got = ::recv(source(of, way).get(), f.buffer.data(), f.buffer.size(), 0);
        if (got < 0) {
            of.over = errno != EAGAIN && errno != EINTR;
        } else {
            f.begin = 0;
            f.end = static_cast<std::size_t>(got);
            f.no_more = got == 0;
        }
    }

    void send(connection& of, std::size_t way) {
        auto& f = of.flows[way];
        auto& armed = limits_[way];
        auto most = f.end - f.begin;
        if (armed) most = static_cast<std::size_t>(std::min<std::uint64_t>(most, armed->bytes - f.since_armed));
        const auto sent = most == 0 ? 0 : ::send(sink(of, way).get(), &f.buffer[f.begin], most, MSG_NOSIGNAL);
        if (sent < 0) {
            of.over = errno != EAGAIN && errno != EINTR;
            return;
        }
        f.begin += static_cast<std::size_t>(sent);
        f.since_armed += static_cast<std::uint64_t>(sent);
        passed_[way] += static_cast<std::uint64_t>(sent);
        if (!armed || f.since_armed < armed->bytes) return;
        (armed->then == deed::cut ? of.over : of.stalled) = true;
        armed.reset();
        ++limits_reached_;
    }

    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    std::uint16_t server_port_;
    std::uint16_t port_ = 0;
    std::vector<file> listeners_;
    std::list<connection> connections_;
    std::array<bool, 2> held_{};
    std::array<std::optional<limit>, 2> limits_;
    std::array<std::uint64_t, 2> passed_{};
    std::size_t accepted_ = 0;
    std::size_t limits_reached_ = 0;
    bool stopped_ = false;
    file wake_;
    std::thread thread_;
};

}  // namespace loopback
