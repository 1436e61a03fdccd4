#include <ferry/agent_store.hpp>
#include <ferry/agent_store/memory.hpp>
#include <ferry/chunk.hpp>
#include <ferry/identity.hpp>
#include <ferry/message.hpp>
#include <ferry/policy.hpp>
#include <ferry/retry.hpp>
#include <ferry/serializer.hpp>
#include <ferry/serializer/msgpack.hpp>

#include "late_store.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace {

// --- policy ------------------------------------------------------------------------------------------------------------

struct no_policy {};
struct unknown_tag;
struct policy_of_no_known_category {
    using policy_category = unknown_tag;
};

static_assert(ferry::policy<ferry::bounded_retry>);
static_assert(ferry::policy<policy_of_no_known_category>);
static_assert(!ferry::policy<no_policy>);
static_assert(!ferry::policy<int>);
static_assert(!ferry::policy<void>);

static_assert(ferry::policy_of<ferry::bounded_retry, ferry::retry_tag>);
static_assert(ferry::policy_of<ferry::max_message_bytes_length<>, ferry::chunk_size_tag>);
static_assert(ferry::policy_of<ferry::msgpack_serializer<>, ferry::serializer_tag>);
static_assert(!ferry::policy_of<ferry::bounded_retry, ferry::serializer_tag>);
static_assert(!ferry::policy_of<no_policy, ferry::retry_tag>);
static_assert(!ferry::policy_of<int, ferry::retry_tag>);

// --- a pack of policies --------------------------------------------------------------------------------------------------

template <class Tag, int Model>
struct some {
    using policy_category = Tag;
};

using serializer_given = some<ferry::serializer_tag, 1>;
using store_given = some<ferry::agent_store_tag, 1>;
using retry_given = some<ferry::retry_tag, 1>;
using size_given = some<ferry::chunk_size_tag, 1>;
using identity_given = some<ferry::identity_tag, 1>;
using observer_given = some<ferry::observer_tag, 1>;

template <class... Ps>
using resolved = std::tuple<ferry::select_policy<ferry::serializer_tag, some<ferry::serializer_tag, 0>, Ps...>,
                            ferry::select_policy<ferry::agent_store_tag, some<ferry::agent_store_tag, 0>, Ps...>,
                            ferry::select_policy<ferry::retry_tag, some<ferry::retry_tag, 0>, Ps...>,
                            ferry::select_policy<ferry::chunk_size_tag, some<ferry::chunk_size_tag, 0>, Ps...>,
                            ferry::select_policy<ferry::identity_tag, some<ferry::identity_tag, 0>, Ps...>,
                            ferry::select_policy<ferry::observer_tag, some<ferry::observer_tag, 0>, Ps...>>;

/// True where each order of `Rest`, put behind `Front`, resolves to `Expected`.
template <class Expected, class Front, class Rest>
struct same_in_any_order;

template <class Expected, class... Front>
struct same_in_any_order<Expected, std::tuple<Front...>, std::tuple<>> : std::is_same<Expected, resolved<Front...>> {};

template <class Pack, class P>
struct without;
template <class... Kept, class P>
struct without<std::tuple<Kept...>, P> {
    using type = decltype(std::tuple_cat(
        std::declval<std::conditional_t<std::is_same_v<Kept, P>, std::tuple<>, std::tuple<Kept>>>()...));
};

template <class Expected, class... Front, class... Rest>
    requires(sizeof...(Rest) > 0)
struct same_in_any_order<Expected, std::tuple<Front...>, std::tuple<Rest...>>
    : std::bool_constant<(same_in_any_order<Expected, std::tuple<Front..., Rest>,
                                            typename without<std::tuple<Rest...>, Rest>::type>::value &&
                          ...)> {};

static_assert(same_in_any_order<
              std::tuple<serializer_given, store_given, retry_given, size_given, some<ferry::identity_tag, 0>,
                         observer_given>,
              std::tuple<>, std::tuple<serializer_given, store_given, retry_given, size_given, observer_given>>::value);
