#include <ferry/grpc_client.hpp>

#include "loopback.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <mutex>
#include <set>

namespace {

using namespace loopback;
using testing::HasSubstr;

TEST(grpc_client, says_what_its_options_lack) {
    ferry::grpc_client nameless(client_options("", 1), echo);
    EXPECT_EQ(thrown_by([&] { nameless.start(); }), ferry::errc::invalid_argument);
    auto nowhere = client_options("node", 1);
    nowhere.researchers.clear();
    ferry::grpc_client lost(nowhere, echo);
    EXPECT_EQ(thrown_by([&] { lost.start(); }), ferry::errc::invalid_argument);
    ferry::grpc_client trusting(client_options("node", 1, std::monostate{}), echo);
    EXPECT_EQ(thrown_by([&] { trusting.start(); }), ferry::errc::invalid_argument);
    ferry::grpc_client unread(client_options("node", 1, ferry::pinned_certificate{"/nowhere.pem"}), echo);
    EXPECT_EQ(thrown_by([&] { unread.start(); }), ferry::errc::bad_credentials);
}

TEST(grpc_client, connects_to_a_server_that_comes_later_concurrent) {
    const reserved_port port;
    ferry::grpc_client node(client_options("node", port.number()), echo);
    node.start();
    EXPECT_FALSE(node.wait_connected(50ms));
    auto options = server_options();
    options.port = port.number();
    ferry::grpc_server server(options);
    server.start();
    EXPECT_TRUE(node.wait_connected(patience));
    EXPECT_TRUE(server.request({{"x", 1}}, "node").get());
}

TEST(grpc_client, refuses_a_server_with_another_certificate) {
    temporary_folder folder;
    certificate right(folder, "right");
    certificate wrong(folder, "wrong");
    ferry::grpc_server server(server_options(ferry::ssl_credentials{wrong.key_file, wrong.cert_file}));
    server.start();
    ferry::grpc_client node(client_options("node", server.port(), ferry::pinned_certificate{right.cert_file}), echo);
    node.start();
    EXPECT_FALSE(node.wait_connected(500ms));
    EXPECT_TRUE(server.get_all_nodes().empty());
}

TEST(grpc_client, fetches_the_certificate_only_where_asked_by_name_and_pins_it) {
    temporary_folder folder;
    certificate cert(folder);
    ferry::grpc_server server(server_options(ferry::ssl_credentials{cert.key_file, cert.cert_file}));
    server.start();
    const auto kept = folder.file("fetched.pem");
    ferry::grpc_client node(client_options("node", server.port(), ferry::trust_on_first_use{kept}), echo);
    node.start();
    ASSERT_TRUE(node.wait_connected(patience));
    EXPECT_TRUE(server.request({{"x", 1}}, "node").get());
    EXPECT_EQ(std::filesystem::status(kept).permissions() & std::filesystem::perms::all,
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    certificate other(folder, "other");
    ferry::grpc_server impostor(server_options(ferry::ssl_credentials{other.key_file, other.cert_file}));
    impostor.start();
    ferry::grpc_client careful(client_options("careful", impostor.port(), ferry::trust_on_first_use{kept}), echo);
    careful.start();
    EXPECT_FALSE(careful.wait_connected(500ms));
}

TEST(grpc_client, a_task_that_throws_costs_just_that_task_and_is_reported) {
    std::mutex mutex;
    std::vector<std::string> lines;
    auto options = server_options();
    options.on_message = [&](const ferry::feedback& from) {
        const std::lock_guard lock(mutex);
        lines.push_back(std::get<ferry::log_line>(from).message);
    };
    ferry::grpc_server server(options);
    server.start();
    ferry::grpc_client node(client_options("node", server.port()), [](const ferry::task& task) {
        task.reply({{"half", task.message().at("n").get<int>() / 2}});
    });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    EXPECT_EQ(server.send({{"no", "n"}}, "node").wait().kind, ferry::outcome_kind::refused);
    const auto reply = server.request({{"n", 8}}, "node").get();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply.message.at("half"), 4);
    const auto until = std::chrono::steady_clock::now() + patience;
    const auto all = [&] {
        const std::lock_guard lock(mutex);
        return lines;
    };
    while (all().empty() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    server.stop();
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_THAT(lines.front(), HasSubstr("a task failed"));
}

TEST(grpc_client, a_reply_can_be_sent_later_and_from_another_thread_concurrent) {
    ferry::grpc_server server(server_options());
    server.start();
    std::promise<ferry::task> handed_out;
    ferry::grpc_client node(client_options("node", server.port()),
                            [&](const ferry::task& task) { handed_out.set_value(task); });
    node.start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    auto request = server.request({{"x", 1}}, "node");
    auto kept = handed_out.get_future().get();
    EXPECT_FALSE(request.done());
    auto upload = kept.reply({{"y", 2}});
    EXPECT_EQ(upload.wait().kind, ferry::outcome_kind::taken);
    EXPECT_EQ(request.get().message.at("y"), 2);
}

TEST(grpc_client, serves_several_researchers_at_once_concurrent) {
    ferry::grpc_server one(server_options());
    ferry::grpc_server two(server_options());
    one.start();
    two.start();
    auto options = client_options("node", one.port());
    options.researchers.push_back({"localhost", two.port(), ferry::plain_text{}});
    ferry::grpc_client node(options, echo);
    node.start();
    ASSERT_TRUE(node.wait_connected(patience));
    auto first = one.request({{"x", 1}}, "node");
    auto second = two.request({{"x", 2}}, "node");
    EXPECT_EQ(first.get().message.at("x"), 1);
    EXPECT_EQ(second.get().message.at("x"), 2);
}

TEST(grpc_client, a_reply_waits_for_a_server_that_is_away_concurrent) {
    auto options = server_options();
    auto first = std::make_unique<ferry::grpc_server>(options);
    first->start();
    options.port = first->port();
    std::promise<ferry::task> handed_out;
    ferry::grpc_client node(client_options("node", options.port),
                            [&](const ferry::task& task) { handed_out.set_value(task); });
    node.start();
    ASSERT_TRUE(first->wait_for_nodes(1, patience));
    auto asked = first->request({{"request_id", "r"}}, "node");
    const auto kept = handed_out.get_future().get();
    first->stop(0ms);
    auto upload = kept.reply({{"late", true}});
    EXPECT_FALSE(upload.wait_for(100ms));

    std::promise<ferry::reply> unclaimed;
    const auto second = started([&] {
        auto made = std::make_unique<ferry::grpc_server>(options);
        made->on_unclaimed_reply([&](const ferry::reply& reply) { unclaimed.set_value(reply); });
        return made;
    });
    const auto late = unclaimed.get_future().get();
    EXPECT_EQ(late.message.at("late"), true);
    EXPECT_EQ(late.message.at("request_id"), "r");
    EXPECT_EQ(upload.wait().kind, ferry::outcome_kind::taken);
}

TEST(grpc_client, reconnects_though_a_callback_holds_its_only_thread_concurrent) {
    auto first = std::make_unique<ferry::grpc_server>(server_options());
    first->start();
    auto options = client_options("node", first->port());
    options.callback_threads = 1;
    std::promise<void> begun, release;
    ferry::grpc_client node(options, [&, held = release.get_future().share()](const ferry::task&) {
        begun.set_value();
        held.wait();
    });
    node.start();
    ASSERT_TRUE(first->wait_for_nodes(1, patience));
    first->send({{"x", 1}}, "node");
    begun.get_future().wait();
    auto again = server_options();
    again.port = first->port();
    first->stop(0ms);
    first.reset();
    const auto second = started([&] { return std::make_unique<ferry::grpc_server>(again); });
    EXPECT_TRUE(second->wait_for_nodes(1, patience));
    second->stop(0ms);
    release.set_value();
}

TEST(grpc_client, stop_ends_every_reply_and_may_come_from_a_task_concurrent) {
    ferry::grpc_server server(server_options());
    server.start();
    std::promise<void> stopped;
    std::unique_ptr<ferry::grpc_client> node;
    node = std::make_unique<ferry::grpc_client>(client_options("node", server.port()), [&](const ferry::task& task) {
        node->stop(2 * patience);  // does not wait for itself
        EXPECT_TRUE(task.stop_token().stop_requested());
        EXPECT_EQ(task.reply({}).wait().kind, ferry::outcome_kind::stopped);
        stopped.set_value();
    });
    node->start();
    ASSERT_TRUE(server.wait_for_nodes(1, patience));
    server.send({{"x", 1}}, "node");
    EXPECT_EQ(stopped.get_future().wait_for(patience), std::future_status::ready);
}

}  // namespace
