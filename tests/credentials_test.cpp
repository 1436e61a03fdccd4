#include <ferry/credentials.hpp>

#include <ferry/researcher.grpc.pb.h>

#include "loopback.hpp"
#include "support.hpp"

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <latch>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <variant>
#include <vector>

namespace {

using namespace std::chrono_literals;
using ferry::errc;
using ferry::fetch_certificate;
using ferry::pinned_certificate;
using ferry::plain_text;
using ferry::ssl_credentials;
using ferry::trust_on_first_use;
using ferry::detail::channel_credentials;
using ferry::detail::server_credentials;
using ferry::detail::write_private_file;
using ferry_test::fails;

std::string text_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void write(const std::string& path, std::string_view text) { std::ofstream(path, std::ios::binary) << text; }

unsigned mode_of(const std::string& path) {
    struct stat about {};
    EXPECT_EQ(::stat(path.c_str(), &about), 0) << path;
    return about.st_mode & 07777U;
}

/// A server without methods of its own.
class bare_server {
public:
    explicit bare_server(const std::shared_ptr<grpc::ServerCredentials>& credentials) {
        grpc::ServerBuilder builder;
        int bound = 0;
        builder.AddListeningPort("127.0.0.1:0", credentials, &bound);
        builder.RegisterService(&service_);
        server_ = builder.BuildAndStart();
        port_ = static_cast<std::uint16_t>(bound);
    }
    explicit bare_server(const loopback::certificate& cert)
        : bare_server(server_credentials(ssl_credentials(cert.key_file, cert.cert_file))) {}
    bare_server(const bare_server&) = delete;
    bare_server& operator=(const bare_server&) = delete;
    ~bare_server() { server_->Shutdown(std::chrono::system_clock::now()); }

    std::uint16_t port() const { return port_; }

private:
    researcher::ResearcherService::Service service_;
    std::unique_ptr<grpc::Server> server_;
    std::uint16_t port_ = 0;
};

/// Keeps a port to itself at which nobody listens.
class closed_port {
public:
    closed_port() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof(at);
        EXPECT_EQ(::bind(socket_, reinterpret_cast<const sockaddr*>(&at), size), 0);
        EXPECT_EQ(::getsockname(socket_, reinterpret_cast<sockaddr*>(&at), &size), 0);
        port_ = ntohs(at.sin_port);
    }
    closed_port(const closed_port&) = delete;
    closed_port& operator=(const closed_port&) = delete;
    ~closed_port() { ::close(socket_); }

    std::uint16_t port() const { return port_; }

private:
    int socket_;
    std::uint16_t port_ = 0;
};

/// What a call comes to: UNIMPLEMENTED from a bare server, UNAVAILABLE where the handshake fails.
grpc::StatusCode call(std::uint16_t port, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
                      const std::string& host = "localhost") {
    const auto stub =
        researcher::ResearcherService::NewStub(grpc::CreateChannel(ferry::to_target(host, port), credentials));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + loopback::patience);
    researcher::Empty nothing;
    return stub->Feedback(&context, researcher::FeedbackMessage(), &nothing).error_code();
}

constexpr auto connected = grpc::StatusCode::UNIMPLEMENTED;
constexpr auto not_connected = grpc::StatusCode::UNAVAILABLE;

struct a_folder : testing::Test {
    std::string file(const std::string& name) const { return folder.file(name); }

    loopback::temporary_folder folder;
};

struct a_tls_server : a_folder {
    loopback::certificate cert{folder};
    loopback::certificate other{folder, "other"};
    bare_server server{cert};
};

using credentials_files = a_folder;
using credentials_private_file = a_folder;
using credentials_fetch = a_tls_server;
using credentials_trust = a_tls_server;

// --- files -------------------------------------------------------------------------------------------------------------------

TEST_F(credentials_files, are_read_whole) {
    write(file("key"), "-----BEGIN PRIVATE KEY-----\nkey\n");
    write(file("cert"), "a comment before\n-----BEGIN CERTIFICATE-----\ncert\n");
    const ssl_credentials read(file("key"), file("cert"));
    EXPECT_EQ(read.private_key(), "-----BEGIN PRIVATE KEY-----\nkey\n");
    EXPECT_EQ(read.certificate(), "a comment before\n-----BEGIN CERTIFICATE-----\ncert\n");
}

