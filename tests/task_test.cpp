#include <ferry/task.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace {

using testing::ElementsAre;
using message = std::string;
using task = ferry::basic_task<message>;
using ferry::detail::delivery_state;

/// Notes what a task asks of its link.
class noting_host final : public ferry::detail::task_host<message> {
public:
    ferry::basic_delivery<message> reply(ferry::detail::task_run&, const message& to, message answer) override {
        replies.push_back(to + " <- " + answer);
        const auto made =
            std::make_shared<delivery_state<message>>(std::weak_ptr<ferry::detail::delivery_host>(), "researcher");
        made->end({ferry::outcome_kind::taken, ferry::errc::ok, {}, 1}, std::nullopt);
        return ferry::basic_delivery<message>(made);
    }
    void send_feedback(ferry::feedback what) override { sent.push_back(std::move(what)); }
    void in_progress(std::uint64_t key) override { renewed.push_back(key); }
    const std::string& researcher() const override { return name; }

    std::vector<std::string> replies;
    std::vector<ferry::feedback> sent;
    std::vector<std::uint64_t> renewed;
    std::string name = "localhost:50051";
};

struct a_task : testing::Test {
    std::shared_ptr<noting_host> host = std::make_shared<noting_host>();
    std::stop_source client;
    std::shared_ptr<ferry::detail::task_run> run =
        std::make_shared<ferry::detail::task_run>(7, 99, 2, true, client.get_token());
};

TEST_F(a_task, is_replied_to_over_its_link) {
    const task given(host, run, "question");
    EXPECT_EQ(given.message(), "question");
    EXPECT_EQ(given.researcher(), "localhost:50051");
    EXPECT_EQ(given.reply("answer").wait().kind, ferry::outcome_kind::taken);
    given.reply("more");
    EXPECT_THAT(host->replies, ElementsAre("question <- answer", "question <- more"));
}

TEST_F(a_task, sends_log_lines_and_metrics) {
    const task given(host, run, "question");
    given.log("INFO", "half way");
    ferry::scalars metrics;
    metrics.metric["loss"] = 0.5F;
    given.send(metrics);
    ASSERT_EQ(host->sent.size(), 2U);
    const auto& line = std::get<ferry::log_line>(host->sent[0]);
    EXPECT_EQ(line.node_id, "") << "the link fills it in";
    EXPECT_EQ(line.level, "INFO");
    EXPECT_EQ(line.message, "half way");
    EXPECT_EQ(std::get<ferry::scalars>(host->sent[1]).metric, metrics.metric);
}

TEST_F(a_task, learns_that_the_client_stops) {
    const task given(host, run, "question");
    const auto token = given.stop_token();
    EXPECT_FALSE(token.stop_requested());
    client.request_stop();
    EXPECT_TRUE(token.stop_requested());
}

TEST_F(a_task, learns_that_it_alone_is_withdrawn) {
    const task given(host, run, "question");
    const auto token = given.stop_token();
    run->stop();
    EXPECT_TRUE(token.stop_requested());
    EXPECT_FALSE(client.stop_requested());
}

TEST_F(a_task, tells_which_delivery_it_is_and_renews_its_lease) {
    const task given(host, run, "question");
    EXPECT_EQ(given.attempt(), 2);
    EXPECT_TRUE(given.urgent());
    given.in_progress();
    EXPECT_THAT(host->renewed, ElementsAre(7U));
}

TEST_F(a_task, is_taken_unless_it_is_refused) {
    using ferry::frames::verdict;
    using namespace std::chrono_literals;
    const task given(host, run, "question");
    EXPECT_EQ(run->decided().what, verdict::taken);
    given.refuse(ferry::refusal::for_now, "busy", 5s);
    EXPECT_EQ(run->decided().what, verdict::not_now);
    EXPECT_EQ(run->decided().text, "busy");
    EXPECT_EQ(run->decided().pause, 5s);
    given.refuse(ferry::refusal::for_good, "never");
    EXPECT_EQ(run->decided().what, verdict::refused);
}

TEST_F(a_task, whose_reply_fails_is_refused_unless_another_goes_or_its_callback_decides) {
    using ferry::frames::verdict;
    run->reply_failed("too large");
    EXPECT_EQ(run->decided().what, verdict::refused);
    EXPECT_EQ(run->decided().text, "the reply can't be sent: too large");
    const task given(host, run, "question");
    given.refuse(ferry::refusal::for_now, "not now");
    EXPECT_EQ(run->decided().what, verdict::not_now);
    run->reply_failed("again");
    EXPECT_EQ(run->decided().what, verdict::not_now);
    run->decide({});
    EXPECT_EQ(run->decided().what, verdict::refused);
    run->reply_goes();
    EXPECT_EQ(run->decided().what, verdict::taken);
    given.refuse(ferry::refusal::for_good, "no more of these");
    EXPECT_EQ(run->decided().what, verdict::refused);
    EXPECT_EQ(run->decided().text, "no more of these");
}

TEST_F(a_task, may_be_kept_and_shares_its_message_with_its_copies) {
    auto given = std::make_unique<task>(host, run, "question");
    const task kept = *given;
    EXPECT_EQ(&kept.message(), &given->message());
    const std::weak_ptr<noting_host> watched = host;
    given.reset();
    host.reset();
    EXPECT_FALSE(watched.expired()) << "a kept task can still be replied to";
    kept.reply("late");
    EXPECT_THAT(watched.lock()->replies, ElementsAre("question <- late"));
}

}  // namespace
