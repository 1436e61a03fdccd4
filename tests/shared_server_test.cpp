#include <ferry/grpc_server.hpp>

#include "hub_store.hpp"
#include "promises.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace loopback;
using ferry::errc;
using ferry::node_status;
using ferry::outcome_kind;
using ferry_test::hub;
using ferry_test::hub_store;
using sharing_server = ferry::basic_grpc_server<hub_store>;

/// Two servers over one hub, in one process.
class shared_server_test : public testing::Test {
protected:
    std::unique_ptr<sharing_server> make(const std::string& name,
                                         std::function<void(const ferry::reply&)> on_unclaimed = {}) {
        auto made = std::make_unique<sharing_server>(quick_server(), hub_store(shared, name));
        if (on_unclaimed) made->on_unclaimed_reply(std::move(on_unclaimed));
        made->start();
        return made;
    }
    /// A node of this server's, which goes to the other one where this one is gone.
    std::unique_ptr<ferry::grpc_client> connect(const std::string& id, sharing_server& to, sharing_server& or_to,
                                                std::function<void(ferry::task)> on_task = echo) {
        auto options = quick_client(id, to.port());
        options.researchers.front().also_at = {{"localhost", or_to.port()}};
        auto made = std::make_unique<ferry::grpc_client>(std::move(options), std::move(on_task));
        made->start();
        EXPECT_TRUE(to.wait_for_nodes({id}, patience));
        EXPECT_TRUE(or_to.wait_for_nodes({id}, patience));
        return made;
    }
    ~shared_server_test() override {
        EXPECT_TRUE(soon([&] { return shared->open_ends() == 0; }));
        a.reset();
        b.reset();
        EXPECT_EQ(shared->tasks(), 0U);
        EXPECT_EQ(shared->open_ends(), 0U);
    }

    const std::shared_ptr<hub> shared = std::make_shared<hub>();
    std::unique_ptr<sharing_server> a = make("a"), b = make("b");
};

TEST_F(shared_server_test, sends_to_a_node_of_the_other_one_concurrent) {
    std::atomic<int> came{0};
    const auto node =
        connect("node", *b, *a, [&](const ferry::task& task) { came += task.message().at("n").get<int>(); });
    const auto sent = a->send({{"n", 7}}, "node");
    EXPECT_EQ(sent.wait().kind, outcome_kind::taken);
    EXPECT_TRUE(sent.accepted());
    EXPECT_EQ(sent.sent_bytes(), sent.total_bytes());
    EXPECT_EQ(came, 7);
    EXPECT_TRUE(soon([&] { return a->pending().empty() && b->pending().empty(); }));
}

ferry::message with_id(const std::string& id) { return {{"request_id", id}, {"n", 1}}; }

TEST_F(shared_server_test, a_request_is_answered_where_it_was_asked_concurrent) {
    const auto node = connect("node", *b, *a, [](const ferry::task& task) {
        task.reply({{"request_id", task.message().at("request_id")}, {"answer", task.message().at("n")}});
    });
    std::vector<std::pair<int, sharing_server::request_handle>> asked;
    for (int i = 0; i < 100; ++i) asked.emplace_back(i, (i % 2 == 0 ? a : b)->request({{"n", i}}, "node"));
    for (auto& [i, each] : asked) {
        ASSERT_TRUE(each.wait_for(patience)) << i;
        EXPECT_EQ(each.get().message.at("answer"), i);
    }
    EXPECT_TRUE(soon([&] { return a->pending().empty() && b->pending().empty(); }));
}

TEST_F(shared_server_test, large_payloads_go_both_ways) {
    const ferry::message large{{"data", some_bytes(20'000'000)}};
    const auto node = connect("node", *b, *a);
    const auto asked = a->request(large, "node");
    ASSERT_TRUE(asked.wait_for(patience));
    EXPECT_TRUE(asked.get().message.at("data") == large.at("data"));
}

