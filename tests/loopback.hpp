// A server and nodes in one process, over loopback, for tests: a folder of the test's own, certificates made anew, and
// options that suit a test.
#pragma once

#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>

#include "instantiated.hpp"
#include "temporary_folder.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace loopback {

using namespace std::chrono_literals;

/// A test gives up waiting for something that should happen at once.
inline constexpr auto patience = 60s;

using ferry_test::temporary_folder;

/// A fresh self-signed certificate for localhost, as `<name>.key` and `<name>.pem` in the folder.
class certificate {
public:
    explicit certificate(const temporary_folder& in, const std::string& name = "server")
        : key_file(in.file(name + ".key")), cert_file(in.file(name + ".pem")) {
        const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
        const std::unique_ptr<X509, decltype(&X509_free)> cert(X509_new(), X509_free);
        X509_set_version(cert.get(), 2);
        ASN1_INTEGER_set(X509_get_serialNumber(cert.get()), 1);
        X509_gmtime_adj(X509_getm_notBefore(cert.get()), -60);
        X509_gmtime_adj(X509_getm_notAfter(cert.get()), 24L * 3600);
        X509_set_pubkey(cert.get(), key.get());
        auto* subject = X509_get_subject_name(cert.get());
        add(subject, "O", "a-researcher");
        add(subject, "CN", "localhost");
        X509_set_issuer_name(cert.get(), subject);
        const std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> names(
            X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1,IP:::1"),
            X509_EXTENSION_free);
        X509_add_ext(cert.get(), names.get(), -1);
        X509_sign(cert.get(), key.get(), EVP_sha256());
        write(key_file, [&](std::FILE* to) {
            return PEM_write_PrivateKey(to, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
        });
        write(cert_file, [&](std::FILE* to) { return PEM_write_X509(to, cert.get()); });
    }

    std::string key_file;
    std::string cert_file;

private:
    static void add(X509_NAME* to, const char* field, const char* value) {
        X509_NAME_add_entry_by_txt(to, field, MBSTRING_ASC, reinterpret_cast<const unsigned char*>(value), -1, -1, 0);
    }

    template <class Write>
    static void write(const std::string& path, Write&& put) {
        const std::unique_ptr<std::FILE, decltype(&std::fclose)> to(std::fopen(path.c_str(), "wb"), std::fclose);
        if (!to || put(to.get()) != 1) throw std::runtime_error("can't write " + path);
    }
};

/// The code of the error that a call throws, or ok.
inline ferry::errc thrown_by(const std::function<void()>& call) {
    try {
        call();
    } catch (const ferry::error& e) {
        return e.code();
    }
    return ferry::errc::ok;
}

/// On a free port, without waiting for a node, and quiet.
inline ferry::server_options server_options(ferry::server_security security = ferry::plain_text{}) {
    ferry::server_options options;
    options.port = 0;
    options.ssl = std::move(security);
    options.wait_for_first_node = false;
    options.log = [](ferry::log_level, const std::string&) {};
    return options;
}

inline ferry::client_options client_options(const std::string& id, std::uint16_t port,
                                            ferry::server_trust trust = ferry::plain_text{}) {
    ferry::client_options options;
    options.node_id = id;
    options.researchers = {{"localhost", port, std::move(trust)}};
    options.log = [](ferry::log_level, const std::string&) {};
    options.limits.reconnect = {20ms, 2, 200ms};  // a test's server comes back soon
    options.limits.idle_limit = 10min;            // what stands still is a failure, and no retry hides it
    return options;
}

/// A port that nobody listens on. The system gives it only to who asks for it by its number, for as long as this lives.
class reserved_port {
public:
    reserved_port() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        const int on = 1;
        sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof at;
        auto* const address = reinterpret_cast<sockaddr*>(&at);
        if (socket_ < 0 || ::setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
            ::bind(socket_, address, size) != 0 || ::getsockname(socket_, address, &size) != 0) {
            throw std::runtime_error("no port is to be had");
        }
        number_ = ntohs(at.sin_port);
    }
    reserved_port(const reserved_port&) = delete;
    reserved_port& operator=(const reserved_port&) = delete;
    ~reserved_port() { ::close(socket_); }

    std::uint16_t number() const noexcept { return number_; }

private:
    int socket_;
    std::uint16_t number_ = 0;
};

/// The server that `make` makes, started. Where its port was just left, others may have it for a moment.
template <class Make>
auto started(Make&& make) {
    const auto until = std::chrono::steady_clock::now() + patience;
    while (true) {
        auto server = make();
        try {
            server->start();
            return server;
        } catch (const ferry::error& e) {
            if (e.code() != ferry::errc::bind_failed || std::chrono::steady_clock::now() > until) throw;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
}

/// Replies with what it got.
inline void echo(const ferry::task& task) { task.reply(task.message()); }

/// `size` bytes that differ from place to place.
inline ferry::bytes some_bytes(std::size_t size, std::uint64_t seed = 1) {
    std::vector<std::uint64_t> words(size / 8 + 1);
    for (auto& word : words) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        word = seed;
    }
    return ferry::bytes::own(std::move(words)).slice(0, size);
}

}  // namespace loopback