static_assert(
    same_in_any_order<std::tuple<some<ferry::serializer_tag, 0>, some<ferry::agent_store_tag, 0>, retry_given,
                                 some<ferry::chunk_size_tag, 0>, identity_given, some<ferry::observer_tag, 0>>,
                      std::tuple<>, std::tuple<identity_given, retry_given>>::value);
static_assert(std::is_same_v<resolved<>, std::tuple<some<ferry::serializer_tag, 0>, some<ferry::agent_store_tag, 0>,
                                                    some<ferry::retry_tag, 0>, some<ferry::chunk_size_tag, 0>,
                                                    some<ferry::identity_tag, 0>, some<ferry::observer_tag, 0>>>);
static_assert(!std::is_same_v<resolved<retry_given>, resolved<identity_given>>);

static_assert(ferry::all_policies<>);
static_assert(
    ferry::all_policies<serializer_given, store_given, retry_given, size_given, identity_given, observer_given>);
static_assert(!ferry::all_policies<retry_given, int>);
static_assert(!ferry::all_policies<no_policy>);
static_assert(!ferry::all_policies<policy_of_no_known_category, retry_given>);

static_assert(ferry::one_of_each_category<>);
static_assert(ferry::one_of_each_category<serializer_given, store_given, retry_given, size_given, identity_given,
                                          observer_given>);
static_assert(!ferry::one_of_each_category<serializer_given, some<ferry::serializer_tag, 2>>);
static_assert(!ferry::one_of_each_category<store_given, retry_given, some<ferry::agent_store_tag, 2>>);
static_assert(!ferry::one_of_each_category<retry_given, retry_given>);
static_assert(!ferry::one_of_each_category<size_given, some<ferry::chunk_size_tag, 2>>);
static_assert(!ferry::one_of_each_category<identity_given, some<ferry::identity_tag, 2>>);
static_assert(!ferry::one_of_each_category<observer_given, some<ferry::observer_tag, 2>>);

// --- chunk_size_policy -----------------------------------------------------------------------------------------------------

struct size_without_a_value {
    using policy_category = ferry::chunk_size_tag;
};
struct size_that_is_no_number {
    using policy_category = ferry::chunk_size_tag;
    static constexpr std::string_view value = "4";
};
struct size_of_another_category {
    using policy_category = ferry::retry_tag;
    enum : unsigned { value = 4 };
};
struct size_of_the_users_own {
    using policy_category = ferry::chunk_size_tag;
    static constexpr unsigned value = 4;
};

struct size_that_changes {
    using policy_category = ferry::chunk_size_tag;
    static inline unsigned value = 4;
};
struct size_below_zero {
    using policy_category = ferry::chunk_size_tag;
    static constexpr int value = -4;
};

static_assert(ferry::chunk_size_policy<ferry::max_message_bytes_length<>>);
static_assert(ferry::chunk_size_policy<ferry::max_message_bytes_length<100 * 1024 * 1024 - 64>>);
static_assert(!ferry::chunk_size_policy<ferry::max_message_bytes_length<100 * 1024 * 1024 - 63>>);
static_assert(!ferry::chunk_size_policy<ferry::max_message_bytes_length<0>>);
static_assert(!ferry::chunk_size_policy<size_that_changes>);
static_assert(!ferry::chunk_size_policy<size_below_zero>);
static_assert(ferry::provides::value<ferry::max_message_bytes_length<0>>);
static_assert(!ferry::provides::value_in_range<ferry::max_message_bytes_length<0>>);
static_assert(!ferry::provides::value<size_without_a_value>);
static_assert(!ferry::provides::value<size_that_changes>);
static_assert(!ferry::provides::value_in_range<size_that_changes>);
static_assert(ferry::chunk_size_policy<ferry::max_message_bytes_length<1>>);
static_assert(ferry::chunk_size_policy<size_of_the_users_own>);
static_assert(!ferry::chunk_size_policy<size_without_a_value>);
static_assert(!ferry::chunk_size_policy<size_that_is_no_number>);
static_assert(!ferry::chunk_size_policy<size_of_another_category>);
static_assert(!ferry::chunk_size_policy<int>);