TEST_F(credentials_files, that_are_missing_are_named) {
    write(file("pem"), "-----BEGIN PRIVATE KEY-----\n");
    EXPECT_TRUE(fails([&] { ssl_credentials(file("none"), file("pem")); }, errc::bad_credentials,
                      "the private key " + file("none") + " can't be read: No such file or directory"));
    EXPECT_TRUE(fails([&] { ssl_credentials(file("pem"), file("none")); }, errc::bad_credentials,
                      "the certificate " + file("none") + " can't be read: No such file or directory"));
    EXPECT_TRUE(fails([&] { channel_credentials(pinned_certificate{file("none")}, "localhost", 1); },
                      errc::bad_credentials,
                      "the server's certificate " + file("none") + " can't be read: No such file or directory"));
}

TEST_F(credentials_files, that_are_folders_are_named) {
    EXPECT_TRUE(fails([&] { ssl_credentials(file(""), file("")); }, errc::bad_credentials,
                      "the private key " + file("") + " can't be read: Is a directory"));
}

TEST_F(credentials_files, that_may_not_be_read_are_named) {
    write(file("pem"), "-----BEGIN PRIVATE KEY-----\n");
    ASSERT_EQ(::chmod(file("pem").c_str(), 0), 0);
    ASSERT_EQ(::chmod(file("").c_str(), 0755), 0);
    const auto me = ::geteuid();
    if (me == 0) {
        ASSERT_EQ(::seteuid(65534), 0);  // root may read everything
    }
    EXPECT_TRUE(fails([&] { ssl_credentials(file("pem"), file("pem")); }, errc::bad_credentials,
                      "the private key " + file("pem") + " can't be read: Permission denied"));
    if (me == 0) {
        ASSERT_EQ(::seteuid(0), 0);
    }
}

TEST_F(credentials_files, that_hold_something_else_are_named) {
    write(file("key"), "-----BEGIN EC PRIVATE KEY-----\n");
    write(file("cert"), "-----BEGIN CERTIFICATE-----\n");
    EXPECT_NO_THROW(ssl_credentials(file("key"), file("cert")));
    EXPECT_TRUE(fails([&] { ssl_credentials(file("cert"), file("cert")); }, errc::bad_credentials,
                      "the private key " + file("cert") + " holds no PRIVATE KEY"));
    EXPECT_TRUE(fails([&] { ssl_credentials(file("key"), file("key")); }, errc::bad_credentials,
                      "the certificate " + file("key") + " holds no CERTIFICATE"));
    EXPECT_TRUE(fails([&] { channel_credentials(pinned_certificate{file("key")}, "localhost", 1); },
                      errc::bad_credentials, "the server's certificate " + file("key") + " holds no CERTIFICATE"));
}

TEST_F(credentials_files, that_are_not_pem_are_named) {
    write(file("pem"), "-----BEGIN PRIVATE KEY-----\n");
    for (const std::string_view text :
         {std::string_view(""), std::string_view("text"), std::string_view("\x30\x82\0\x05", 4)}) {
        write(file("no pem"), text);
        EXPECT_TRUE(fails([&] { ssl_credentials(file("no pem"), file("pem")); }, errc::bad_credentials,
                          "the private key " + file("no pem") + " is not PEM text (no -----BEGIN line)"));
        EXPECT_TRUE(fails([&] { ssl_credentials(file("pem"), file("no pem")); }, errc::bad_credentials,
                          "the certificate " + file("no pem") + " is not PEM text"));
        EXPECT_TRUE(fails([&] { channel_credentials(pinned_certificate{file("no pem")}, "localhost", 1); },
                          errc::bad_credentials, "the server's certificate " + file("no pem") + " is not PEM text"));
    }
}

// --- choosing ------------------------------------------------------------------------------------------------------------------

TEST(credentials_choice, must_be_made) {
    EXPECT_TRUE(fails([] { server_credentials({}); }, errc::invalid_argument, "ferry::plain_text{} to go without TLS"));
    EXPECT_TRUE(fails([] { channel_credentials({}, "localhost", 1); }, errc::invalid_argument,
                      "ferry::pinned_certificate{file}"));
}

