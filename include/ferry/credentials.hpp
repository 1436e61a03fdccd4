// Who may read along and who is at the other end: TLS for servers and nodes. Plain text and trust on first use exist, and
// must be asked for by name.
#pragma once

#include <ferry/detail/wake_ups.hpp>
#include <ferry/error.hpp>

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <ios>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace ferry {

namespace detail {

/// `label` is how the PEM block must be called, in whole or at its end.
inline std::string read_pem(const std::string& path, const char* what, const std::string& label) {
    std::string text, problem;
    try {
        std::ifstream in(path, std::ios::binary);
        if (!in) problem = std::strerror(errno);
        text.assign(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    } catch (const std::ios_base::failure& e) {  // a folder can be opened, but not read
        problem = e.code().message();
    }
    if (!problem.empty())
        throw error(errc::bad_credentials, std::string("the ") + what + " " + path + " can't be read: " + problem);
    const auto begin = text.find("-----BEGIN ");
    if (begin == std::string::npos) {
        throw error(errc::bad_credentials,
                    std::string("the ") + what + " " + path + " is not PEM text (no -----BEGIN line)");
    }
    if (text.find(label + "-----", begin) == std::string::npos) {
        throw error(errc::bad_credentials, std::string("the ") + what + " " + path + " holds no " + label);
    }
    return text;
}

}  // namespace detail

/// No TLS: anyone on the way can read and change everything. For tests and for networks that are safe by other means.
struct plain_text {};

/// A server's private key and certificate.
class ssl_credentials {
public:
    /// Reads both PEM files. Throws `error{bad_credentials}` where one can't be read or isn't PEM.
    ssl_credentials(const std::string& key, const std::string& cert)
        : private_key_(detail::read_pem(key, "private key", "PRIVATE KEY")),
          certificate_(detail::read_pem(cert, "certificate", "CERTIFICATE")) {}

    /// PEM text.
    const std::string& private_key() const noexcept { return private_key_; }
    /// PEM text.
    const std::string& certificate() const noexcept { return certificate_; }

private:
    std::string private_key_;
    std::string certificate_;
};

/// How a node shows who it is, to a server that wants to know: both go over TLS only.
struct client_identity {
    std::optional<ssl_credentials> certificate{};  ///< signed by whom the server trusts, in the name of the node's id
    std::string token{};                           ///< goes along with each call
};

/// How a server is protected; nothing chosen is an error at `start`.
using server_security = std::variant<std::monostate, ssl_credentials, plain_text>;

/// The server must show this very certificate, or one that this one signed. The file is read when the client starts.
struct pinned_certificate {
    std::string file;
};

/// Whatever certificate the server shows at the first connection is written to the file, and pinned from then on. Someone
/// in the middle of that first connection is not noticed.
struct trust_on_first_use {
    std::string file;
};

/// How a node knows its server; nothing chosen is an error at `start`.
using server_trust = std::variant<std::monostate, pinned_certificate, trust_on_first_use, plain_text>;

namespace detail {

/// Notes the certificate of whoever answers, and lets no connection come of it.
class certificate_catcher final : public grpc::experimental::ExternalCertificateVerifier {
public:
    struct caught {
        std::mutex mutex;
        std::string pem;
    };

    explicit certificate_catcher(std::shared_ptr<caught> to) : to_(std::move(to)) {}

    bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest* request, std::function<void(grpc::Status)>,
                grpc::Status* sync_status) override {
        const auto pem = request->peer_cert();
        const std::lock_guard lock(to_->mutex);
        to_->pem.assign(pem.data(), pem.size());
        *sync_status = grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "only the certificate was wanted");
        return true;
    }
    void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest*) override {}

private:
    std::shared_ptr<caught> to_;
};

}  // namespace detail

namespace detail {

/// Throws `error{invalid_argument}` for what is neither a name nor an address; `option` says whose.
inline void check_host(const std::string& option, const std::string& host) {
    const auto bare =
        host.size() > 1 && host.front() == '[' && host.back() == ']' ? host.substr(1, host.size() - 2) : host;
    in6_addr address;
    const bool is_ipv6 = ::inet_pton(AF_INET6, bare.substr(0, bare.find('%')).c_str(), &address) == 1;
    if (!host.empty() && (is_ipv6 || host.find_first_of(":/ ") == std::string::npos)) return;
    throw error(errc::invalid_argument,
                option + " is \"" + host + "\": give a name or an address, without port or scheme");
}

}  // namespace detail

