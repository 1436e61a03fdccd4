// What a server and its nodes make of lost connections, restarts and silence: nothing is lost.
#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>

#include "loopback.hpp"
#include "tcp_relay.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace loopback;
using ferry::outcome_kind;
using testing::ElementsAre;

constexpr std::size_t bulk = 20'000'000;
constexpr std::size_t in_the_middle = 7'000'000;
constexpr auto to_server = tcp_relay::to_server;
constexpr auto to_node = tcp_relay::to_node;

/// What several threads report and a test waits for.
template <class T>
class gathered {
public:
    void add(T each) {
        {
            const std::lock_guard lock(mutex_);
            all_.push_back(std::move(each));
        }
        changed_.notify_all();
    }

    std::vector<T> all() const {
        const std::lock_guard lock(mutex_);
        return all_;
    }

    template <class Enough>
    bool wait(Enough&& enough) const {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, patience, [&] { return enough(all_); });
    }

    bool wait_for_number(std::size_t number) const {
        return wait([&](const auto& all) { return all.size() >= number; });
    }

    bool wait_for_one_with(const std::string& part) const {
        return wait([&](const auto& all) {
            return std::any_of(all.begin(), all.end(),
                               [&](const auto& each) { return each.find(part) != std::string::npos; });
        });
    }

private:
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    std::vector<T> all_;
};

using lines = gathered<std::string>;

/// gRPC may miss that a connection was reset just as data came over it; then pings find it.
constexpr ferry::keepalive_options soon_noticed{2s, 10s};

auto into(lines& to) {
    return [&to](ferry::log_level level, const std::string& text) {
        if (level == ferry::log_level::warning) to.add(text);
    };
}

template <class Condition>
bool comes_true(Condition&& condition) {
    const auto until = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > until) return false;
        std::this_thread::sleep_for(1ms);
    }
    return true;
}

using unclaimed_handler = std::function<void(const ferry::reply&)>;

/// A server that listens.
std::unique_ptr<ferry::grpc_server> started(const ferry::server_options& options,
                                            const unclaimed_handler& unclaimed = {}) {
    return loopback::started([&] {
        auto server = std::make_unique<ferry::grpc_server>(options);
        if (unclaimed) server->on_unclaimed_reply(unclaimed);
        return server;
    });
}

/// A server over TLS, as the tests that restart it need it.
struct tls {
    temporary_folder folder;
    certificate cert{folder};

    ferry::server_options server() const {
        auto options = server_options(ferry::ssl_credentials{cert.key_file, cert.cert_file});
        options.keepalive = soon_noticed;
        return options;
    }
    ferry::client_options node(std::uint16_t port) const {
        auto options = client_options("node", port, ferry::pinned_certificate{cert.cert_file});
        options.keepalive = soon_noticed;
        return options;
    }
};

ferry::bytes data_of(const ferry::task& task) { return task.message().at("data").get<ferry::bytes>(); }

// --- servers that go and come ---------------------------------------------------------------------------------------

TEST(reconnect, a_node_finds_a_server_that_is_back_on_its_port_and_its_replies_arrive_concurrent) {
    const tls way;
    auto options = way.server();
    auto server = started(options);
    options.port = server->port();
    gathered<ferry::task> kept;
    ferry::grpc_client node(way.node(options.port), [&](const ferry::task& task) {
        if (task.message().contains("keep")) return kept.add(task);
        echo(task);
    });
    node.start();
    ASSERT_TRUE(server->wait_for_nodes(1, patience));
    for (int round = 0; round < 3; ++round) {
        auto unanswered = server->request({{"request_id", "kept"}, {"keep", round}}, "node");
        ASSERT_TRUE(kept.wait_for_number(static_cast<std::size_t>(round) + 1));
        server->stop(0ms);
        EXPECT_EQ(unanswered.get().how.kind, outcome_kind::stopped);
        server.reset();
        auto upload = kept.all().back().reply({{"late", round}});
        EXPECT_FALSE(upload.done());

        // The echo of the round before may come again: its answer may have been lost with the server.
        gathered<ferry::reply> unclaimed;
        server = started(options, [&](const ferry::reply& reply) {
            if (reply.message.contains("late")) unclaimed.add(reply);
        });
        ASSERT_TRUE(unclaimed.wait_for_number(1));
        EXPECT_EQ(unclaimed.all().front().message.at("late"), round);
        EXPECT_EQ(unclaimed.all().front().message.at("request_id"), "kept");
        EXPECT_EQ(upload.wait().kind, outcome_kind::taken);
        const auto reply = server->request({{"x", round}}, "node").get();
        ASSERT_TRUE(reply) << reply.how.text;
        EXPECT_EQ(reply.message.at("x"), round);
        EXPECT_EQ(unclaimed.all().size(), 1U);
        server->on_unclaimed_reply({});
    }
}

