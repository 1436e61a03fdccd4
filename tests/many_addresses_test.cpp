// A host name with several addresses, some of which do not answer. The program brings a `getaddrinfo` of its own, which
// gRPC's native resolver finds in place of the system's, so that there is such a name without any name server.
#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>

#include "loopback.hpp"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

std::atomic<int> lookups = 0;

/// What the system's own says of each address, joined to one list.
int resolve(const std::vector<const char*>& addresses, const char* service, const addrinfo* hints, addrinfo** out) {
    using function = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
    static const auto of_the_system = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "getaddrinfo"));
    addrinfo* all = nullptr;
    addrinfo** end = &all;
    for (const auto* each : addresses) {
        if (const int problem = of_the_system(each, service, hints, end)) {
            if (all) ::freeaddrinfo(all);
            return problem;
        }
        while (*end) end = &(*end)->ai_next;
    }
    *out = all;
    return 0;
}

}  // namespace

extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** out) {
    const std::string_view name(node ? node : "");
    if (name.find(".test") != std::string_view::npos) ++lookups;
    if (name == "several.test") return resolve({"127.0.0.2", "127.0.0.3", "127.0.0.1"}, service, hints, out);
    if (name == "refused.test") return resolve({"127.0.0.2", "127.0.0.3"}, service, hints, out);
    return resolve({node}, service, hints, out);
}

namespace {

using namespace loopback;

/// Before anything of gRPC's starts.
[[maybe_unused]] const int native = ::setenv("GRPC_DNS_RESOLVER", "native", 1);

/// A port at which each of these addresses takes connections and says nothing; the system keeps them waiting for ever.
class mute_listeners {
public:
    explicit mute_listeners(const std::vector<std::string>& addresses, std::uint16_t port) {
        for (const auto& each : addresses) {
            const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            sockaddr_in at{};
            at.sin_family = AF_INET;
            at.sin_port = htons(port);
            ::inet_pton(AF_INET, each.c_str(), &at.sin_addr);
            EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&at), sizeof(at)), 0);
            EXPECT_EQ(::listen(fd, SOMAXCONN), 0);
            fds_.push_back(fd);
        }
    }
    mute_listeners(const mute_listeners&) = delete;
    mute_listeners& operator=(const mute_listeners&) = delete;
    ~mute_listeners() {
        for (const int each : fds_) ::close(each);
    }

private:
    std::vector<int> fds_;
};

ferry::server_options on_one_address() {
    auto options = server_options();
    options.host = "127.0.0.1";
    return options;
}

ferry::client_options dialling(const std::string& name, std::uint16_t port) {
    auto options = client_options("node", port);
    options.researchers.front().host = name;
    return options;
}

TEST(many_addresses, a_node_passes_by_those_that_refuse_and_finds_its_server_again) {
    auto options = on_one_address();
    auto server = std::make_unique<ferry::grpc_server>(options);
    server->start();
    options.port = server->port();
    ferry::grpc_client node(dialling("several.test", options.port), echo);
    node.start();
    ASSERT_TRUE(server->wait_for_nodes(1, patience));
    EXPECT_TRUE(server->request({{"x", 1}}, "node").get());
    const int before = lookups;
    EXPECT_GT(before, 0);
    server->stop(0ms);
    server.reset();
    const auto again = started([&] { return std::make_unique<ferry::grpc_server>(options); });
    ASSERT_TRUE(again->wait_for_nodes(1, patience));
    EXPECT_TRUE(again->request({{"x", 2}}, "node").get());
    EXPECT_GT(lookups, before) << "a name is looked up again, so that a server may move";
}

TEST(many_addresses, a_node_goes_on_to_the_next_name_of_its_list_where_none_answers) {
    ferry::grpc_server server(on_one_address());
    server.start();
    auto dial = dialling("refused.test", server.port());
    dial.researchers.front().also_at = {{"several.test", server.port()}};
    ferry::grpc_client node(dial, echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    EXPECT_TRUE(server.request({{"x", 1}}, "node").get());
}

TEST(many_addresses, a_node_passes_by_one_that_takes_connections_and_is_silent) {
    ferry::grpc_server server(on_one_address());
    server.start();
    const mute_listeners mute({"127.0.0.2"}, server.port());
    auto dial = dialling("several.test", server.port());
    dial.keepalive.answer_within = 200ms;
    const auto begun = std::chrono::steady_clock::now();
    ferry::grpc_client node(dial, echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    EXPECT_TRUE(server.request({{"x", 1}}, "node").get());
    EXPECT_LT(std::chrono::steady_clock::now() - begun, 20s) << "what gRPC gives each address of itself, twice";
}

}  // namespace
