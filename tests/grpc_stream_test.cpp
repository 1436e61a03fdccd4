// What only ferry's own peers have: one stream, receipts, two lanes, and transfers that go on where they broke off.
#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>

#include "instantiated.hpp"
#include "loopback.hpp"
#include "tcp_relay.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using namespace loopback;
using ferry::errc;
using ferry::outcome_kind;

constexpr auto to_server = tcp_relay::to_server, to_node = tcp_relay::to_node;
constexpr std::uint64_t bulk = 20'000'000, in_the_middle = 9'000'000;

/// A server behind a relay, and what a node needs to find it.
struct relayed {
    explicit relayed(const std::function<void(ferry::server_options&)>& adjust = {}) {
        auto options = server_options();
        if (adjust) adjust(options);
        server = std::make_unique<ferry::grpc_server>(options);
        server->start();
        relay.forward_to(server->port());
    }
    ferry::client_options node() const { return client_options("node", relay.port()); }
    void wait() const { ASSERT_TRUE(server->wait_for_nodes(1, patience)); }

    std::unique_ptr<ferry::grpc_server> server;
    tcp_relay relay{0};
};

ferry::send_options kept() {
    ferry::send_options how;
    how.keep_while_disconnected = true;
    return how;
}

ferry::bytes data_of(const ferry::message& m) { return m.at("data").get<ferry::bytes>(); }

template <class Condition>
bool soon(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    return condition();
}

std::uint64_t bytes_in(const std::filesystem::path& folder) {
    std::uint64_t bytes = 0;
    for (const auto& each : std::filesystem::recursive_directory_iterator(folder)) {
        if (each.is_regular_file()) bytes += each.file_size();
    }
    return bytes;
}

std::size_t files_in(const std::filesystem::path& folder) {
    std::size_t files = 0;
    for (const auto& each : std::filesystem::recursive_directory_iterator(folder)) {
        files += each.is_regular_file() && each.path().filename().string().front() != '.' ? 1 : 0;
    }
    return files;
}

/// In the files of this process there, also in those without a name.
std::uint64_t open_bytes_in(const std::filesystem::path& folder) {
    std::uint64_t bytes = 0;
    for (const auto& each : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;
        const auto file = std::filesystem::read_symlink(each.path(), gone);
        struct stat about {};
        if (!gone && file.native().starts_with(folder.native()) && ::stat(each.path().c_str(), &about) == 0 &&
            S_ISREG(about.st_mode))
            bytes += static_cast<std::uint64_t>(about.st_size);
    }
    return bytes;
}

TEST(grpc_stream, a_task_goes_on_where_its_connection_was_cut) {
    relayed setting;
    const auto data = some_bytes(bulk);
    std::promise<std::pair<bool, int>> came;
    ferry::grpc_client node(setting.node(), [&](const ferry::task& task) {
        came.set_value({data_of(task.message()) == data, task.attempt()});
    });
    node.start();
    setting.wait();
    setting.relay.cut_after(to_node, in_the_middle);
    const auto how = setting.server->send({{"data", data}}, "node").wait();
    EXPECT_EQ(how.kind, outcome_kind::taken) << how.text;
    EXPECT_EQ(how.attempts, 2);
    EXPECT_EQ(came.get_future().get(), std::pair(true, 2));
    EXPECT_LT(setting.relay.seen().passed[to_node], bulk + in_the_middle);
}