TEST(reconnect, a_node_follows_a_server_between_the_addresses_of_its_list_concurrent) {
    const tls way;
    auto here = way.server(), there = way.server();
    auto server = started(here);
    here.port = server->port();
    there.port = started(there)->port();
    auto options = way.node(here.port);
    options.researchers.front().also_at = {{"localhost", there.port}};
    gathered<ferry::task> kept;
    ferry::grpc_client node(options, [&](const ferry::task& task) {
        if (task.message().contains("keep")) return kept.add(task);
        echo(task);
    });
    node.start();
    for (int round = 0; round < 4; ++round) {
        ASSERT_TRUE(server->wait_for_nodes(1, patience)) << round;
        ASSERT_TRUE(server->request({{"x", round}}, "node").get());
        server->send({{"request_id", "kept"}, {"keep", true}}, "node");
        ASSERT_TRUE(kept.wait_for_number(static_cast<std::size_t>(round) + 1));
        server->stop(0ms);
        auto upload = kept.all().back().reply({{"late", round}});
        std::promise<int> late;
        server = started(round % 2 == 0 ? there : here,
                         [&](const ferry::reply& reply) { late.set_value(reply.message.at("late").get<int>()); });
        auto came = late.get_future();
        ASSERT_EQ(came.wait_for(patience), std::future_status::ready) << round;
        EXPECT_EQ(came.get(), round);
        EXPECT_EQ(upload.wait().kind, outcome_kind::taken);
    }
}

TEST(reconnect, a_pinned_certificate_that_changed_is_refused_until_its_file_is_replaced) {
    temporary_folder folder;
    const certificate old(folder, "old"), fresh(folder, "fresh");
    const auto pinned = folder.file("pinned.pem");
    std::filesystem::copy_file(old.cert_file, pinned);
    auto options = server_options(ferry::ssl_credentials{old.key_file, old.cert_file});
    auto server = started(options);
    options.port = server->port();
    options.ssl = ferry::ssl_credentials{fresh.key_file, fresh.cert_file};
    lines warnings;
    auto dial = client_options("node", options.port, ferry::pinned_certificate{pinned});
    dial.log = into(warnings);
    ferry::grpc_client node(dial, echo);
    node.start();
    ASSERT_TRUE(server->wait_for_nodes(1, patience));
    ASSERT_TRUE(server->request({{"x", 1}}, "node").get());

    server->stop(0ms);
    server = started(options);
    EXPECT_TRUE(warnings.wait_for_one_with("certificate verify failed")) << testing::PrintToString(warnings.all());
    EXPECT_TRUE(server->get_all_nodes().empty());
    EXPECT_EQ(server->send({{"secret", true}}, "node").wait().kind, outcome_kind::node_unknown);

    std::filesystem::rename(fresh.cert_file, pinned);
    ASSERT_TRUE(server->wait_for_nodes(1, patience));
    EXPECT_TRUE(server->request({{"x", 2}}, "node").get());
}

TEST(reconnect, a_certificate_trusted_on_first_use_that_changed_is_refused_until_its_file_is_removed) {
    temporary_folder folder;
    const certificate old(folder, "old"), fresh(folder, "fresh");
    const auto kept = folder.file("kept.pem");
    auto options = server_options(ferry::ssl_credentials{old.key_file, old.cert_file});
    auto server = started(options);
    options.port = server->port();
    options.ssl = ferry::ssl_credentials{fresh.key_file, fresh.cert_file};
    lines warnings;
    auto dial = client_options("node", options.port, ferry::trust_on_first_use{kept});
    dial.log = into(warnings);
    ferry::grpc_client node(dial, echo);
    node.start();
    ASSERT_TRUE(server->wait_for_nodes(1, patience));
    ASSERT_TRUE(server->request({{"x", 1}}, "node").get());
    const auto size = std::filesystem::file_size(kept);
    const auto written = std::filesystem::last_write_time(kept);

    server->stop(0ms);
    server = started(options);
    EXPECT_TRUE(warnings.wait_for_one_with("certificate verify failed")) << testing::PrintToString(warnings.all());
    EXPECT_TRUE(server->get_all_nodes().empty());
    EXPECT_EQ(std::filesystem::file_size(kept), size);
    EXPECT_EQ(std::filesystem::last_write_time(kept), written);

    std::filesystem::remove(kept);
    ASSERT_TRUE(server->wait_for_nodes(1, patience));
    EXPECT_TRUE(server->request({{"x", 2}}, "node").get());
}