TEST(credentials_choice, may_be_plain_text) {
    const bare_server server(server_credentials(plain_text{}));
    EXPECT_EQ(call(server.port(), channel_credentials(plain_text{}, "localhost", server.port())), connected);
}

TEST(credentials_target, has_brackets_around_ipv6) {
    EXPECT_EQ(ferry::to_target("localhost", 50051), "localhost:50051");
    EXPECT_EQ(ferry::to_target("127.0.0.1", 1), "127.0.0.1:1");
    EXPECT_EQ(ferry::to_target("::1", 65535), "[::1]:65535");
    EXPECT_EQ(ferry::to_target("[::1]", 50051), "[::1]:50051");
    EXPECT_EQ(ferry::to_target("fe80::1%eth0", 0), "[fe80::1%eth0]:0");
    EXPECT_EQ(ferry::to_target("", 5), ":5");
}

// --- fetching ------------------------------------------------------------------------------------------------------------------

TEST_F(credentials_fetch, gets_what_the_server_shows) {
    for (const auto* host : {"localhost", "127.0.0.1"}) {
        EXPECT_EQ(fetch_certificate(host, server.port()), text_of(cert.cert_file));
    }
}

TEST_F(credentials_fetch, gets_a_certificate_of_another_name) {
    const bare_server elsewhere(other);
    EXPECT_EQ(fetch_certificate("127.0.0.1", elsewhere.port()), text_of(other.cert_file));
    EXPECT_EQ(fetch_certificate("127.0.0.1", server.port()), text_of(cert.cert_file));
}

TEST_F(credentials_fetch, leaves_the_server_unharmed) {
    for (int i = 0; i < 5; ++i) fetch_certificate("localhost", server.port());
    EXPECT_EQ(call(server.port(), channel_credentials(pinned_certificate{cert.cert_file}, "localhost", 0)), connected);
}

TEST_F(credentials_fetch, from_several_threads_concurrent) {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 3; ++i) {
        threads.emplace_back(
            [&] { EXPECT_EQ(fetch_certificate("localhost", server.port()), text_of(cert.cert_file)); });
    }
}

TEST(credentials_no_fetch, fails_where_nobody_listens) {
    const closed_port nobody;
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_TRUE(fails([&] { fetch_certificate("127.0.0.1", nobody.port(), 200ms); }, errc::connection_failed,
                      "no TLS server answered at 127.0.0.1:" + std::to_string(nobody.port())));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 30s);
}

TEST(credentials_no_fetch, fails_where_plain_text_is_spoken) {
    const bare_server plain(server_credentials(plain_text{}));
    EXPECT_TRUE(fails([&] { fetch_certificate("127.0.0.1", plain.port(), 200ms); }, errc::connection_failed,
                      "is it running, and not plain text?"));
    EXPECT_EQ(call(plain.port(), grpc::InsecureChannelCredentials()), connected) << "and does no harm";
}

// --- trust -------------------------------------------------------------------------------------------------------------------

TEST_F(credentials_trust, a_pinned_certificate_lets_its_server_in) {
    for (const auto* host : {"localhost", "127.0.0.1"}) {
        EXPECT_EQ(
            call(server.port(), channel_credentials(pinned_certificate{cert.cert_file}, host, server.port()), host),
            connected);
    }
}

TEST_F(credentials_trust, a_pinned_certificate_lets_no_other_in) {
    EXPECT_EQ(call(server.port(), channel_credentials(pinned_certificate{other.cert_file}, "localhost", server.port())),
              not_connected);
}

TEST_F(credentials_trust, plain_text_does_not_reach_a_tls_server) {
    EXPECT_EQ(call(server.port(), channel_credentials(plain_text{}, "localhost", server.port())), not_connected);
}

TEST_F(credentials_trust, a_tls_client_does_not_speak_plain_text) {
    const bare_server plain(server_credentials(plain_text{}));
    EXPECT_EQ(call(plain.port(), channel_credentials(pinned_certificate{cert.cert_file}, "localhost", plain.port())),
              not_connected);
}