TEST_F(shared_server_test, a_broadcast_reaches_the_nodes_of_all_concurrent) {
    std::atomic<int> came{0};
    const auto count = [&](const ferry::task&) { ++came; };
    const auto first = connect("first", *a, *b, count);
    const auto second = connect("second", *b, *a, count);
    const auto sent = a->broadcast({{"n", 1}});
    EXPECT_EQ(sent.size(), 2U);
    for (const auto& each : sent) EXPECT_EQ(each.wait().kind, outcome_kind::taken);
    EXPECT_EQ(came, 2);
}

TEST_F(shared_server_test, knows_the_nodes_of_all) {
    const auto first = connect("first", *a, *b);
    auto second = connect("second", *b, *a);
    const auto c = make("c");
    for (const auto* server : {a.get(), b.get(), c.get()}) {
        std::set<std::string> ids;
        for (const auto& each : server->get_all_nodes()) {
            ids.insert(each.id);
            EXPECT_EQ(each.status, node_status::active);
        }
        EXPECT_EQ(ids, (std::set<std::string>{"first", "second"}));
        EXPECT_FALSE(server->get_node("nobody"));
    }
    second.reset();
    EXPECT_TRUE(soon([&] { return a->get_node("second")->status == node_status::waiting; }));
    EXPECT_EQ(a->send({{"n", 1}}, "nobody").wait().kind, outcome_kind::node_unknown);
}

TEST_F(shared_server_test, withdraws_what_another_one_has_queued) {
    connect("node", *b, *a);
    const auto sent = a->send({{"n", 1}}, "node", {.keep_while_disconnected = true});
    EXPECT_TRUE(sent.wait_accepted());
    EXPECT_TRUE(soon([&] { return b->pending().size() == 1; }));
    EXPECT_EQ(a->pending().size(), 1U);
    auto again = sent;
    again.cancel();
    EXPECT_EQ(sent.wait().kind, outcome_kind::cancelled);
    EXPECT_TRUE(soon([&] { return b->pending().empty(); }));
}

TEST_F(shared_server_test, a_message_of_a_node_goes_to_a_node_of_the_other_one) {
    std::promise<ferry::message> came;
    const auto to = connect("to", *b, *a, [&](const ferry::task& task) { came.set_value(task.message()); });
    const auto from = connect("from", *a, *b);
    const ferry::message overlay{{"__type_message__", {{"module", "m"}, {"class", "OverlayMessage"}}},
                                 {"node_id", "from"},
                                 {"dest_node_id", "to"},
                                 {"n", 7}};
    EXPECT_EQ(from->send(overlay).front().wait().kind, outcome_kind::taken);
    auto message = came.get_future();
    ASSERT_TRUE(comes(message));
    EXPECT_EQ(message.get().at("n"), 7);
    EXPECT_TRUE(soon([&] { return shared->tasks() == 0; }));  // before `to` ends, whose next poll confirms it
}

/// The node has taken a task, and replies when it may.
class moves_in_mid_request : public shared_server_test {
protected:
    void begin() {
        const auto may_reply = std::make_shared<std::shared_future<void>>(go_on.get_future());
        node = connect("node", *a, *b, [this, may_reply](const ferry::task& task) {
            ++runs;
            taken.set_value();
            may_reply->wait();
            task.reply({{"request_id", task.message().at("request_id")}, {"answer", 42}});
        });
        asked.emplace(b->request(with_id("r"), "node"));
        taken.get_future().wait();
    }
    void end() {
        EXPECT_TRUE(soon([&] { return shared->owner("node") == "b"; }));
        go_on.set_value();
        ASSERT_TRUE(asked->wait_for(patience));
        EXPECT_EQ(asked->get().message.at("answer"), 42);
        EXPECT_EQ(runs, 1);
        EXPECT_TRUE(soon([&] { return b->pending().empty(); }));
        node.reset();
    }

    std::promise<void> taken, go_on;
    std::atomic<int> runs{0};
    std::unique_ptr<ferry::grpc_client> node;
    std::optional<sharing_server::request_handle> asked;
};

TEST_F(moves_in_mid_request, as_its_server_stops_concurrent) {
    begin();
    a->stop();
    end();
}