// --- connections that are cut ---------------------------------------------------------------------------------------

/// A server, a relay before it, and options for nodes that dial the relay; over TLS.
struct relayed {
    explicit relayed(const std::function<void(ferry::server_options&)>& adjust = {}) {
        if (adjust) adjust(options);
        server = started(options);
        relay.forward_to(server->port());
    }

    ferry::client_options node() const { return way.node(relay.port()); }

    tls way;
    ferry::server_options options = way.server();
    std::unique_ptr<ferry::grpc_server> server;
    tcp_relay relay{0};
};

TEST(reconnect, a_task_that_is_cut_on_its_way_is_sent_again_whole) {
    relayed setting;
    const auto data = some_bytes(bulk);
    gathered<bool> right;
    ferry::grpc_client node(setting.node(), [&](const ferry::task& task) { right.add(data_of(task) == data); });
    node.start();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    setting.relay.cut_after(to_node, in_the_middle);
    const auto how = setting.server->send({{"data", data}}, "node").wait();
    EXPECT_EQ(how.kind, outcome_kind::taken) << how.text;
    EXPECT_EQ(how.attempts, 2);
    ASSERT_TRUE(right.wait_for_number(1));
    EXPECT_THAT(right.all(), ElementsAre(true));
}

TEST(reconnect, a_reply_that_is_cut_on_its_way_goes_on_where_it_was_cut) {
    relayed setting;
    const auto data = some_bytes(bulk);
    std::atomic<int> runs = 0;
    std::promise<ferry::outcome> replied;
    ferry::grpc_client node(setting.node(), [&](const ferry::task& task) {
        ++runs;
        task.reply({{"data", data}}).on_done([&](const ferry::outcome& how) { replied.set_value(how); });
    });
    node.start();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    setting.relay.cut_after(to_server, in_the_middle);
    const auto reply = setting.server->request({{"x", 1}}, "node").get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.message.at("data").get<ferry::bytes>(), data);
    EXPECT_EQ(reply.how.attempts, 1);
    EXPECT_EQ(replied.get_future().get().kind, outcome_kind::taken);
    EXPECT_EQ(runs, 1);
    EXPECT_LT(setting.relay.seen().passed[to_server], bulk + in_the_middle);
}

TEST(reconnect, a_reply_survives_the_loss_of_all_connections) {
    relayed setting;
    const auto data = some_bytes(bulk);
    ferry::grpc_client node(setting.node(), [&](const ferry::task& task) { task.reply({{"data", data}}); });
    node.start();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    setting.relay.stall_after(to_server, in_the_middle);
    auto asked = setting.server->request({{"x", 1}}, "node");
    ASSERT_TRUE(setting.relay.wait([](const auto& seen) { return seen.stalled == 1; }, patience));
    setting.relay.cut();
    const auto reply = asked.get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.message.at("data").get<ferry::bytes>(), data);
}

/// The node has the task, and the server never hears of it.
TEST(reconnect, a_task_is_sent_again_where_the_poll_that_would_confirm_it_is_lost) {
    relayed setting;
    gathered<int> runs;
    auto dial = setting.node();
    dial.limits.streams = false;
    ferry::grpc_client node(dial, [&](const ferry::task& task) { runs.add(task.message().at("n").get<int>()); });
    node.start();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    ASSERT_TRUE(setting.server->send({{"n", 1}}, "node").wait());
    setting.relay.hold(to_server);
    auto sent = setting.server->send({{"n", 2}}, "node");
    ASSERT_TRUE(runs.wait_for_number(2));
    EXPECT_FALSE(sent.done());
    setting.relay.cut();
    setting.relay.go_on();
    const auto how = sent.wait();
    EXPECT_EQ(how.kind, outcome_kind::taken) << how.text;
    EXPECT_EQ(how.attempts, 2);
    ASSERT_TRUE(setting.server->send({{"n", 3}}, "node").wait());
    ASSERT_TRUE(runs.wait_for_number(4));
    EXPECT_THAT(runs.all(), ElementsAre(1, 2, 2, 3));
}

