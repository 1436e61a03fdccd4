// layer 4
// Keeps gRPC's callback queue, with its threads, for as long as the process lives. gRPC 1.51 takes it down with the last
// channel or server that uses it, and corrupts memory where that one goes away on one of the queue's own threads: the
// thread can't join itself, and goes on with the queue that it has just deleted. A call's end is on such a thread, and a
// call holds its channel.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>
#include <grpcpp/support/status.h>

#include <future>
#include <memory>

namespace ferry::detail {

/// Cheap after the first time. From any thread but gRPC's.
template <class Stub = grpc::GenericStub>
void keep_callback_queue() {
    struct user {
        // Without credentials gRPC makes a channel that leads nowhere; a call over it ends at once, and the channel keeps
        // the queue from then on.
        Stub stub{grpc::CreateChannel("", std::shared_ptr<grpc::ChannelCredentials>())};
        user() {
            grpc::ClientContext context;
            const grpc::Slice nothing;
            const grpc::ByteBuffer request(&nothing, 1);
            grpc::ByteBuffer response;
            std::promise<void> ended;
            stub.UnaryCall(&context, "/none", {}, &request, &response, [&](const grpc::Status&) { ended.set_value(); });
            ended.get_future().wait();
        }
    };
    static const user* const for_ever = new user;
    static_cast<void>(for_ever);
}

}  // namespace ferry::detail