TEST(grpc_stream, an_urgent_task_runs_beside_a_usual_one) {
    ferry::grpc_server server(server_options());
    server.start();
    std::promise<void> release;
    std::atomic<bool> both = false;
    ferry::grpc_client node(client_options("node", server.port()), [&](const ferry::task& task) {
        if (task.urgent()) return release.set_value();
        both = release.get_future().wait_for(patience) == std::future_status::ready;
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto usual = server.send({{"n", 1}}, "node");
    ferry::send_options how;
    how.urgent = true;
    EXPECT_EQ(server.send({{"n", 2}}, "node", how).wait().kind, outcome_kind::taken);
    EXPECT_EQ(usual.wait().kind, outcome_kind::taken);
    EXPECT_TRUE(both);
}

TEST(grpc_stream, an_urgent_task_overtakes_a_large_one_on_its_way) {
    relayed setting;
    std::mutex mutex;
    std::vector<int> order;
    ferry::grpc_client node(setting.node(), [&](const ferry::task& task) {
        const std::lock_guard lock(mutex);
        order.push_back(task.message().at("n").get<int>());
    });
    node.start();
    setting.wait();
    setting.relay.stall_after(to_node, in_the_middle);
    const auto large = setting.server->send({{"n", 1}, {"data", some_bytes(3 * bulk)}}, "node");
    ASSERT_TRUE(setting.relay.wait([](const auto& seen) { return seen.stalled == 1; }, patience));
    ferry::send_options how;
    how.urgent = true;
    const auto urgent = setting.server->send({{"n", 2}}, "node", how);
    setting.relay.go_on();
    EXPECT_EQ(urgent.wait().kind, outcome_kind::taken);
    EXPECT_EQ(large.wait().kind, outcome_kind::taken);
    EXPECT_THAT(order, testing::ElementsAre(2, 1));
}

TEST(grpc_stream, a_task_is_refused_for_good_or_comes_again) {
    ferry::grpc_server server(server_options());
    server.start();
    std::atomic<int> runs = 0;
    ferry::grpc_client node(client_options("node", server.port()), [&](const ferry::task& task) {
        ++runs;
        if (task.message().at("n") == 1) return task.refuse(ferry::refusal::for_good, "not here");
        if (task.attempt() == 1) task.refuse(ferry::refusal::for_now, "not now", 10ms);
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto refused = server.request({{"n", 1}}, "node").get().how;
    EXPECT_EQ(refused.kind, outcome_kind::refused);
    EXPECT_EQ(refused.reason, errc::refused);
    EXPECT_EQ(refused.text, "not here");
    const auto later = server.send({{"n", 2}}, "node").wait();
    EXPECT_EQ(later.kind, outcome_kind::taken) << later.text;
    EXPECT_EQ(later.attempts, 2);
    EXPECT_EQ(runs, 3);
}

TEST(grpc_stream, a_withdrawn_task_is_told_to_its_callback) {
    ferry::grpc_server server(server_options());
    server.start();
    std::promise<void> begun, stopped;
    ferry::grpc_client node(client_options("node", server.port()), [&](const ferry::task& task) {
        const std::stop_callback at_stop(task.stop_token(), [&] { stopped.set_value(); });
        begun.set_value();
        EXPECT_EQ(stopped.get_future().wait_for(patience), std::future_status::ready);
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    auto sent = server.send({{"n", 1}}, "node");
    begun.get_future().wait();
    sent.cancel();
    EXPECT_EQ(sent.wait().kind, outcome_kind::cancelled);
    node.stop();
}

TEST(grpc_stream, a_lease_that_is_not_renewed_is_a_failed_delivery) {
    auto options = server_options();
    options.limits.lease = 2s;
    ferry::basic_grpc_server<ferry::no_retry> server(options);
    server.start();
    auto dial = client_options("node", server.port());
    dial.limits.renew_leases = false;
    std::promise<void> release;
    const auto held = release.get_future().share();
    ferry::grpc_client node(dial, [held](const ferry::task& task) {
        if (task.message().at("n") == 2) return held.wait();
        for (int i = 0; i < 60; ++i) {  // for longer than the lease
            task.in_progress();
            held.wait_for(50ms);
        }
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    EXPECT_EQ(server.send({{"n", 1}}, "node").wait().kind, outcome_kind::taken);
    const auto lost = server.send({{"n", 2}}, "node").wait();
    release.set_value();
    EXPECT_EQ(lost.kind, outcome_kind::retries_exhausted);
    EXPECT_EQ(lost.reason, errc::lease_lost);
}

TEST(grpc_stream, leases_are_renewed_while_a_callback_runs) {
    auto options = server_options();
    options.limits.lease = 2s;
    ferry::basic_grpc_server<ferry::no_retry> server(options);
    server.start();
    std::promise<void> never;
    const auto held = never.get_future().share();
    ferry::grpc_client node(client_options("node", server.port()), [held](const ferry::task&) { held.wait_for(3s); });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto how = server.send({{"n", 1}}, "node").wait();
    EXPECT_EQ(how.kind, outcome_kind::taken) << how.text;
    EXPECT_EQ(how.attempts, 1);
}

TEST(grpc_stream, what_a_stopped_node_has_not_begun_goes_to_its_next_life) {
    ferry::grpc_server server(server_options());
    server.start();
    std::promise<void> begun;
    auto first =
        std::make_unique<ferry::grpc_client>(client_options("node", server.port()), [&](const ferry::task& task) {
            begun.set_value();
            while (!task.stop_token().stop_requested()) std::this_thread::yield();
        });
    first->start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto one = server.send({{"n", 1}}, "node"), two = server.send({{"n", 2}}, "node", kept());
    begun.get_future().wait();
    first->stop(patience);
    EXPECT_EQ(one.wait().kind, outcome_kind::taken);
    EXPECT_FALSE(two.done());
    std::promise<int> came;
    ferry::grpc_client second(client_options("node", server.port()),
                              [&](const ferry::task& task) { came.set_value(task.message().at("n").get<int>()); });
    second.start();
    EXPECT_EQ(two.wait().kind, outcome_kind::taken);
    EXPECT_EQ(came.get_future().get(), 2);
}

TEST(grpc_stream, a_server_that_stops_has_answered_what_it_reported) {
    for (int round = 0; round < 100; ++round) {
        ferry::grpc_server server(server_options());
        server.start();
        std::promise<ferry::outcome> told;
        ferry::grpc_client node(client_options("node", server.port()), [&](const ferry::task& task) {
            task.reply(task.message()).on_done([&](const ferry::outcome& how) { told.set_value(how); });
        });
        node.start();
        ASSERT_TRUE(server.wait_for_nodes(1, patience));
        ASSERT_TRUE(server.request({{"n", round}}, "node").get());
        server.stop();
        auto how = told.get_future();
        ASSERT_EQ(how.wait_for(patience), std::future_status::ready) << "in round " << round;
        EXPECT_EQ(how.get().kind, outcome_kind::taken);
    }
}

TEST(grpc_stream, a_task_beyond_the_nodes_limit_is_refused) {
    ferry::grpc_server server(server_options());
    server.start();
    auto dial = client_options("node", server.port());
    dial.tasks.max_payload_bytes = 5'000'000;
    ferry::grpc_client node(dial, echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    const auto how = server.send({{"data", some_bytes(bulk)}}, "node").wait();
    EXPECT_EQ(how.kind, outcome_kind::refused);
    EXPECT_THAT(how.text, testing::HasSubstr("beyond the receiver's limit of 5000000 bytes"));
    EXPECT_TRUE(server.request({{"n", 1}}, "node").get());
}

/// A node with a spool folder that is stopped in mid-transfer, and starts again.
TEST(grpc_stream_spool, a_task_goes_on_in_the_nodes_next_life) {
    temporary_folder folder;
    relayed setting;
    const auto data = some_bytes(bulk);
    auto dial = setting.node();
    dial.spool = {folder.file("spool"), 1'000'000};
    auto first = std::make_unique<ferry::grpc_client>(dial, echo);
    first->start();
    setting.wait();
    setting.relay.stall_after(to_node, in_the_middle);
    const auto sent = setting.server->request({{"data", data}}, "node", kept());
    ASSERT_TRUE(setting.relay.wait([](const auto& seen) { return seen.stalled == 1; }, patience));
    ASSERT_TRUE(soon([&] { return bytes_in(folder.file("spool")) >= 2 * 3'999'967; }));
    first->stop(0ms);
    first.reset();
    setting.relay.cut();
    setting.relay.go_on();
    const auto before = setting.relay.seen().passed[to_node];
    std::promise<int> attempt;
    ferry::grpc_client second(dial, [&](const ferry::task& task) {
        struct stat about {};
        for (const auto& each : std::filesystem::recursive_directory_iterator(folder.file("spool"))) {
            ASSERT_EQ(::stat(each.path().c_str(), &about), 0);
            EXPECT_EQ(about.st_mode & 0777, each.is_directory() ? 0700U : 0600U) << each.path();
        }
        attempt.set_value(task.attempt());
        task.reply({{"data", task.message().at("data")}});
    });
    second.start();
    const auto reply = sent.get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(data_of(reply.message), data);
    EXPECT_EQ(attempt.get_future().get(), 2);
    EXPECT_LT(setting.relay.seen().passed[to_node] - before, bulk - 2'000'000);
    second.stop();
    EXPECT_EQ(files_in(folder.file("")), 0U);
}

TEST(grpc_stream_spool, a_node_whose_disk_is_full_says_so_and_is_sent_the_task_again) {
    temporary_folder folder;
    std::mutex mutex;
    std::string warned;
    ferry::grpc_server server(server_options());
    server.start();
    auto dial = client_options("node", server.port());
    dial.spool = {folder.file("spool"), 1000};
    dial.limits.refused_pause = 50ms;
    dial.log = [&](ferry::log_level, const std::string& text) {
        const std::lock_guard lock(mutex);
        warned = text;
    };
    ferry::grpc_client node(dial, echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    {
        const ferry_test::file_size_limit full(200'000);
        const auto how = server.send({{"data", some_bytes(500'000)}}, "node").wait();
        EXPECT_EQ(how.kind, outcome_kind::retries_exhausted);
        EXPECT_EQ(how.reason, ferry::errc::refused_for_now);
        EXPECT_THAT(how.text, testing::HasSubstr("File too large"));
    }
    EXPECT_TRUE(server.request({{"data", some_bytes(500'000)}}, "node", kept()).get());
    const std::lock_guard lock(mutex);
    EXPECT_THAT(warned, testing::HasSubstr("can't be taken in for now"));
}

TEST(grpc_stream_spool, what_an_earlier_life_had_of_a_task_beyond_the_limit_of_this_one_is_removed) {
    temporary_folder folder;
    const reserved_port nobodys;  // a server would withdraw what it knows nothing of
    auto dial = client_options("node", nobodys.number());
    dial.spool = {folder.file("spool"), 1000};
    dial.tasks.max_payload_bytes = 100'000;
    const auto left = folder.file("spool/localhost:" + std::to_string(nobodys.number()));
    std::filesystem::create_directories(left);
    for (const auto& each : {folder.file("spool"), left}) {
        std::filesystem::permissions(each, std::filesystem::perms::owner_all);
    }
    std::ofstream(left + "/task-00000000000000ff") << std::string(200'000, 'x');
    std::ofstream(left + "/task-00000000000000fe") << std::string(50'000, 'x');
    ferry::grpc_client node(dial, echo);
    node.start();
    EXPECT_FALSE(std::filesystem::exists(left + "/task-00000000000000ff"));
    EXPECT_TRUE(std::filesystem::exists(left + "/task-00000000000000fe")) << "it may go on";
}

TEST(grpc_stream_spool, a_node_that_has_stopped_leaves_its_folder_empty_and_to_the_next) {
    temporary_folder folder;
    ferry::grpc_server server(server_options());
    server.start();
    auto dial = client_options("node", server.port());
    dial.spool = {folder.file("spool"), 1000};
    for (int round = 0; round < 50; ++round) {
        ferry::grpc_client node(dial, echo);
        node.start();
        ASSERT_TRUE(server.wait_for_nodes(1, patience));
        ASSERT_TRUE(server.request({{"data", some_bytes(1'500'000)}}, "node", kept()).get());
        node.stop();
        ASSERT_EQ(files_in(folder.file("")), 0U) << "in round " << round;
    }
}

TEST(grpc_stream_spool, a_reply_goes_on_in_the_nodes_next_life) {
    temporary_folder folder;
    relayed setting([&](auto& options) { options.spool = {folder.file("server"), 1'000'000}; });
    const auto data = some_bytes(bulk);
    auto dial = setting.node();
    dial.spool = {folder.file("node"), 1'000'000};
    auto first = std::make_unique<ferry::grpc_client>(dial, [&](const ferry::task& task) {
        task.reply({{"data", data}});
    });
    first->start();
    setting.wait();
    setting.relay.stall_after(to_server, in_the_middle);
    const auto sent = setting.server->request({{"n", 1}}, "node", kept());
    ASSERT_TRUE(setting.relay.wait([](const auto& seen) { return seen.stalled == 1; }, patience));
    ASSERT_TRUE(soon([&] { return open_bytes_in(folder.file("server")) >= 2 * 3'999'967; }));
    first->stop(0ms);
    first.reset();
    EXPECT_EQ(files_in(folder.file("node")), 1U);
    EXPECT_EQ(files_in(folder.file("server")), 0U);  // it has no name
    setting.relay.cut();
    setting.relay.go_on();
    const auto before = setting.relay.seen().passed[to_server];
    std::atomic<int> runs = 0;
    ferry::grpc_client second(dial, [&](const ferry::task&) { ++runs; });
    second.start();
    const auto reply = sent.get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(data_of(reply.message), data);
    EXPECT_EQ(runs, 0);
    EXPECT_LT(setting.relay.seen().passed[to_server] - before, bulk - 2'000'000);
    second.stop();
    EXPECT_EQ(files_in(folder.file("")), 0U);
}

}  // namespace