/// The same over a stream.
TEST(reconnect, a_task_whose_receipt_is_lost_is_run_once) {
    relayed setting;
    gathered<int> runs;
    ferry::grpc_client node(setting.node(),
                            [&](const ferry::task& task) { runs.add(task.message().at("n").get<int>()); });
    node.start();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    ASSERT_TRUE(setting.server->send({{"n", 1}}, "node").wait());
    setting.relay.hold(to_server);
    auto sent = setting.server->send({{"n", 2}}, "node");
    ASSERT_TRUE(runs.wait_for_number(2));
    EXPECT_FALSE(sent.done());
    setting.relay.cut();
    setting.relay.go_on();
    const auto how = sent.wait();
    EXPECT_EQ(how.kind, outcome_kind::taken) << how.text;
    EXPECT_EQ(how.attempts, 1);
    ASSERT_TRUE(setting.server->send({{"n", 3}}, "node").wait());
    EXPECT_THAT(runs.all(), ElementsAre(1, 2, 3));
}

/// The server has the reply, and the node never hears of it.
TEST(reconnect, a_reply_whose_answer_is_lost_is_sent_again_and_reported_once) {
    relayed setting;
    gathered<ferry::reply> unclaimed;
    setting.server->stop(0ms);
    setting.server = started(setting.options, [&](const ferry::reply& reply) { unclaimed.add(reply); });
    setting.relay.forward_to(setting.server->port());
    gathered<ferry::task> kept;
    ferry::grpc_client node(setting.node(), [&](const ferry::task& task) { kept.add(task); });
    node.start();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    auto first = setting.server->request({{"n", 1}}, "node");
    auto second = setting.server->request({{"n", 2}}, "node");
    ASSERT_TRUE(kept.wait_for_number(2));
    ASSERT_TRUE(kept.all().front().reply({{"n", 1}}).wait());
    ASSERT_TRUE(first.get());
    setting.relay.hold(to_node);
    auto upload = kept.all().back().reply({{"n", 2}});
    EXPECT_EQ(second.get().message.at("n"), 2);
    EXPECT_FALSE(upload.done());
    setting.relay.cut();
    setting.relay.go_on();
    EXPECT_EQ(upload.wait().kind, outcome_kind::taken);
    EXPECT_TRUE(unclaimed.all().empty());
}