TEST_F(moves_in_mid_request, as_its_server_dies_concurrent) {
    begin();
    shared->fail_next(hub::kind::leave, hub::fault::refused);
    a.reset();
    EXPECT_EQ(shared->owner("node"), "a");
    shared->expire("a");
    end();
}

TEST_F(shared_server_test, a_server_that_stops_leaves_its_tasks_to_the_others) {
    connect("node", *a, *b);
    const auto sent = a->request(with_id("r"), "node", {.keep_while_disconnected = true});
    EXPECT_TRUE(sent.wait_accepted());
    std::promise<ferry::message> came;
    auto c = make("c", [&](const ferry::reply& reply) { came.set_value(reply.message); });
    b.reset();
    a.reset();
    EXPECT_EQ(sent.wait().kind, outcome_kind::stopped);
    auto options = quick_client("node", c->port());
    ferry::grpc_client node(options, echo);
    node.start();
    auto reply = came.get_future();
    ASSERT_TRUE(comes(reply));
    EXPECT_EQ(reply.get().at("n"), 1);
    EXPECT_TRUE(soon([&] { return shared->open_ends() == 0; }));
}

TEST_F(shared_server_test, a_store_that_does_not_listen_is_an_error_at_start) {
    shared->fail_next(hub::kind::listen, hub::fault::refused);
    EXPECT_EQ(thrown_by([&] { make("c"); }), errc::store_failed);
}

TEST_F(shared_server_test, an_end_whose_acknowledgement_failed_is_acknowledged_when_the_store_works_again) {
    std::atomic<int> warnings{0};
    auto options = quick_server();
    options.log = [&](ferry::log_level, const std::string& text) {
        warnings += text.find("could not note that an end was dealt with") != std::string::npos;
    };
    sharing_server c(std::move(options), hub_store(shared, "c"));
    c.start();
    const auto node = connect("node", *b, *a, [](const ferry::task&) {});  // no reply, which is another end
    ASSERT_TRUE(c.wait_for_nodes({"node"}, patience));
    for (const bool is_told : {false, true}) {
        const int before = warnings;
        shared->fail_next(hub::kind::acknowledge, hub::fault::refused);
        EXPECT_EQ(c.send({{"n", 1}}, "node").wait().kind, outcome_kind::taken);
        EXPECT_TRUE(soon([&] { return warnings == before + 1 && shared->open_ends() == 1; }));
        if (is_told) {
            shared->interrupt("c");
        } else {
            EXPECT_EQ(c.send({{"n", 2}}, "node").wait().kind, outcome_kind::taken);
        }
        EXPECT_TRUE(soon([&] { return shared->open_ends() == 0; })) << is_told;
    }
}

TEST_F(shared_server_test, servers_come_and_go_while_nodes_move_concurrent) {
    std::atomic<int> runs{0};
    const auto count = [&](const ferry::task& task) {
        ++runs;
        task.reply({{"request_id", task.message().at("request_id")}});
    };
    const auto first = connect("first", *a, *b, count);
    const auto second = connect("second", *a, *b, count);
    std::vector<sharing_server::request_handle> asked;
    for (int round = 0; round < 6; ++round) {
        auto& here = round % 2 == 0 ? b : a;
        auto& gone = round % 2 == 0 ? a : b;
        for (int i = 0; i < 10; ++i) {
            const sharing_server::request_handle handle =
                here->request({{"n", i}}, i % 2 == 0 ? "first" : "second", {.keep_while_disconnected = true});
            asked.push_back(handle);
        }
        const auto port = gone->port();
        gone.reset();
        for (const auto& each : asked) {
            ASSERT_TRUE(each.wait_for(patience));
            EXPECT_EQ(each.wait().kind, outcome_kind::replied);
        }
        asked.clear();
        auto options = quick_server();
        options.port = port;
        gone = started(
            [&] { return std::make_unique<sharing_server>(options, hub_store(shared, round % 2 == 0 ? "a" : "b")); });
    }
    EXPECT_EQ(runs, 60);
}

}  // namespace