/// "host:port", with brackets around an IPv6 address.
inline std::string to_target(const std::string& host, std::uint16_t port) {
    const bool bare_ipv6 = host.find(':') != std::string::npos && host.front() != '[';
    return (bare_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

/// The certificate that a server shows, as PEM text. Nothing vouches for it: trusting it is a decision of the caller's.
/// Blocks for up to `timeout`. Throws `error{connection_failed}` where no server answers with one.
inline std::string fetch_certificate(const std::string& host, std::uint16_t port,
                                     std::chrono::milliseconds timeout = std::chrono::seconds(10)) {
    const auto caught = std::make_shared<detail::certificate_catcher::caught>();
    grpc::experimental::TlsChannelCredentialsOptions options;
    options.set_verify_server_certs(false);
    options.set_check_call_host(false);
    options.set_certificate_verifier(
        grpc::experimental::ExternalCertificateVerifier::Create<detail::certificate_catcher>(caught));
    const auto channel = grpc::CreateChannel(to_target(host, port), grpc::experimental::TlsCredentials(options));
    const auto deadline = detail::later(std::chrono::system_clock::now(), timeout);
    // Waiting for the channel is what moves its handshake: a process without other calls has no thread that would.
    while (channel->WaitForStateChange(channel->GetState(true), deadline)) {
        const std::lock_guard lock(caught->mutex);
        if (!caught->pem.empty()) return caught->pem;
    }
    throw error(errc::connection_failed,
                "no TLS server answered at " + to_target(host, port) + ": is it running, and not plain text?");
}

namespace detail {

/// `client_roots` names the PEM file of those who must have signed a client's certificate; empty: clients need none.
inline std::shared_ptr<grpc::ServerCredentials> server_credentials(const server_security& chosen,
                                                                   const std::string& client_roots = {}) {
    if (std::holds_alternative<plain_text>(chosen)) {
        if (client_roots.empty()) return grpc::InsecureServerCredentials();
        throw error(errc::invalid_argument, "options.client_roots needs TLS, and options.ssl is plain_text");
    }
    if (const auto* ssl = std::get_if<ssl_credentials>(&chosen)) {
        grpc::SslServerCredentialsOptions options(client_roots.empty()
                                                      ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                      : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
        if (!client_roots.empty()) options.pem_root_certs = read_pem(client_roots, "clients' roots", "CERTIFICATE");
        options.pem_key_cert_pairs.push_back({ssl->private_key(), ssl->certificate()});
        return grpc::SslServerCredentials(options);
    }
    throw error(
        errc::invalid_argument,
        "options.ssl is not set: give ferry::ssl_credentials{key, cert}, or ferry::plain_text{} to go without TLS");
}

/// Writes a file that only its owner may read, whole or not at all, also where several write it at the same time.
inline void write_private_file(const std::string& path, const std::string& text) {
    std::string half = path + ".XXXXXX";
    const int fd = ::mkostemp(half.data(), O_CLOEXEC);  // makes it with mode 0600
    bool written = fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    written = written && std::rename(half.c_str(), path.c_str()) == 0;
    const int problem = errno;
    if (fd >= 0) ::close(fd);
    if (written) return;
    if (fd >= 0) ::unlink(half.c_str());
    throw error(errc::bad_credentials, "the certificate can't be written to " + path + ": " + std::strerror(problem));
}

inline std::shared_ptr<grpc::ChannelCredentials> pin(const std::string& file, const client_identity& own) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = read_pem(file, "server's certificate", "CERTIFICATE");
    if (own.certificate) {
        options.pem_private_key = own.certificate->private_key();
        options.pem_cert_chain = own.certificate->certificate();
    }
    auto channel = grpc::SslCredentials(options);
    if (own.token.empty()) return channel;
    return grpc::CompositeChannelCredentials(channel, grpc::AccessTokenCredentials(own.token));
}

/// True where the first use is still to come: then `channel_credentials` blocks.
inline bool has_to_fetch(const server_trust& chosen) {
    const auto* first = std::get_if<trust_on_first_use>(&chosen);
    return first && ::access(first->file.c_str(), F_OK) != 0;
}

/// Blocks where it has to fetch.
inline std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const server_trust& chosen,
                                                                     const std::string& host, std::uint16_t port,
                                                                     const client_identity& own = {}) {
    if (std::holds_alternative<plain_text>(chosen)) {
        if (!own.certificate && own.token.empty()) return grpc::InsecureChannelCredentials();
        throw error(errc::invalid_argument, "options.identity needs TLS, and the trust of " + to_target(host, port) +
                                                " is plain_text: its token would be there to read");
    }
    if (const auto* pinned = std::get_if<pinned_certificate>(&chosen)) return pin(pinned->file, own);
    if (const auto* first = std::get_if<trust_on_first_use>(&chosen)) {
        if (has_to_fetch(chosen)) write_private_file(first->file, fetch_certificate(host, port));
        return pin(first->file, own);
    }
    throw error(errc::invalid_argument,
                "the server's trust is not set: give ferry::pinned_certificate{file}, "
                "ferry::trust_on_first_use{file}, or ferry::plain_text{} to go without TLS");
}

}  // namespace detail

}  // namespace ferry