/// Requests to several nodes while connection after connection is cut, anywhere, in both ways.
TEST(reconnect, a_stream_of_requests_survives_cut_after_cut_concurrent) {
    constexpr int nodes = 3, requests = 60;
    tcp_relay relay(0);
    auto options = server_options();
    options.keepalive = soon_noticed;
    ferry::basic_grpc_server<ferry::bounded_retry> server(options, ferry::bounded_retry{1000, 10min});
    server.start();
    relay.forward_to(server.port());
    std::vector<std::unique_ptr<ferry::grpc_client>> all;
    std::vector<std::string> ids;
    for (int i = 0; i < nodes; ++i) {
        ids.push_back("node-" + std::to_string(i));
        auto dial = client_options(ids.back(), relay.port());
        dial.keepalive = soon_noticed;
        all.push_back(std::make_unique<ferry::grpc_client>(dial, echo));
        all.back()->start();
    }
    ASSERT_TRUE(server.wait_for_nodes(ids, patience));

    std::atomic<bool> done = false;
    std::thread vandal([&] {
        for (std::uint64_t i = 0; !done; ++i) {
            relay.cut_after(i % 2 == 0 ? to_server : to_node, 20'000 + i * 7919 % 300'000);
            while (!done && !relay.wait([&](const auto& seen) { return seen.limits_reached > i; }, 10ms)) {
            }
        }
    });
    std::uint64_t seed = 0;
    do {  // until there were cuts enough: how many bytes go by until then is up to the resumed transfers
        std::vector<std::pair<ferry::bytes, std::vector<ferry::grpc_server::request_handle>>> asked;
        for (int i = 0; i < requests; ++i) {
            const auto data = some_bytes(static_cast<std::size_t>(i % 5) * 20'000, ++seed);
            ferry::send_options how;
            how.keep_while_disconnected = true;
            asked.emplace_back(data, server.request({{"data", data}}, ids, how));
        }
        for (auto& [data, handles] : asked) {
            for (auto& each : handles) {
                const auto reply = each.get();
                EXPECT_TRUE(reply) << reply.how.text;
                if (!reply) continue;
                EXPECT_EQ(reply.message.at("data").template get<ferry::bytes>(), data);
            }
        }
    } while (!HasFailure() && relay.seen().limits_reached <= 20);
    done = true;
    vandal.join();
    EXPECT_TRUE(server.pending().empty());
}

// --- connections that grow old, and such that are silent --------------------------------------------------------------

TEST(reconnect, nothing_is_lost_over_connections_that_the_server_ends_for_their_age_concurrent) {
    relayed setting([](auto& options) {
        options.max_connection_age = 300ms;
        options.max_connection_age_grace = 100ms;
    });
    ferry::grpc_client node(setting.node(), echo);
    node.start();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    const auto accepted_are = [&](std::size_t number) {
        return [number](const auto& seen) { return seen.accepted >= number; };
    };
    int n = 0;
    while (setting.relay.seen().accepted < 8) {
        std::vector<ferry::grpc_server::request_handle> asked;
        const int first = n;
        for (int i = 0; i < 10; ++i) asked.push_back(setting.server->request({{"n", n++}}, "node"));
        for (int i = 0; i < 10; ++i) {
            const auto reply = asked[static_cast<std::size_t>(i)].get();
            ASSERT_TRUE(reply) << reply.how.text;
            EXPECT_EQ(reply.message.at("n"), first + i);
        }
    }
    // A poll that is open then comes back, also where nothing is asked of the node.
    ASSERT_TRUE(setting.relay.wait(accepted_are(setting.relay.seen().accepted + 3), patience));
    ASSERT_TRUE(setting.server->request({{"n", n}}, "node").get());
    EXPECT_TRUE(setting.server->pending().empty());
}

/// Holds an upload of a node that polls up on its way until connections as old as its own have been given up.
struct aged {
    explicit aged(std::chrono::milliseconds grace)
        : setting([&](auto& options) {
              options.max_connection_age = 500ms;
              options.max_connection_age_grace = grace;
          }) {
        node.start();
        EXPECT_TRUE(setting.server->wait_for_nodes(1, patience));
    }

    /// The connections of the polls grow as old as that of the upload, and are given up as long as they are used.
    void hold_up_for_longer_than_the_age() {
        EXPECT_TRUE(setting.relay.wait([](const auto& seen) { return seen.stalled == 1; }, patience));
        const auto enough = setting.relay.seen().accepted + 2;
        while (setting.relay.seen().accepted < enough) {
            EXPECT_TRUE(setting.server->send({{"x", 1}}, "node").wait());
        }
    }

    ferry::client_options by_poll() {
        auto dial = setting.node();
        dial.limits.streams = false;
        return dial;
    }

    relayed setting;
    const ferry::bytes data = some_bytes(bulk);
    ferry::grpc_client node{by_poll(), [this](const ferry::task& task) {
                                if (task.message().contains("bulk")) task.reply({{"data", data}});
                            }};
};

TEST(reconnect, an_upload_that_takes_longer_than_the_age_goes_on_within_the_grace) {
    aged old(10min);
    old.setting.relay.stall_after(to_server, in_the_middle);
    auto asked = old.setting.server->request({{"bulk", true}}, "node");
    old.hold_up_for_longer_than_the_age();
    EXPECT_FALSE(asked.done());
    old.setting.relay.go_on();
    const auto reply = asked.get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.message.at("data").get<ferry::bytes>(), old.data);
    EXPECT_LT(old.setting.relay.seen().passed[to_server], bulk + in_the_middle);  // once
}