TEST_F(credentials_trust, on_first_use_writes_the_certificate_and_then_refuses_another) {
    const trust_on_first_use trust{file("known server")};
    const auto first = channel_credentials(trust, "localhost", server.port());
    EXPECT_EQ(text_of(trust.file), text_of(cert.cert_file));
    EXPECT_EQ(mode_of(trust.file), 0600U);
    EXPECT_EQ(call(server.port(), first), connected);
    EXPECT_EQ(call(server.port(), channel_credentials(trust, "localhost", server.port())), connected);

    const bare_server elsewhere(other);
    EXPECT_EQ(call(elsewhere.port(), channel_credentials(trust, "localhost", elsewhere.port())), not_connected);
    EXPECT_EQ(text_of(trust.file), text_of(cert.cert_file)) << "what is trusted does not change";
}

TEST_F(credentials_trust, on_first_use_does_not_fetch_what_is_there) {
    const closed_port nobody;
    EXPECT_NE(channel_credentials(trust_on_first_use{cert.cert_file}, "localhost", nobody.port()), nullptr);
}

TEST_F(credentials_trust, on_first_use_does_not_write_over_what_is_no_certificate) {
    write(file("notes"), "something else");
    EXPECT_TRUE(fails([&] { channel_credentials(trust_on_first_use{file("notes")}, "localhost", server.port()); },
                      errc::bad_credentials, "is not PEM text"));
    EXPECT_EQ(text_of(file("notes")), "something else");
}

TEST_F(credentials_trust, on_first_use_says_where_it_cannot_write) {
    const auto path = file("no folder/known");
    EXPECT_TRUE(fails([&] { channel_credentials(trust_on_first_use{path}, "localhost", server.port()); },
                      errc::bad_credentials,
                      "the certificate can't be written to " + path + ": No such file or directory"));
}

TEST_F(credentials_trust, on_first_use_by_several_clients_at_once_concurrent) {
    const trust_on_first_use trust{file("known server")};
    std::latch together(3);
    {
        std::vector<std::jthread> clients;
        for (int i = 0; i < 3; ++i) {
            clients.emplace_back([&] {
                together.arrive_and_wait();
                EXPECT_NO_THROW(channel_credentials(trust, "localhost", server.port()));
            });
        }
    }
    EXPECT_EQ(text_of(trust.file), text_of(cert.cert_file));
}

// --- the file that trust is written to -------------------------------------------------------------------------------------------

TEST_F(credentials_private_file, is_its_owners_alone) {
    const auto before = ::umask(0);
    write_private_file(file("private"), "text");
    ::umask(before);
    EXPECT_EQ(text_of(file("private")), "text");
    EXPECT_EQ(mode_of(file("private")), 0600U);
}

TEST_F(credentials_private_file, leaves_nothing_behind_where_it_fails) {
    std::filesystem::create_directory(file("folder"));
    write(file("folder/full"), "");
    EXPECT_TRUE(fails([&] { write_private_file(file("folder"), "text"); }, errc::bad_credentials,
                      "the certificate can't be written to " + file("folder")));
    int entries = 0;
    for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator(file(""))) ++entries;
    EXPECT_EQ(entries, 1);
}

TEST_F(credentials_private_file, is_whole_whoever_writes_it_concurrent) {
    constexpr int threads = 4;
    for (int round = 0; round < 20; ++round) {
        std::latch together(threads);
        {
            std::vector<std::jthread> writers;
            for (int i = 0; i < threads; ++i) {
                writers.emplace_back([&, i] {
                    const std::string text(static_cast<std::size_t>(i + 1) * 10'000, static_cast<char>('a' + i));
                    together.arrive_and_wait();
                    EXPECT_NO_THROW(write_private_file(file("shared"), text));
                });
            }
        }
        const auto text = text_of(file("shared"));
        ASSERT_FALSE(text.empty());
        EXPECT_TRUE(text == std::string(static_cast<std::size_t>(text.front() - 'a' + 1) * 10'000, text.front()));
    }
    int entries = 0;
    for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator(file(""))) ++entries;
    EXPECT_EQ(entries, 1);
}

}  // namespace