// --- retry_policy ------------------------------------------------------------------------------------------------------------

using pause = std::optional<std::chrono::milliseconds>;

struct retry_with_state {
    using policy_category = ferry::retry_tag;
    int calls = 0;
    pause next(const ferry::failed_attempt&) { return std::chrono::milliseconds(++calls); }
};
struct retry_without_next {
    using policy_category = ferry::retry_tag;
};
struct retry_that_answers_otherwise {
    using policy_category = ferry::retry_tag;
    bool next(const ferry::failed_attempt&) const { return true; }
};
struct retry_that_asks_otherwise {
    using policy_category = ferry::retry_tag;
    pause next(std::string) const { return {}; }
};
struct retry_of_another_category {
    using policy_category = ferry::observer_tag;
    pause next(const ferry::failed_attempt&) const { return {}; }
};
struct retry_of_no_category {
    pause next(const ferry::failed_attempt&) const { return {}; }
};

static_assert(ferry::retry_policy<ferry::no_retry>);
static_assert(ferry::retry_policy<ferry::bounded_retry>);
static_assert(ferry::retry_policy<ferry::exponential_backoff>);
static_assert(ferry::provides::next<retry_of_no_category>);
static_assert(!ferry::provides::next<retry_without_next>);
static_assert(!ferry::provides::next<const retry_with_state>);
static_assert(ferry::retry_policy<retry_with_state>);
static_assert(!ferry::retry_policy<retry_without_next>);
static_assert(!ferry::retry_policy<retry_that_answers_otherwise>);
static_assert(!ferry::retry_policy<retry_that_asks_otherwise>);
static_assert(!ferry::retry_policy<retry_of_another_category>);
static_assert(!ferry::retry_policy<retry_of_no_category>);
static_assert(!ferry::retry_policy<ferry::msgpack_serializer<>>);

// --- message_type --------------------------------------------------------------------------------------------------------------

struct text_message {
    std::string request, node;
};
struct message_with_a_number {};
struct half_known_message {};
struct unknown_message {};
struct pinned_message {
    pinned_message(pinned_message&&) = delete;
};

}  // namespace

template <>
struct ferry::message_traits<text_message> {
    static std::string request_id(const text_message& m) { return m.request; }
    static const char* node_id(const text_message& m) { return m.node.c_str(); }
    static void set_request_id(text_message& m, const std::string& id) { m.request = id; }
    static void set_node_id(text_message& m, std::string id) { m.node = std::move(id); }
};

template <>
struct ferry::message_traits<message_with_a_number> {
    static int request_id(const message_with_a_number&) { return 1; }
    static std::string node_id(const message_with_a_number&) { return {}; }
    static void set_request_id(message_with_a_number&, const std::string&) {}
    static void set_node_id(message_with_a_number&, const std::string&) {}
};

template <>
struct ferry::message_traits<half_known_message> {
    static std::string request_id(const half_known_message&) { return {}; }
    static std::string node_id(const half_known_message&) { return {}; }
};

template <>
struct ferry::message_traits<pinned_message> {
    static std::string request_id(const pinned_message&) { return {}; }
    static std::string node_id(const pinned_message&) { return {}; }
    static void set_request_id(pinned_message&, const std::string&) {}
    static void set_node_id(pinned_message&, const std::string&) {}
};

