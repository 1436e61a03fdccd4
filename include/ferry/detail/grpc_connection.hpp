// layer 4
// A node's connections to one server: made when they are first needed, dropped when they are of no more use, and then made
// anew, so that the server sees another connection.
#pragma once

#include <ferry/client_options.hpp>
#include <ferry/credentials.hpp>
#include <ferry/detail/executor.hpp>
#include <ferry/error.hpp>
#include <ferry/wire.hpp>

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace ferry::detail {

class server_connection {
public:
    struct channels {
        grpc::GenericStub polls;    // and feedback
        grpc::GenericStub uploads;  // over a connection of their own, so that nothing waits behind their bulk
    };

    explicit server_connection(researcher_address address)
        : address_(std::move(address)), name_(to_target(address_.host, address_.port)) {}

    /// "host:port".
    const std::string& name() const noexcept { return name_; }

    /// Throws `error` where the trust can't be used. A certificate that is still to be fetched is no error.
    void check() {
        if (!has_to_fetch(address_.trust)) get();
    }

    void drop() {
        const std::lock_guard lock(mutex_);
        channels_.reset();
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
        if (has_to_fetch(address_.trust)) {
            blocking.post("\1connect " + name_, std::move(run));
        } else {
            run();
        }
    }

private:
    std::shared_ptr<channels> get() {
        const std::lock_guard lock(mutex_);
        if (!channels_) {
            const auto credentials = channel_credentials(address_.trust, address_.host, address_.port);
            channels_ = std::make_shared<channels>(
                channels{grpc::GenericStub(channel(credentials)), grpc::GenericStub(channel(credentials))});
        }
        return channels_;
    }

    std::shared_ptr<grpc::Channel> channel(const std::shared_ptr<grpc::ChannelCredentials>& credentials) const {
        grpc::ChannelArguments args;
        args.SetMaxReceiveMessageSize(wire::max_grpc_message_bytes);
        args.SetMaxSendMessageSize(wire::max_grpc_message_bytes);
        args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a new channel is a new connection
        args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
        args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
        args.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
        args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
        return grpc::CreateCustomChannel(name_, credentials, args);
    }

    const researcher_address address_;
    const std::string name_;
    std::mutex mutex_;
    std::shared_ptr<channels> channels_;
};

}  // namespace ferry::detail
