#include <ferry/feedback.hpp>

#include <gtest/gtest.h>

#include <utility>
#include <variant>

namespace {

using ferry::feedback;
using ferry::log_line;
using ferry::scalars;

TEST(feedback, names_the_node_that_sent_it) {
    const feedback line = log_line{"node-1", "INFO", "text"};
    EXPECT_EQ(node_of(line), "node-1");
    scalars metrics;
    metrics.node_id = "node-2";
    const feedback numbers = std::move(metrics);
    EXPECT_EQ(node_of(numbers), "node-2");
    EXPECT_EQ(&node_of(numbers), &std::get<scalars>(numbers).node_id);
}

TEST(feedback, scalars_claim_nothing_at_first) {
    const scalars s;
    EXPECT_FALSE(s.train || s.test || s.test_on_local_updates || s.test_on_global_updates);
    EXPECT_TRUE(s.metric.empty());
    EXPECT_FALSE(s.epoch.has_value());
    EXPECT_FALSE(s.num_samples_trained.has_value());
    EXPECT_EQ(s.total_samples + s.batch_samples + s.num_batches + s.iteration, 0);
}

}  // namespace
