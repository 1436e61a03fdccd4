// A server as a peer meets it that knows nothing but the protocol: the generated stub, one call at a time.
#pragma once

#include <ferry/detail/grpc_server_calls.hpp>

#include "loopback.hpp"

#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace loopback {

/// The window doesn't grow: of a large task little is on its way that the test has not read.
inline std::unique_ptr<researcher::ResearcherService::Stub> stub_of(std::uint16_t port) {
    grpc::ChannelArguments fixed_window;
    fixed_window.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    return researcher::ResearcherService::NewStub(grpc::CreateCustomChannel(
        "localhost:" + std::to_string(port), grpc::InsecureChannelCredentials(), fixed_window));
}

struct plain_peer {
    explicit plain_peer(ferry::server_options options = server_options()) : server(std::move(options)) {
        server.start();
        stub = stub_of(server.port());
    }

    /// Polls until a task came or the poll ended.
    grpc::Status poll(const std::string& node, std::string* task = nullptr,
                      std::chrono::system_clock::time_point deadline = std::chrono::system_clock::time_point::max()) {
        grpc::ClientContext context;
        context.set_deadline(deadline);
        researcher::TaskRequest request;
        request.set_node(node);
        request.set_protocol_version("7");
        const auto reader = stub->GetTaskUnary(&context, request);
        researcher::TaskResponse chunk;
        while (reader->Read(&chunk)) {
            if (task) *task += chunk.bytes_();
        }
        return reader->Finish();
    }

    /// A poll that the test reads by hand.
    class open_call {
    public:
        open_call(researcher::ResearcherService::Stub& stub, const std::string& node) {
            researcher::TaskRequest request;
            request.set_node(node);
            request.set_protocol_version("7");
            reader_ = stub.GetTaskUnary(&context_, request);
            reader_->WaitForInitialMetadata();
        }
        ~open_call() { cancel(); }

        /// One chunk.
        bool read(std::string* task = nullptr) {
            researcher::TaskResponse chunk;
            if (!reader_->Read(&chunk)) return false;
            if (task) *task += chunk.bytes_();
            return true;
        }
        /// All that is left; true where the server ended the call well.
        bool read_all(std::string* task = nullptr) {
            while (read(task)) {
            }
            return finish().ok();
        }
        void cancel() {
            context_.TryCancel();
            finish();
        }
        grpc::Status finish() {
            if (!finished_) finished_ = reader_->Finish();
            return *finished_;
        }

    private:
        grpc::ClientContext context_;
        std::unique_ptr<grpc::ClientReader<researcher::TaskResponse>> reader_;
        std::optional<grpc::Status> finished_;
    };

    /// The server has seen it when this returns.
    std::unique_ptr<open_call> open_poll(const std::string& node) { return std::make_unique<open_call>(*stub, node); }

    struct part {
        int size;
        int iteration;
        std::string data;
    };

    grpc::Status reply(const std::vector<part>& parts) {
        grpc::ClientContext context;
        researcher::Empty nothing;
        const auto writer = stub->ReplyTask(&context, &nothing);
        for (const auto& each : parts) {
            researcher::TaskResult chunk;
            chunk.set_size(each.size);
            chunk.set_iteration(each.iteration);
            chunk.set_bytes_(each.data);
            if (!writer->Write(chunk)) break;
        }
        writer->WritesDone();
        return writer->Finish();
    }

    static std::string encoded(ferry::message m) {
        return std::string(ferry::msgpack_serializer<>{}.encode(std::move(m)).flatten().view());
    }

    ferry::grpc_server server;
    std::unique_ptr<researcher::ResearcherService::Stub> stub;
};

/// An upload that the test writes chunk by chunk.
class open_upload {
public:
    explicit open_upload(plain_peer& peer) : open_upload(*peer.stub) {}
    explicit open_upload(researcher::ResearcherService::Stub& stub) : writer_(stub.ReplyTask(&context_, &nothing_)) {}
    ~open_upload() {
        context_.TryCancel();
        finish();
    }

    bool write(int size, int iteration, const std::string& data) {
        researcher::TaskResult chunk;
        chunk.set_size(size);
        chunk.set_iteration(iteration);
        chunk.set_bytes_(data);
        return writer_->Write(chunk);
    }
    grpc::Status finish() {
        if (!finished_) {
            writer_->WritesDone();
            finished_ = writer_->Finish();
        }
        return *finished_;
    }
    /// Of the server's answer, without an end of this side's.
    grpc::Status wait_for_answer() {
        if (!finished_) finished_ = writer_->Finish();
        return *finished_;
    }

private:
    grpc::ClientContext context_;
    researcher::Empty nothing_;
    std::unique_ptr<grpc::ClientWriter<researcher::TaskResult>> writer_;
    std::optional<grpc::Status> finished_;
};

}  // namespace loopback