TEST(reconnect, an_upload_that_takes_longer_than_age_and_grace_is_sent_again) {
    aged old(3s);
    old.setting.relay.stall_after(to_server, in_the_middle);
    auto asked = old.setting.server->request({{"bulk", true}}, "node");
    old.hold_up_for_longer_than_the_age();
    ASSERT_TRUE(comes_true([&] { return old.setting.server->counts().inbound_bytes == 0; }));
    EXPECT_FALSE(asked.done());
    old.setting.relay.go_on();
    const auto reply = asked.get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.message.at("data").get<ferry::bytes>(), old.data);
    EXPECT_GT(old.setting.relay.seen().passed[to_server], bulk + in_the_middle);
}

TEST(reconnect, a_silent_connection_is_kept_by_pings_and_used_again) {
    tcp_relay relay(0);
    auto options = server_options();  // in plain text a ping and its answer are of 17 bytes each
    options.keepalive = {1s, 5s};
    ferry::grpc_server server(options);
    server.start();
    relay.forward_to(server.port());
    auto dial = client_options("node", relay.port());
    dial.keepalive = {1s, 5s};
    lines warnings;
    dial.log = into(warnings);
    ferry::grpc_client node(dial, echo);
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    ASSERT_TRUE(server.request({{"x", 1}}, "node").get());
    const auto before = relay.seen();
    EXPECT_EQ(before.accepted, 1U);  // a small reply goes over the stream
    constexpr std::uint64_t five_pings_and_answers = 5 * 2 * 17;
    EXPECT_TRUE(relay.wait(
        [&](const auto& seen) {
            return seen.passed[to_server] >= before.passed[to_server] + 2 * five_pings_and_answers &&
                   seen.passed[to_node] >= before.passed[to_node] + 2 * five_pings_and_answers;
        },
        patience));
    const auto reply = server.request({{"x", 2}}, "node").get();
    ASSERT_TRUE(reply) << reply.how.text;
    EXPECT_EQ(reply.how.attempts, 1);
    EXPECT_EQ(relay.seen().accepted, 1U);
    EXPECT_EQ(relay.seen().open, 1U);
    EXPECT_TRUE(warnings.all().empty()) << testing::PrintToString(warnings.all());
}

TEST(reconnect, a_node_notices_a_half_open_connection_and_gets_the_task_over_a_new_one) {
    lines server_warnings;
    relayed setting([&](auto& options) { options.log = into(server_warnings); });
    const auto data = some_bytes(bulk);
    gathered<bool> right;
    auto dial = setting.node();
    dial.keepalive = {1s, 5s};
    ferry::grpc_client node(dial, [&](const ferry::task& task) { right.add(data_of(task) == data); });
    node.start();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    setting.relay.stall_after(to_node, in_the_middle);
    const auto begun = std::chrono::steady_clock::now();
    auto sent = setting.server->send({{"data", data}}, "node");
    const auto how = sent.wait();
    EXPECT_EQ(how.kind, outcome_kind::taken) << how.text;
    EXPECT_GE(how.attempts, 2);
    EXPECT_LT(std::chrono::steady_clock::now() - begun, patience / 2);
    ASSERT_TRUE(right.wait_for_number(1));
    EXPECT_THAT(right.all(), ElementsAre(true));
    EXPECT_TRUE(server_warnings.wait_for_one_with("polled while an older poll of its was open"));
    EXPECT_EQ(setting.relay.seen().stalled, 1U);  // the old one was never closed from outside
}

TEST(reconnect, a_server_notices_that_a_node_is_silent_and_its_tasks_are_kept_for_it) {
    relayed setting([](auto& options) {
        options.limits.disconnect_after = 100ms;
        options.keepalive = {1s, 5s};
    });
    auto died = std::make_unique<ferry::grpc_client>(setting.node(), echo);
    died->start();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    setting.relay.stall();
    died->stop(0ms);  // and nobody tells the server
    died.reset();
    ASSERT_TRUE(
        comes_true([&] { return setting.server->get_node("node")->status == ferry::node_status::disconnected; }));
    EXPECT_EQ(setting.server->send({{"n", 0}}, "node").wait().kind, outcome_kind::node_disconnected);
}