namespace {

static_assert(ferry::provides::request_id<text_message> && ferry::provides::node_id<text_message>);
static_assert(ferry::provides::set_request_id<text_message> && ferry::provides::set_node_id<text_message>);
static_assert(!ferry::provides::request_id<message_with_a_number> && ferry::provides::node_id<message_with_a_number>);
static_assert(ferry::provides::request_id<half_known_message> && !ferry::provides::set_request_id<half_known_message>);
static_assert(!ferry::provides::set_node_id<half_known_message> && !ferry::provides::node_id<unknown_message>);

static_assert(ferry::message_type<ferry::message>);
static_assert(ferry::message_type<text_message>);
static_assert(!ferry::message_type<half_known_message>);
static_assert(!ferry::message_type<message_with_a_number>);
static_assert(!ferry::message_type<unknown_message>);
static_assert(!ferry::message_type<pinned_message>);
static_assert(!ferry::message_type<int>);

// --- serializer ------------------------------------------------------------------------------------------------------------------

struct own_serializer {
    using policy_category = ferry::serializer_tag;
    using message_type = text_message;
    static constexpr const char* name = "text";
    ferry::payload encode(text_message) const { return {}; }
    text_message decode(const ferry::bytes&) const { return {}; }
};
struct serializer_of_another_category : own_serializer {
    using policy_category = ferry::retry_tag;
};
struct serializer_of_an_unknown_message : own_serializer {
    using message_type = unknown_message;
    ferry::payload encode(unknown_message) const { return {}; }
    unknown_message decode(const ferry::bytes&) const { return {}; }
};
struct serializer_without_a_name {
    using policy_category = ferry::serializer_tag;
    using message_type = text_message;
    ferry::payload encode(text_message) const { return {}; }
    text_message decode(const ferry::bytes&) const { return {}; }
};
struct serializer_that_is_not_const : own_serializer {
    ferry::payload encode(text_message) { return {}; }
};
struct serializer_that_encodes_to_a_run : own_serializer {
    ferry::bytes encode(text_message) const { return {}; }
};
struct serializer_that_decodes_in_place : own_serializer {
    void decode(const ferry::bytes&, text_message&) const {}
};

static_assert(ferry::provides::message_type<own_serializer> && ferry::provides::name<own_serializer>);
static_assert(ferry::provides::encode<own_serializer> && ferry::provides::decode<own_serializer>);
static_assert(!ferry::provides::message_type<ferry::bounded_retry> && !ferry::provides::encode<ferry::bounded_retry>);
static_assert(!ferry::provides::name<serializer_without_a_name>);
static_assert(!ferry::provides::encode<serializer_that_is_not_const>);
static_assert(!ferry::provides::encode<serializer_that_encodes_to_a_run>);
static_assert(ferry::provides::encode<serializer_that_decodes_in_place>);
static_assert(!ferry::provides::decode<serializer_that_decodes_in_place>);

static_assert(ferry::serializer<ferry::msgpack_serializer<>>);
static_assert(ferry::serializer<ferry::msgpack_serializer<ferry::message>>);
static_assert(ferry::serializer<own_serializer>);
static_assert(!ferry::serializer<serializer_of_another_category>);
static_assert(!ferry::serializer<serializer_of_an_unknown_message>);
static_assert(!ferry::serializer<serializer_without_a_name>);
static_assert(!ferry::serializer<serializer_that_is_not_const>);
static_assert(!ferry::serializer<serializer_that_encodes_to_a_run>);
static_assert(!ferry::serializer<serializer_that_decodes_in_place>);
static_assert(!ferry::serializer<ferry::bounded_retry>);
static_assert(!ferry::serializer<int>);

// --- agent_store ---------------------------------------------------------------------------------------------------------------

struct own_agent_store {
    using policy_category = ferry::agent_store_tag;
    template <class Done>
    void acquire(const std::string&, Done&&) {}
    template <class Done>
    void append(const std::string&, ferry::epoch, const ferry::task_record&, Done&&) {}
    template <class Done>
    void update(const std::string&, ferry::epoch, const ferry::task_record&, Done&&) {}
    template <class Done>
    void settle(const std::string&, ferry::epoch, std::uint64_t, Done&&) {}
};
struct agent_store_of_another_category : own_agent_store {
    using policy_category = ferry::observer_tag;
};
struct agent_store_that_can_not_settle : own_agent_store {
    void settle() {}
};
struct agent_store_that_answers_otherwise : own_agent_store {
    void append(const std::string&, ferry::epoch, const ferry::task_record&, void (*)(bool)) {}
};
struct agent_store_that_acquires_without_an_answer : own_agent_store {
    void acquire(const std::string&) {}
};
struct agent_store_without_epochs : own_agent_store {
    template <class Done>
    void update(const std::string&, const ferry::task_record&, Done&&) {}
};

static_assert(ferry::provides::acquire<own_agent_store> && ferry::provides::append<own_agent_store>);
static_assert(ferry::provides::update<own_agent_store> && ferry::provides::settle<own_agent_store>);
static_assert(!ferry::provides::settle<agent_store_that_can_not_settle>);
static_assert(ferry::provides::append<agent_store_that_can_not_settle>);
static_assert(!ferry::provides::append<agent_store_that_answers_otherwise>);
static_assert(!ferry::provides::acquire<agent_store_that_acquires_without_an_answer>);
static_assert(!ferry::provides::update<agent_store_without_epochs>);

static_assert(ferry::agent_store<ferry::memory_agent_store>);
static_assert(ferry::agent_store<ferry_test::late_store>);
static_assert(ferry::agent_store<own_agent_store>);
static_assert(!ferry::agent_store<agent_store_of_another_category>);
static_assert(!ferry::agent_store<agent_store_that_can_not_settle>);
static_assert(!ferry::agent_store<agent_store_that_answers_otherwise>);
static_assert(!ferry::agent_store<agent_store_that_acquires_without_an_answer>);
static_assert(!ferry::agent_store<agent_store_without_epochs>);
static_assert(!ferry::agent_store<const ferry::memory_agent_store>);
static_assert(!ferry::agent_store<ferry::bounded_retry>);
static_assert(!ferry::agent_store<int>);

// --- identity_policy -------------------------------------------------------------------------------------------------------------

struct own_identity {
    using policy_category = ferry::identity_tag;
    static constexpr bool needs_certificates = true;
    bool admits(const std::string&, const ferry::peer_info&) const { return true; }
};
struct identity_of_another_category : own_identity {
    using policy_category = ferry::retry_tag;
};
struct identity_that_changes : own_identity {
    bool admits(const std::string&, const ferry::peer_info&) { return true; }
};
struct identity_that_answers_otherwise : own_identity {
    int admits(const std::string&, const ferry::peer_info&) const { return 1; }
};
struct identity_without_needs_certificates {
    using policy_category = ferry::identity_tag;
    bool admits(const std::string&, const ferry::peer_info&) const { return true; }
};

static_assert(ferry::identity_policy<ferry::open_identity>);
static_assert(ferry::identity_policy<ferry::certificate_identity>);
static_assert(ferry::identity_policy<ferry::token_identity>);
static_assert(ferry::identity_policy<own_identity>);
static_assert(ferry::provides::admits<own_identity> && ferry::provides::needs_certificates<own_identity>);
static_assert(!ferry::identity_policy<identity_of_another_category>);
static_assert(!ferry::identity_policy<identity_that_changes> && !ferry::provides::admits<identity_that_changes>);
static_assert(!ferry::provides::admits<identity_that_answers_otherwise>);
static_assert(!ferry::provides::needs_certificates<identity_without_needs_certificates>);
static_assert(ferry::provides::admits<identity_without_needs_certificates>);
static_assert(!ferry::identity_policy<identity_without_needs_certificates>);
static_assert(!ferry::identity_policy<int>);

// All of the above is checked by the compiler; this makes the file show up among the tests.
TEST(concepts, hold_for_the_models_that_ferry_has) {
    EXPECT_TRUE(ferry::agent_store<ferry::memory_agent_store>);
    EXPECT_TRUE(ferry::serializer<ferry::msgpack_serializer<>>);
    EXPECT_TRUE(ferry::retry_policy<ferry::bounded_retry>);
    EXPECT_TRUE(ferry::chunk_size_policy<ferry::max_message_bytes_length<>>);
}

}  // namespace
