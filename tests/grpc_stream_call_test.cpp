#include <ferry/detail/grpc_stream_call.hpp>

#include "plain_peer.hpp"

#include <ferry/researcher.grpc.pb.h>

#include <gmock/gmock.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

// One stream with a host that does nothing by itself: what the server's core does at the same time is put in order here.

namespace {

using namespace loopback;

struct quiet_host final : ferry::detail::stream_call_host {
    using call = std::shared_ptr<ferry::detail::task_call>;

    ferry::detail::upload_guard& uploads() override { return guard; }
    void reply_received(std::shared_ptr<ferry::detail::reply_source>, ferry::bytes) override {}
    void reply_refused(const std::string&) override {}
    ferry::peer_info peer_of(const grpc::CallbackServerContext&) const override { return {}; }
    bool admits(const std::string&, const ferry::peer_info&) const override { return true; }
    void stream_opened(call by, const std::string&, ferry::frames::hello) override {
        researcher::TaskResponse welcome;
        welcome.mutable_welcome()->set_lease_ms(1000);
        by->queue(std::move(welcome));
        opened.set_value(std::move(by));
    }
    void receipt_came(const call&, ferry::frames::receipt) override {}
    void lease_renewed(const call&, const std::vector<std::uint64_t>&) override {}
    void node_leaving(const call&) override {}
    void range_sent(const call&) override { sent.set_value(); }
    void poll_broken(const call&, ferry::errc, std::string text) override {
        if (text == "the stream is over") over.set_value();
    }
    void flush_soon(const call&) override {}
    void watch(const call& which) override {
        if (watched++ == 0) first_watched.set_value(which);
    }
    void let_go(const ferry::detail::task_call&) override { ++let_go_of; }

    ferry::detail::upload_guard guard{{}, {}, [](auto) {}};
    std::promise<call> opened;
    std::promise<std::weak_ptr<ferry::detail::task_call>> first_watched;  // which has this host
    std::atomic<int> watched{0}, let_go_of{0};
    std::promise<void> sent, over;
};

/// Serves streams alone.
class streams_only final
    : public researcher::ResearcherService::WithRawCallbackMethod_GetTask<researcher::ResearcherService::Service> {
public:
    explicit streams_only(std::shared_ptr<quiet_host> host) : host_(std::move(host)) {}
    grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* GetTask(
        grpc::CallbackServerContext* context) override {
        using call = ferry::detail::basic_stream_call<ferry::detail::stream_call_host>;
        const auto made = std::make_shared<call>(host_, ferry::peer_info{}, *context,
                                                 [](const std::string&) { return std::string(); });
        made->open();
        return made.get();
    }

private:
    const std::shared_ptr<quiet_host> host_;
};

struct one_run final : ferry::payload_source {
    explicit one_run(ferry::bytes content) : content_(std::move(content)) {}
    std::uint64_t size() const noexcept override { return content_.size(); }
    void read(std::uint64_t offset, std::uint64_t length,
              std::function<void(ferry::range_result)> done) const override {
        done({ferry::errc::ok, ferry::payload(content_.slice(offset, length)), {}});
    }
    const ferry::bytes content_;
};

/// A content that tells when nobody has it any more.
std::shared_ptr<const ferry::payload> telling(ferry::bytes content, std::promise<void>& gone) {
    const std::shared_ptr<void> owner(nullptr, [content, &gone](void*) { gone.set_value(); });
    return std::make_shared<const ferry::payload>(ferry::bytes::borrow({content.data(), content.size()}, owner));
}

class grpc_stream_call : public testing::Test {
protected:
    void SetUp() override {
        grpc::ServerBuilder builder;
        builder.RegisterService(&service_);
        builder.AddListeningPort("localhost:0", grpc::InsecureServerCredentials(), &port_);
        server_ = builder.BuildAndStart();
        stub_ = stub_of(static_cast<std::uint16_t>(port_));
        node = stub_->GetTask(&context_);
    }
    void TearDown() override { context_.TryCancel(); }

    std::shared_ptr<ferry::detail::task_call> say_hello() {
        researcher::TaskRequest hello;
        hello.set_node("node");
        hello.mutable_hello();
        EXPECT_TRUE(node->Write(hello));
        return host->opened.get_future().get();
    }

    static bool comes(std::promise<void>& what) {
        return what.get_future().wait_for(patience) == std::future_status::ready;
    }

    const std::shared_ptr<quiet_host> host = std::make_shared<quiet_host>();
    std::unique_ptr<grpc::ClientReaderWriter<researcher::TaskRequest, researcher::TaskResponse>> node;

private:
    streams_only service_{host};
    int port_ = 0;
    std::unique_ptr<grpc::Server> server_;
    std::unique_ptr<researcher::ResearcherService::Stub> stub_;
    grpc::ClientContext context_;
};

/// The core has decided to send a range, and before it comes to that a write of something else ends.
TEST_F(grpc_stream_call, a_range_that_is_not_in_memory_waits_for_its_flush) {
    const auto call = say_hello();
    researcher::TaskRequest renewal;
    std::promise<void> written;
    const auto large = some_bytes(100'000);
    call->queue_whole(telling(some_bytes(10), written), {1, 0, 10});
    call->queue(std::make_shared<const ferry::payload>(std::make_shared<one_run>(large)), {0, 100'000, 1, 1},
                {2, 0, 100'000});
    renewal.add_in_progress(1);
    ASSERT_TRUE(node->Write(renewal));  // has the small task written, without a flush
    researcher::TaskResponse what;
    ASSERT_TRUE(node->Read(&what));
    EXPECT_TRUE(what.has_welcome());
    ASSERT_EQ(what.whole_size(), 1);
    ASSERT_TRUE(comes(written));

    call->flush();
    ASSERT_TRUE(node->Read(&what));
    EXPECT_EQ(what.task(), 2U);
    EXPECT_TRUE(what.bytes_() == large.view());
    EXPECT_TRUE(comes(host->sent));
    node->WritesDone();
    EXPECT_TRUE(node->Finish().ok());
    EXPECT_TRUE(comes(host->over)) << "the server could never stop";
}

TEST_F(grpc_stream_call, is_watched_until_its_hello_comes) {
    const auto call = host->first_watched.get_future().get().lock();
    EXPECT_EQ(host->let_go_of, 0);
    EXPECT_EQ(say_hello(), call);
    EXPECT_EQ(host->watched, 1);
    EXPECT_EQ(host->let_go_of, 1);
}

TEST_F(grpc_stream_call, ends_where_its_hello_does_not_come_in_time) {
    host->first_watched.get_future().get().lock()->give_up();
    const auto status = node->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_THAT(status.error_message(), testing::HasSubstr("begins with a hello"));
}

/// Its node reads nothing: what is being written never goes out, and the end is behind it.
TEST_F(grpc_stream_call, ends_without_its_node_where_it_is_given_up) {
    const auto call = say_hello();
    std::promise<void> gone;
    call->queue(telling(some_bytes(64'000'000), gone), {0, 64'000'000, 1, 1}, {2, 0, 64'000'000});
    call->flush();
    call->finish(grpc::Status::OK);
    EXPECT_EQ(host->watched, 2) << "its end waits for the node";
    call->give_up();
    EXPECT_TRUE(comes(gone));
    EXPECT_TRUE(comes(host->over));
    call->give_up();  // and nothing happens
}

}  // namespace