TEST(reconnect, a_node_that_died_without_a_word_gets_what_was_kept_for_it_when_it_is_back) {
    relayed setting([](auto& options) { options.limits.disconnect_after = 100ms; });
    auto& server = *setting.server;
    auto died = std::make_unique<ferry::grpc_client>(setting.node(), echo);
    died->start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    ferry::send_options keep;
    keep.keep_while_disconnected = true;
    setting.relay.stall();
    died->stop(0ms);
    died.reset();
    EXPECT_EQ(server.get_node("node")->status, ferry::node_status::active);
    auto lost_on_its_way = server.send({{"n", 1}}, "node", keep);  // goes out, and nobody gets it
    ASSERT_TRUE(comes_true([&] {
        const auto pending = server.pending();
        return pending.size() == 1 && pending[0].attempts == 1;
    }));
    setting.relay.cut();
    ASSERT_TRUE(comes_true([&] { return server.get_node("node")->status == ferry::node_status::disconnected; }));
    EXPECT_EQ(server.send({{"n", 0}}, "node").wait().kind, outcome_kind::node_disconnected);
    auto queued = server.send({{"n", 2}}, "node", keep);
    auto asked = server.request({{"n", 3}}, "node", keep);
    EXPECT_FALSE(lost_on_its_way.done());

    gathered<int> seen;
    ferry::grpc_client back(setting.node(), [&](const ferry::task& task) {
        seen.add(task.message().at("n").get<int>());
        echo(task);
    });
    back.start();
    EXPECT_EQ(lost_on_its_way.wait().kind, outcome_kind::taken);
    EXPECT_EQ(lost_on_its_way.wait().attempts, 2);
    EXPECT_EQ(queued.wait().kind, outcome_kind::taken);
    EXPECT_EQ(asked.get().message.at("n"), 3);
    EXPECT_THAT(seen.all(), ElementsAre(1, 2, 3));
}

// --- addresses ------------------------------------------------------------------------------------------------------

struct place {
    std::string name;
    std::string server_at;
    std::string node_dials;

    // NOLINTNEXTLINE(readability-identifier-naming): GoogleTest calls it so
    friend void PrintTo(const place& at, std::ostream* to) {
        *to << "a server at " << at.server_at << ", dialled as " << at.node_dials;
    }
};

class reconnect_at : public testing::TestWithParam<place> {};

TEST_P(reconnect_at, a_node_finds_its_server_again) {
    const tls way;
    auto options = way.server();
    options.host = GetParam().server_at;
    auto server = started(options);
    options.port = server->port();
    auto dial = way.node(options.port);
    dial.researchers.front().host = GetParam().node_dials;
    ferry::grpc_client node(dial, echo);
    node.start();
    for (int round = 0; round < 2; ++round) {
        ASSERT_TRUE(server->wait_for_nodes(1, patience));
        EXPECT_TRUE(server->request({{"x", 1}}, "node").get());
        if (round > 0) break;
        server->stop(0ms);
        server = started(options);
    }
}

INSTANTIATE_TEST_SUITE_P(addresses, reconnect_at,
                         testing::Values(place{"ipv4", "127.0.0.1", "127.0.0.1"}, place{"ipv6", "::1", "::1"},
                                         place{"ipv6_in_brackets", "::1", "[::1]"},
                                         place{"name", "localhost", "localhost"},
                                         place{"name_of_which_only_ipv4_answers", "127.0.0.1", "localhost"},
                                         place{"name_of_which_only_ipv6_answers", "::1", "localhost"}),
                         [](const auto& about) { return about.param.name; });

// --- several researchers --------------------------------------------------------------------------------------------

