// The server's promises on how it runs, by short tests of their names: liveness, threads, user code, start and stop.
#include "promises.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <future>
#include <iterator>
#include <latch>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace loopback;
using ferry::errc;
using ferry::node_status;
using ferry::outcome_kind;
using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

// --- 6: liveness is derived ------------------------------------------------------------------------------------------------

TEST(promise_6_liveness, ACTIVE_while_a_poll_is_open) {
    plain_peer peer(quick_server());
    auto poll = peer.open_poll("plain");
    EXPECT_EQ(peer.server.get_node("plain")->status, node_status::active);
    EXPECT_EQ(to_string(peer.server.get_node("plain")->status), "ACTIVE");
}

TEST(promise_6_liveness, WAITING_after_one_ended) {
    plain_peer peer(quick_server());
    peer.open_poll("plain")->cancel();
    EXPECT_TRUE(soon([&] { return to_string(peer.server.get_node("plain")->status) == "WAITING"; }));
    auto poll = peer.open_poll("plain");
    EXPECT_EQ(peer.server.get_node("plain")->status, node_status::active);
}

TEST(promise_6_liveness, DISCONNECTED_after_the_timeout) {
    auto options = quick_server();
    options.limits.disconnect_after = 200ms;
    plain_peer peer(options);
    auto poll = peer.open_poll("plain");
    const auto begin = std::chrono::steady_clock::now();
    poll->cancel();
    ASSERT_TRUE(soon([&] { return to_string(peer.server.get_node("plain")->status) == "DISCONNECTED"; }));
    EXPECT_GE(std::chrono::steady_clock::now() - begin, 200ms);
    EXPECT_FALSE(peer.server.wait_for_nodes(1, 0ms));
    auto back = peer.open_poll("plain");
    EXPECT_EQ(peer.server.get_node("plain")->status, node_status::active);
}

TEST(promise_6_liveness, only_the_newest_poll_of_a_duplicate_node_id_counts_and_a_warning_tells) {
    notes warnings;
    auto options = quick_server();
    options.log = warnings.of(ferry::log_level::warning);
    plain_peer peer(options);
    auto older = peer.open_poll("twin");
    auto newer = peer.open_poll("twin");
    EXPECT_FALSE(older->read());
    EXPECT_EQ(older->finish().error_code(), StatusCode::UNAVAILABLE) << "never OK: a Python node would spin";
    EXPECT_EQ(warnings.holding("node twin polled while an older poll of its was open"), 1);
    EXPECT_EQ(peer.server.get_node("twin")->status, node_status::active);
    const auto sent = peer.server.send({{"n", 1}}, "twin");
    EXPECT_TRUE(newer->read_all());
}

TEST(promise_6_liveness, a_half_open_older_poll_never_takes_the_place_of_the_newer_one) {
    plain_peer peer(quick_server());
    const auto other_connection = stub_of(peer.server.port());
    plain_peer::open_call older(*other_connection, "plain");
    const auto sent = peer.server.send(bulk(), "plain");
    ASSERT_TRUE(older.read()) << "its task is on the way, and the connection dies silently";
    auto newer = peer.open_poll("plain");
    ASSERT_TRUE(newer->read()) << "the task comes anew, over the newer one";
    older.cancel();
    EXPECT_EQ(peer.server.get_node("plain")->status, node_status::active);
    EXPECT_TRUE(newer->read_all());
    auto next = peer.open_poll("plain");
    EXPECT_EQ(sent.wait().attempts, 2);
    EXPECT_EQ(peer.server.get_node("plain")->status, node_status::active);
}

// --- 7: no thread waits for a node -----------------------------------------------------------------------------------------

/// Polls that take no thread here either.
class parked_polls {
public:
    explicit parked_polls(std::uint16_t port) : stub_(stub_of(port)) {}
    ~parked_polls() {
        for (auto& each : all_) each->context.TryCancel();
        EXPECT_TRUE(soon([&] { return done_ == all_.size(); }));
    }

    void add_until(std::size_t number) {
        while (all_.size() < number) {
            all_.push_back(std::make_unique<poll>(done_, "node-" + std::to_string(all_.size())));
            all_.back()->open(*stub_);
        }
    }

private:
    struct poll final : grpc::ClientReadReactor<researcher::TaskResponse> {
        poll(std::atomic<std::size_t>& count, const std::string& node) : done(count) { request.set_node(node); }
        void open(researcher::ResearcherService::Stub& stub) {
            stub.async()->GetTaskUnary(&context, &request, this);
            StartRead(&chunk);
            StartCall();
        }
        void OnDone(const grpc::Status&) override { ++done; }

