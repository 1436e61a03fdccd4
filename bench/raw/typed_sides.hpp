// The opponent that uses gRPC as its manual says: typed protobuf messages, by the callback API. Where it is asked to, with the
// checksum that ferry and the raw opponent have.
#pragma once

#include "../transport/process.hpp"
#include "../transport/timing.hpp"
#include "node.hpp"
#include "server.hpp"
#include "sides.hpp"

#include <ferry/researcher.grpc.pb.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace raw {

class typed_server_side final : public bench::side {
public:
    typed_server_side(const security& with, bool checksums)
        : service_(checksums), server_(listen(service_, with.key, with.cert, port_)) {
        if (!server_) throw std::runtime_error("typed: can't listen");
    }

    answer run(const order& o) override {
        if (o.kind == what::start) return {.port = port_};
        if (o.kind != what::download) throw std::runtime_error("typed: no such order for a server");
        if (content_.size() != o.bytes) content_.assign(o.bytes, 0x5a);
        auto& state = service_.state;
        if (!state.wait([&] { return state.stream != nullptr; })) throw std::runtime_error("typed: no node");
        const auto began = bench::clock::now();
        state.stream->send(content_);
        if (!state.wait([&] { return state.acknowledged && state.written; }))
            throw std::runtime_error("typed: no acknowledgement");
        state.change([&] { state.acknowledged = state.written = false; });
        return {.seconds = bench::seconds_since(began)};
    }

private:
    class stream;
    struct shared : watched {
        explicit shared(bool with_checksums) : checksums(with_checksums) {}
        const bool checksums;
        typed_server_side::stream* stream = nullptr;
        bool acknowledged = false, written = false;  // the acknowledgement may come first
    };

    class stream final : public grpc::ServerBidiReactor<researcher::TaskRequest, researcher::TaskResponse> {
    public:
        explicit stream(shared& state) : state_(state) {
            state_.change([&] { state_.stream = this; });
            StartRead(&in_);
        }
        void send(raw::run content) {
            content_ = content;
            at_ = crc_ = 0;
            out_.Clear();
            next();
        }

    private:
        void next() {
            const auto part = content_.subspan(at_, std::min(usual_chunk_bytes, content_.size() - at_));
            out_.set_bytes_(part.data(), part.size());
            out_.set_total(content_.size());
            out_.set_offset(at_);
            at_ += part.size();
            if (state_.checksums) crc_ = checksum(crc_, part);
            if (state_.checksums && at_ == content_.size()) out_.set_checksum(crc_);
            StartWrite(&out_);
        }
        void OnWriteDone(bool ok) override {
            if (!ok) return;
            if (at_ < content_.size()) return next();
            state_.change([&] { state_.written = true; });
        }
        void OnReadDone(bool ok) override {
            if (!ok) return Finish(grpc::Status::OK);
            state_.change([&] { state_.acknowledged = true; });
            StartRead(&in_);
        }
        void OnDone() override { delete this; }

        shared& state_;
        raw::run content_;
        std::size_t at_ = 0;
        std::uint32_t crc_ = 0;
        researcher::TaskRequest in_;
        researcher::TaskResponse out_;
    };

    struct service final
        : researcher::ResearcherService::WithCallbackMethod_GetTask<researcher::ResearcherService::Service> {
        explicit service(bool checksums) : state(checksums) {}
        grpc::ServerBidiReactor<researcher::TaskRequest, researcher::TaskResponse>* GetTask(
            grpc::CallbackServerContext*) override {
            return new stream(state);
        }
        shared state;
    };

    service service_;
    int port_ = 0;
    std::unique_ptr<grpc::Server> server_;
    std::vector<std::uint8_t> content_;
};

class typed_node_side final : public bench::side {
public:
    typed_node_side(const security& with, bool checksums) : cert_(with.cert), checksums_(checksums) {}

    answer run(const order& o) override {
        stream_ = new stream(connect(o.port, cert_), checksums_);  // until the process ends
        return {};
    }

private:
    class stream final : public grpc::ClientBidiReactor<researcher::TaskRequest, researcher::TaskResponse> {
    public:
        stream(std::shared_ptr<grpc::Channel> channel, bool checksums)
            : stub_(std::move(channel)), checksums_(checksums) {
            stub_.async()->GetTask(&context_, this);
            AddHold();
            StartRead(&in_);
            StartCall();
        }

    private:
        void OnReadDone(bool ok) override {
            if (!ok) return RemoveHold();
            if (in_.offset() == 0) data_.reset(static_cast<std::uint8_t*>(std::malloc(in_.total())));
            std::memcpy(data_.get() + in_.offset(), in_.bytes_().data(), in_.bytes_().size());
            if (checksums_) crc_ = checksum(crc_, {data_.get() + in_.offset(), in_.bytes_().size()});
            if (in_.offset() + in_.bytes_().size() == in_.total()) {
                if (checksums_ && crc_ != in_.checksum()) return context_.TryCancel();
                crc_ = 0;
                data_.reset();
                StartWrite(&out_);
            }
            StartRead(&in_);
        }
        void OnDone(const grpc::Status&) override {}

        struct give_back {
            void operator()(std::uint8_t* data) const { std::free(data); }
        };
        researcher::ResearcherService::Stub stub_;
        const bool checksums_;
        grpc::ClientContext context_;
        std::unique_ptr<std::uint8_t, give_back> data_;
        std::uint32_t crc_ = 0;
        researcher::TaskRequest out_;
        researcher::TaskResponse in_;
    };

    const std::string cert_;
    const bool checksums_;
    stream* stream_ = nullptr;
};

}  // namespace raw
