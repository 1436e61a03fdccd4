// layer 4
// A node's connections to one server: made when they are first needed, dropped when they are of no more use, and then made
// anew, so that the server sees another connection; after a failure to the next of its addresses.
#pragma once

#include <ferry/client_options.hpp>
#include <ferry/credentials.hpp>
#include <ferry/detail/executor.hpp>
#include <ferry/error.hpp>
#include <ferry/wire.hpp>

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace ferry::detail {

template <class Stub>
class basic_server_connection {
public:
    struct channels {
        Stub polls;    // and feedback
        Stub uploads;  // over a connection of their own, so that nothing waits behind their bulk
    };

    basic_server_connection(researcher_address address, client_identity own, keepalive_options keepalive)
        : places_{{address.host, address.port}},
          trust_(std::move(address.trust)),
          own_(std::move(own)),
          keepalive_(keepalive),
          name_(to_target(address.host, address.port)) {
        places_.insert(places_.end(), address.also_at.begin(), address.also_at.end());
    }

    /// "host:port", of the first address.
    const std::string& name() const noexcept { return name_; }

    /// Throws `error` where the trust can't be used. A certificate that is still to be fetched is no error.
    void check() {
        if (!has_to_fetch(trust_)) get();
    }

    void drop(bool go_elsewhere) {
        const std::lock_guard lock(mutex_);
        channels_.reset();
        if (go_elsewhere) at_ = (at_ + 1) % places_.size();
    }

    /// Calls `use(channels)`, or `fail(text)` where there can't be any. At once, but for a certificate that has to be fetched
    /// first: that blocks, so it is done by the executor.
    template <class Use, class Fail>
    void with_channels(executor& blocking, std::shared_ptr<void> owner, Use use, Fail fail) {
        auto run = [this, owner = std::move(owner), use = std::move(use), fail = std::move(fail)] {
            std::shared_ptr<channels> over;
            try {
                over = get();
            } catch (const error& problem) {
                return fail(std::string(problem.what()));
            }
            use(*over);
        };
        if (has_to_fetch(trust_)) {
            blocking.post("\1connect " + name_, std::move(run));
        } else {
            run();
        }
    }

private:
    std::shared_ptr<channels> get() {
        std::size_t at = 0;
        {
            const std::lock_guard lock(mutex_);
            if (channels_) return channels_;
            at = at_;
        }
        const auto& [host, port] = places_[at];
        const auto target = to_target(host, port);
        const auto credentials = channel_credentials(trust_, host, port, own_);  // which may take its time
        const std::lock_guard lock(mutex_);
        if (channels_) return channels_;
        auto made = std::make_shared<channels>(
            channels{Stub(channel(target, credentials)), Stub(channel(target, credentials))});
        if (at == at_) channels_ = made;
        return made;
    }

    std::shared_ptr<grpc::Channel> channel(const std::string& target,
                                           const std::shared_ptr<grpc::ChannelCredentials>& credentials) const {
        grpc::ChannelArguments args;
        args.SetMaxReceiveMessageSize(wire::max_grpc_message_bytes);
        args.SetMaxSendMessageSize(wire::max_grpc_message_bytes);
        args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a new channel is a new connection
        args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, to_int(keepalive_.every));
        args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, to_int(keepalive_.answer_within));
        args.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
        args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
        // For one address, before the next is tried. A connection takes four rounds: TCP, TLS 1.2 and HTTP/2's settings.
        const auto round = std::min<std::chrono::milliseconds>(keepalive_.answer_within, std::chrono::seconds(5));
        args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, to_int(4 * round));
        return grpc::CreateCustomChannel(target, credentials, args);
    }

    std::vector<host_and_port> places_;
    const server_trust trust_;
    const client_identity own_;
    const keepalive_options keepalive_;
    const std::string name_;
    std::mutex mutex_;
    std::size_t at_ = 0;  // of the places
    std::shared_ptr<channels> channels_;
};

using server_connection = basic_server_connection<grpc::GenericStub>;

}  // namespace ferry::detail