TEST(reconnect, a_researcher_that_is_gone_disturbs_no_other_concurrent) {
    auto options = server_options();
    auto gone = started(options);
    options.port = gone->port();
    auto there = started(server_options());
    tcp_relay relay(there->port());
    auto dial = client_options("node", options.port);
    dial.researchers.push_back({"localhost", relay.port(), ferry::plain_text{}});
    ferry::grpc_client node(dial, echo);
    node.start();
    ASSERT_TRUE(gone->wait_for_nodes(1, patience));
    ASSERT_TRUE(there->wait_for_nodes(1, patience));
    ASSERT_TRUE(gone->request({{"x", 1}}, "node").get());
    ASSERT_TRUE(there->request({{"x", 1}, {"data", some_bytes(100'000)}}, "node").get());
    const auto before = relay.seen().accepted;
    gone->stop(0ms);
    gone.reset();
    for (int i = 0; i < 50; ++i) {
        const auto reply = there->request({{"x", i}, {"data", some_bytes(100'000)}}, "node").get();
        ASSERT_TRUE(reply) << reply.how.text;
        EXPECT_EQ(reply.how.attempts, 1);
    }
    gone = started(options);
    ASSERT_TRUE(gone->wait_for_nodes(1, patience));
    EXPECT_TRUE(gone->request({{"x", 2}}, "node").get());
    EXPECT_TRUE(there->request({{"x", 2}}, "node").get());
    EXPECT_EQ(relay.seen().accepted, before);
}

TEST(reconnect, a_researcher_that_stands_still_disturbs_no_other_concurrent) {
    auto mute = started(server_options());
    auto there = started(server_options());
    tcp_relay relay(mute->port());
    auto dial = client_options("node", relay.port());
    dial.researchers.push_back({"localhost", there->port(), ferry::plain_text{}});
    ferry::grpc_client node(dial, echo);
    node.start();
    ASSERT_TRUE(mute->wait_for_nodes(1, patience));
    ASSERT_TRUE(there->wait_for_nodes(1, patience));
    const auto data = some_bytes(bulk);
    relay.stall_after(to_node, in_the_middle);
    auto stuck = mute->request({{"data", data}}, "node");
    ASSERT_TRUE(relay.wait([](const auto& seen) { return seen.stalled == 1; }, patience));
    for (int i = 0; i < 50; ++i) EXPECT_TRUE(there->request({{"x", i}}, "node").get());
    EXPECT_FALSE(stuck.done());
    relay.go_on();
    EXPECT_EQ(stuck.get().message.at("data").get<ferry::bytes>(), data);
}

// --- servers that stop ----------------------------------------------------------------------------------------------

TEST(reconnect, a_task_under_way_ends_with_its_server_and_the_node_goes_on_with_the_next) {
    // A write that is stuck holds `stop` up until the system gives the connection up, which gRPC has it do after this time.
    relayed setting([](auto& options) { options.keepalive.answer_within = 1s; });
    gathered<std::string> seen;
    ferry::grpc_client node(setting.node(), [&](const ferry::task& task) {
        seen.add(task.message().at("name").get<std::string>());
        echo(task);
    });
    node.start();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    setting.relay.stall_after(to_node, in_the_middle);
    auto sent = setting.server->send({{"name", "half"}, {"data", some_bytes(bulk)}}, "node");
    ASSERT_TRUE(setting.relay.wait([](const auto& now) { return now.stalled == 1; }, patience));
    EXPECT_FALSE(sent.done());
    setting.server->stop(0ms);
    EXPECT_EQ(sent.wait().kind, outcome_kind::stopped);
    EXPECT_EQ(sent.wait().attempts, 1);
    setting.server = started(setting.options);
    setting.relay.forward_to(setting.server->port());
    setting.relay.cut();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    EXPECT_TRUE(setting.server->request({{"name", "next"}}, "node").get());
    EXPECT_THAT(seen.all(), ElementsAre("next"));
}

TEST(reconnect, a_server_that_stops_lets_a_task_under_way_come_to_its_end_concurrent) {
    relayed setting;
    const auto data = some_bytes(bulk);
    gathered<bool> right;
    ferry::grpc_client node(setting.node(), [&](const ferry::task& task) { right.add(data_of(task) == data); });
    node.start();
    ASSERT_TRUE(setting.server->wait_for_nodes(1, patience));
    setting.relay.stall_after(to_node, in_the_middle);
    auto sent = setting.server->send({{"data", data}}, "node");
    ASSERT_TRUE(setting.relay.wait([](const auto& now) { return now.stalled == 1; }, patience));
    auto& server = *setting.server;
    std::thread stopping([&] { server.stop(patience); });
    EXPECT_TRUE(comes_true([&] {  // a stopping server takes nothing more
        return server.send({{"x", 1}}, "nobody").wait().kind == outcome_kind::stopped;
    }));
    EXPECT_FALSE(sent.done());
    setting.relay.go_on();
    EXPECT_EQ(sent.wait().kind, outcome_kind::taken) << sent.wait().text;
    EXPECT_EQ(sent.wait().attempts, 1);
    stopping.join();
    ASSERT_TRUE(right.wait_for_number(1));
    EXPECT_THAT(right.all(), ElementsAre(true));
}

}  // namespace