        std::atomic<std::size_t>& done;
        grpc::ClientContext context;
        researcher::TaskRequest request;
        researcher::TaskResponse chunk;
    };

    std::unique_ptr<researcher::ResearcherService::Stub> stub_;
    std::atomic<std::size_t> done_{0};
    std::vector<std::unique_ptr<poll>> all_;
};

std::ptrdiff_t threads_of_this_process() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
}

TEST(promise_7_no_thread_waits, two_thousand_polls_are_parked_by_as_many_threads_as_one) {
    ferry::grpc_server server(quick_server());
    server.start();
    parked_polls polls(server.port());
    polls.add_until(1);
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto before = threads_of_this_process();
    polls.add_until(2'000);
    ASSERT_TRUE(server.wait_for_nodes(2'000, patience));
    // gRPC has a few of its own, such as one for the method that is not served, which may start late.
    EXPECT_LE(threads_of_this_process(), before + 10) << "there were " << before;
    EXPECT_EQ(server.broadcast({{"n", 1}}).size(), 2'000U);
}

// --- 8: user code ----------------------------------------------------------------------------------------------------------

TEST(promise_8_user_code, runs_in_order_and_one_at_a_time_for_a_node) {
    notes came;
    std::atomic<int> inside{0};
    auto options = quick_server();
    options.on_message = [&](const ferry::feedback& from) {
        EXPECT_EQ(++inside, 1);
        came.add(text_of(from));
        std::this_thread::yield();
        --inside;
    };
    plain_peer peer(options);
    std::vector<std::string> expected;
    for (int i = 0; i < 50; ++i) {
        expected.push_back(std::to_string(i));
        EXPECT_TRUE(tell(peer, a_line("plain", expected.back())).ok());
    }
    ASSERT_TRUE(soon([&] { return came.size() == 50; }));
    EXPECT_EQ(came.all(), expected);
}

TEST(promise_8_user_code, runs_in_parallel_for_different_nodes_concurrent) {
    std::promise<void> other_came, met;
    auto options = quick_server();
    options.on_message = [&](const ferry::feedback& from) {
        if (ferry::node_of(from) == "other") return other_came.set_value();
        if (comes(other_came.get_future())) met.set_value();
    };
    plain_peer peer(options);
    EXPECT_TRUE(tell(peer, a_line("one", "waits for the other")).ok());
    EXPECT_TRUE(tell(peer, a_line("other", "is here")).ok());
    EXPECT_TRUE(comes(met.get_future()));
}

TEST(promise_8_user_code, runs_on_so_many_threads_and_holds_nothing_else_up_concurrent) {
    std::atomic<int> inside{0}, most{0}, ended{0};
    std::promise<void> release;
    auto options = quick_server();
    options.callback_threads = 2;
    options.on_message = [&, held = release.get_future().share()](const ferry::feedback&) {
        const int now = ++inside;
        for (int before = most; before < now && !most.compare_exchange_weak(before, now);) {
        }
        held.wait();
        --inside;
        ++ended;
    };
    plain_peer peer(options);
    for (int i = 0; i < 6; ++i)
        EXPECT_TRUE(tell(peer, a_line(std::to_string(i), "x")).ok()) << "it is queued: answered";
    EXPECT_TRUE(soon([&] { return inside == 2; }));
    auto poll = peer.open_poll("plain");
    const auto asked = peer.server.request({{"request_id", "r"}}, "plain");
    EXPECT_TRUE(poll->read_all());
    EXPECT_TRUE(peer.reply({{1, 1, peer.encoded({{"request_id", "r"}, {"node_id", "plain"}})}}).ok());
    EXPECT_TRUE(asked.get()) << "all threads for callbacks wait, and the server works";
    EXPECT_EQ(inside, 2);
    release.set_value();
    EXPECT_TRUE(soon([&] { return ended == 6; }));
    EXPECT_EQ(most, 2);
}

TEST(promise_8_user_code, of_many_nodes_and_their_server_runs_on_the_threads_of_one_pool_concurrent) {
    constexpr int nodes = 12;
    const ferry::thread_pool pool(2);
    std::mutex mutex;
    std::set<std::thread::id> seen;
    const auto note_thread = [&] {
        const std::lock_guard lock(mutex);
        seen.insert(std::this_thread::get_id());
    };
    auto options = quick_server();
    options.callback_pool = pool;
    ferry::grpc_server server(options);
    server.start();
    std::vector<std::unique_ptr<ferry::grpc_client>> clients;
    for (int i = 0; i < nodes; ++i) {
        auto node = client_options("node-" + std::to_string(i), server.port());
        node.callback_pool = pool;
        clients.push_back(std::make_unique<ferry::grpc_client>(node, [&](const ferry::task& task) {
            note_thread();
            task.reply(task.message());
        }));
        clients.back()->start();
    }
    ASSERT_TRUE(server.wait_for_nodes(nodes, patience));
    std::latch answered(nodes * 20);
    for (int i = 0; i < nodes * 20; ++i) {
        server.request({{"n", i}}, "node-" + std::to_string(i % nodes)).on_reply([&, i](const auto& reply) {
            EXPECT_TRUE(reply) << reply.how.text;
            EXPECT_EQ(reply.message.value("n", -1), i);
            note_thread();
            answered.count_down();
        });
    }
    answered.wait();
    clients.front()->stop();  // the others go on
    EXPECT_TRUE(server.request({{"n", 0}}, "node-1").get());
    const std::lock_guard lock(mutex);
    EXPECT_LE(seen.size(), 2U);
}

TEST(promise_8_user_code, may_throw) {
    notes came, warnings;
    auto options = quick_server();
    options.log = warnings.of(ferry::log_level::warning);
    options.on_message = [&](const ferry::feedback& from) {
        came.add(text_of(from));
        throw std::runtime_error("from on_message");
    };
    plain_peer peer(options);
    EXPECT_TRUE(tell(peer, a_line("plain", "1")).ok());
    EXPECT_TRUE(tell(peer, a_line("plain", "2")).ok());
    auto sent = peer.server.send({{"n", 1}}, "nobody");
    sent.on_done([](const ferry::outcome&) { throw 42; });
    std::promise<void> next;
    sent.on_done([&](const ferry::outcome&) { next.set_value(); });
    EXPECT_TRUE(comes(next.get_future()));
    EXPECT_TRUE(soon([&] { return warnings.holding("a callback threw: from on_message") == 2; }));
    EXPECT_TRUE(soon([&] { return warnings.holding("no std::exception") == 1; }));
    EXPECT_THAT(came.all(), ElementsAre("1", "2"));
}

/// Everything that may be called from a callback.
void use(ferry::grpc_server& server) {
    EXPECT_EQ(server.send({{"n", 1}}, "node").wait().kind, outcome_kind::taken);
    EXPECT_TRUE(server.request({{"n", 2}}, "node").get());
    EXPECT_EQ(server.broadcast({{"n", 3}}).size(), 1U);
    EXPECT_TRUE(server.get_node("node"));
    EXPECT_EQ(server.get_all_nodes().size(), 1U);
    EXPECT_TRUE(server.is_alive());
    server.pending();
}

TEST(promise_8_user_code, may_call_back_into_the_server_from_on_message_concurrent) {
    std::atomic<ferry::grpc_server*> server{nullptr};
    std::promise<void> used;
    auto options = quick_server();
    options.on_message = [&](const ferry::feedback&) {
        use(*server);
        used.set_value();
    };
    server_and_node pair(echo, options);
    server = &pair.server;
    pair.node->log("INFO", "now");
    EXPECT_TRUE(comes(used.get_future()));
}

TEST(promise_8_user_code, may_call_back_into_the_server_from_on_done_concurrent) {
    std::promise<void> used;
    server_and_node pair;
    pair.server.send({{"n", 0}}, "node").on_done([&](const ferry::outcome&) {
        use(pair.server);
        used.set_value();
    });
    EXPECT_TRUE(comes(used.get_future()));
}

/// Whether the server answers, from another thread, at the end of what it was to send.
struct last_words {
    explicit last_words(ferry::grpc_server& s) : server(s) {}
    ~last_words() {
        auto pending = std::async(std::launch::async, [&] { return server.pending().size(); });
        if (pending.wait_for(5s) == std::future_status::timeout) ++unanswered;
        ++gone;
    }

    static inline std::atomic<int> gone{0}, unanswered{0};
    ferry::grpc_server& server;
    const ferry::bytes data = some_bytes(200'000);
};

TEST(promise_8_user_code, may_call_back_into_the_server_where_what_was_sent_is_destroyed_concurrent) {
    server_and_node pair;
    last_words::gone = last_words::unanswered = 0;
    const auto message = [&] {
        const auto owner = std::make_shared<last_words>(pair.server);
        return ferry::message{{"data", ferry::bytes::borrow({owner->data.data(), owner->data.size()}, owner)}};
    };
    EXPECT_EQ(pair.server.send(message(), "node").wait().kind, outcome_kind::taken);
    EXPECT_TRUE(soon([] { return last_words::gone == 1; }));
    EXPECT_TRUE(pair.server.request(message(), "node").get());
    EXPECT_TRUE(soon([] { return last_words::gone == 2; }));
    EXPECT_EQ(pair.server.send(message(), "nobody").wait().kind, outcome_kind::node_unknown);
    EXPECT_TRUE(soon([] { return last_words::gone == 3; }));
    pair.node->stop();
    auto left = pair.server.send(message(), "node");
    left.cancel();
    EXPECT_EQ(left.wait().kind, outcome_kind::cancelled);
    EXPECT_TRUE(soon([] { return last_words::gone == 4; }));
    pair.server.send(message(), "node");
    pair.server.stop(0ms);
    EXPECT_EQ(last_words::unanswered, 0);
}

TEST(promise_8_user_code, may_stop_the_server_from_on_message_concurrent) {
    ferry::grpc_server* server = nullptr;
    const auto stopped = std::make_shared<std::promise<void>>();  // the thread outlives the server
    auto options = quick_server();
    options.on_message = [&, stopped](const ferry::feedback&) {
        server->stop(1s);
        stopped->set_value();
    };
    plain_peer peer(options);
    server = &peer.server;
    tell(peer, a_line("plain", "stop"));
    EXPECT_TRUE(comes(stopped->get_future()));
    EXPECT_FALSE(peer.server.is_alive());
}

TEST(promise_8_user_code, may_stop_the_server_from_on_unclaimed_reply_concurrent) {
    const auto stopped = std::make_shared<std::promise<void>>();  // the thread outlives the server
    ferry::grpc_server server(quick_server());
    server.on_unclaimed_reply([&, stopped](const ferry::reply&) {
        server.stop(1s);
        stopped->set_value();
    });
    server.start();
    ferry::grpc_client node(quick_client("node", server.port()), echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    node.send(ferry::message{{"x", 1}});
    EXPECT_TRUE(comes(stopped->get_future()));
    EXPECT_FALSE(server.is_alive());
}

// --- 9: start and stop -----------------------------------------------------------------------------------------------------

using promise_9_start_and_stop = without_setup_timeout;

TEST_F(promise_9_start_and_stop, start_returns_once_the_port_is_bound_and_a_first_node_is_there) {
    set("5");
    notes warnings;
    auto options = quick_server();
    options.wait_for_first_node = true;
    options.log = warnings.of(ferry::log_level::warning);
    ferry::grpc_server server(options);
    auto starting = std::async(std::launch::async, [&] { server.start(); });
    ASSERT_TRUE(soon([&] { return server.port() != 0; }));
    EXPECT_EQ(starting.wait_for(50ms), std::future_status::timeout);
    ferry::grpc_client node(quick_client("node", server.port()), echo);
    node.start();
    EXPECT_TRUE(comes(starting));
    EXPECT_EQ(server.get_all_nodes().size(), 1U);
    EXPECT_EQ(warnings.size(), 0U);
}

TEST_F(promise_9_start_and_stop, start_returns_after_MAX_GRPC_SERVER_SETUP_TIMEOUT_with_a_warning) {
    set("0");
    notes warnings;
    auto options = quick_server();
    options.wait_for_first_node = true;
    options.log = warnings.of(ferry::log_level::warning);
    ferry::grpc_server server(options);
    server.start();
    EXPECT_TRUE(server.is_alive());
    EXPECT_THAT(warnings.all(), ElementsAre(HasSubstr("no node has connected within 0 s")));
}

TEST_F(promise_9_start_and_stop, start_returns_at_once_by_option) {
    set("5");
    auto options = quick_server();
    options.wait_for_first_node = false;
    ferry::grpc_server server(options);
    const auto begin = std::chrono::steady_clock::now();
    server.start();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, ferry::MAX_GRPC_SERVER_SETUP_TIMEOUT());
    EXPECT_TRUE(server.is_alive());
    EXPECT_TRUE(ferry::server_options{}.wait_for_first_node) << "and only by option";
}

TEST_F(promise_9_start_and_stop, stop_refuses_new_polls_and_lets_streams_finish) {
    plain_peer peer(quick_server());
    auto poll = peer.open_poll("plain");
    const auto sent = peer.server.send(bulk(), "plain");
    ASSERT_TRUE(poll->read());
    auto stopping = std::async(std::launch::async, [&] { peer.server.stop(patience); });
    ASSERT_TRUE(soon([&] { return !peer.server.is_alive(); })) << "from the beginning of the stop";
    EXPECT_EQ(peer.poll("ended or refused").error_code(), StatusCode::UNAVAILABLE);
    EXPECT_EQ(peer.poll("refused").error_code(), StatusCode::UNAVAILABLE);
    EXPECT_FALSE(peer.server.get_node("refused"));
    EXPECT_FALSE(sent.done());
    EXPECT_TRUE(poll->read_all());
    EXPECT_EQ(peer.poll("plain").error_code(), StatusCode::UNAVAILABLE)
        << "refused; yet it shows that the task is there";
    EXPECT_EQ(sent.wait().kind, outcome_kind::taken);
    EXPECT_TRUE(comes(stopping));
}

TEST_F(promise_9_start_and_stop, stop_cancels_what_is_left_after_its_deadline) {
    plain_peer peer(quick_server());
    auto poll = peer.open_poll("plain");
    const auto sent = peer.server.send(bulk(), "plain");
    ASSERT_TRUE(poll->read());
    open_upload upload(peer);
    ASSERT_TRUE(upload.write(2, 1, "half"));
    ASSERT_TRUE(soon([&] { return peer.server.counts().inbound_bytes == 4; }));
    peer.server.stop(50ms);
    ASSERT_TRUE(sent.done());
    EXPECT_EQ(sent.wait().kind, outcome_kind::stopped);
    EXPECT_FALSE(poll->read_all());
    EXPECT_EQ(upload.wait_for_answer().error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(promise_9_start_and_stop, stop_always_returns_also_before_start_and_a_second_time) {
    ferry::grpc_server unused(quick_server());
    unused.stop();
    unused.stop(patience);
    ferry::grpc_server server(quick_server());
    server.start();
    server.stop(patience);
    server.stop(patience);
    EXPECT_FALSE(server.is_alive());
}

TEST_F(promise_9_start_and_stop, stop_always_returns_also_while_start_waits) {
    set("5");
    auto options = quick_server();
    options.wait_for_first_node = true;
    ferry::grpc_server server(options);
    auto starting = std::async(std::launch::async, [&] { server.start(); });
    ASSERT_TRUE(soon([&] { return server.port() != 0; }));
    server.stop(0ms);
    EXPECT_TRUE(comes(starting));
    EXPECT_FALSE(server.is_alive());
}

TEST_F(promise_9_start_and_stop, stop_always_returns_also_inside_a_callback_concurrent) {
    const auto stopped = std::make_shared<std::promise<void>>();  // the thread outlives the server
    server_and_node pair;
    pair.server.request({{"n", 1}}, "node").on_done([&, stopped](const ferry::outcome&) {
        pair.server.stop(patience);
        stopped->set_value();
    });
    EXPECT_TRUE(comes(stopped->get_future()));
}

TEST_F(promise_9_start_and_stop, stop_always_returns_also_from_several_threads_concurrent) {
    server_and_node pair;
    const auto asked = pair.server.request({{"n", 1}}, "node");
    std::vector<std::future<void>> all;
    for (int i = 0; i < 4; ++i) all.push_back(std::async(std::launch::async, [&] { pair.server.stop(1s); }));
    for (const auto& each : all) EXPECT_TRUE(comes(each));
    EXPECT_TRUE(asked.done());
}

TEST_F(promise_9_start_and_stop, stop_always_returns_also_where_a_callback_does_not) {
    struct gates {
        std::promise<void> begun, release, left;
    };
    const auto pass = std::make_shared<gates>();  // the thread outlives the server
    auto options = quick_server();
    options.on_message = [pass](const ferry::feedback&) {
        pass->begun.set_value();
        pass->release.get_future().wait();
        pass->left.set_value();
    };
    plain_peer peer(options);
    EXPECT_TRUE(tell(peer, a_line("plain", "x")).ok());
    pass->begun.get_future().wait();
    peer.server.stop(0ms);
    EXPECT_FALSE(peer.server.is_alive());
    pass->release.set_value();
    EXPECT_TRUE(comes(pass->left.get_future()));
}

TEST_F(promise_9_start_and_stop, is_alive_before_start_is_a_misuse) {
    const ferry::grpc_server server(quick_server());
    EXPECT_EQ(thrown_by([&] { server.is_alive(); }), errc::not_started);
}

}  // namespace
