#include <ferry/identity.hpp>

#include <gtest/gtest.h>

#include <type_traits>

namespace {

using ferry::peer_info;

/// Without what it needs to say about certificates.
struct silent_identity {
    using policy_category = ferry::identity_tag;
    bool admits(const std::string&, const peer_info&) const { return true; }
};

static_assert(ferry::identity_policy<ferry::open_identity> && std::is_empty_v<ferry::open_identity>);
static_assert(ferry::identity_policy<ferry::certificate_identity> && std::is_empty_v<ferry::certificate_identity>);
static_assert(ferry::identity_policy<ferry::token_identity>);
static_assert(!ferry::identity_policy<silent_identity>);

TEST(open_identity, believes_what_everyone_says) {
    EXPECT_TRUE(ferry::open_identity{}.admits("anyone", {"a", {}, ""}));
}

TEST(certificate_identity, believes_the_names_of_the_certificate) {
    const peer_info peer{"a", {"node-1", "node-1.example"}, "node-2"};
    EXPECT_TRUE(ferry::certificate_identity{}.admits("node-1", peer));
    EXPECT_TRUE(ferry::certificate_identity{}.admits("node-1.example", peer));
    EXPECT_FALSE(ferry::certificate_identity{}.admits("node-2", peer));
    EXPECT_FALSE(ferry::certificate_identity{}.admits("node-1", {"a", {}, ""}));
}

TEST(token_identity, believes_who_has_the_nodes_token) {
    const auto tokens = ferry::token_identity().allow("node-1", "one").allow("node-2", "two").allow("careless", "");
    EXPECT_TRUE(tokens.admits("node-1", {"a", {}, "one"}));
    EXPECT_FALSE(tokens.admits("node-1", {"a", {}, "two"}));
    EXPECT_FALSE(tokens.admits("node-1", {"a", {}, "on"}));
    EXPECT_FALSE(tokens.admits("node-1", {"a", {}, "ona"}));
    EXPECT_FALSE(tokens.admits("node-1", {"a", {}, ""}));
    EXPECT_FALSE(tokens.admits("stranger", {"a", {}, "one"}));
    EXPECT_FALSE(tokens.admits("careless", {"a", {}, ""})) << "an empty token is none";
    EXPECT_FALSE(ferry::token_identity{}.admits("node-1", {"a", {}, "one"}));
}

TEST(certificate_identity, knows_who_has_a_certificate) {
    EXPECT_TRUE(ferry::certificate_identity{}.knows({"a", {"node-1"}, ""}));
    EXPECT_FALSE(ferry::certificate_identity{}.knows({"a", {}, "node-1"}));
}

TEST(token_identity, knows_every_token_in_use_and_no_other) {
    auto tokens = ferry::token_identity().allow("node-1", "one").allow("node-2", "shared").allow("node-3", "shared");
    tokens.allow("careless", "");
    const auto known = [&](const std::string& token) { return tokens.knows({"a", {}, token}); };
    EXPECT_TRUE(known("one"));
    EXPECT_TRUE(known("shared"));
    EXPECT_FALSE(known(""));
    EXPECT_FALSE(known("on"));
    tokens.allow("node-1", "new").allow("node-2", "new");
    EXPECT_FALSE(known("one")) << "nobody has it any more";
    EXPECT_TRUE(known("shared")) << "one has it still";
    EXPECT_TRUE(known("new"));
}

}  // namespace
