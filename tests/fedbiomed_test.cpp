#include <ferry/fedbiomed.hpp>

#include <ferry/serializer/msgpack.hpp>

#include "support.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace {

/// A class that ferry doesn't know, described by its user.
struct train_reply {
    ferry::bytes params{};
    std::vector<bool> rounds{};
    std::optional<std::int64_t> sample_size{};
    ferry::message state{};
    std::string request_id{};
};

}  // namespace

template <>
struct ferry::fedbiomed::schema<train_reply> {
    static constexpr std::string_view name = "TrainReply";
    static constexpr std::tuple fields{
        field{"params", &train_reply::params},           field{"rounds", &train_reply::rounds},
        field{"sample_size", &train_reply::sample_size}, field{"state", &train_reply::state},
        field{"request_id", &train_reply::request_id},
    };
};

namespace {

using namespace ferry::fedbiomed;
using ferry::bytes;
using ferry::errc;
using ferry::message;
using ferry_test::fails;
using ferry_test::from_hex;

const ferry::msgpack_serializer<> msgpack_format;

message through_msgpack(message m) { return msgpack_format.decode(msgpack_format.encode(std::move(m)).flatten()); }

/// A message of a class, with these fields.
message of_class(const char* name, message fields) {
    fields["protocol_version"] = "7";
    fields["researcher_id"] = "r-1";
    fields["__type_message__"] = {{"module", "fedbiomed.common.message"}, {"class", name}};
    return fields;
}

message without(message m, const char* key) {
    m.erase(key);
    return m;
}

message with(message m, const char* key, message value) {
    m[key] = std::move(value);
    return m;
}

const message a_ping_request = of_class("PingRequest", {{"request_id", "q"}});
const message a_ping_reply = of_class("PingReply", {{"request_id", "q"}, {"node_id", "n"}, {"node_name", "N"}});
const message a_search_request = of_class("SearchRequest", {{"request_id", "q"}, {"tags", {"mri", "brain"}}});
const message a_search_reply = of_class("SearchReply", {{"request_id", "q"},
                                                        {"databases", message::array({{{"name", "a"}}})},
                                                        {"node_id", "n"},
                                                        {"node_name", "N"},
                                                        {"count", 1}});
const message a_list_request = of_class("ListRequest", {{"request_id", "q"}});
const message a_list_reply = of_class("ListReply", {{"request_id", "q"},
                                                    {"success", false},
                                                    {"databases", message::array()},
                                                    {"node_id", "n"},
                                                    {"node_name", "N"},
                                                    {"count", -1}});
const message an_error_message =
    of_class("ErrorMessage",
             {{"request_id", "q"}, {"node_id", "n"}, {"node_name", "N"}, {"extra_msg", "no"}, {"errnum", "FB628"}});
const message an_overlay_message = of_class("OverlayMessage", {{"node_id", "n"},
                                                               {"dest_node_id", "m"},
                                                               {"overlay", bytes{1}},
                                                               {"setup", true},
                                                               {"salt", bytes{2}},
                                                               {"nonce", bytes{3}}});

// --- every class both ways -------------------------------------------------------------------------------------------------

template <class X>
testing::AssertionResult comes_back(const message& m) {
    for (const auto& each : {m, through_msgpack(m)}) {
        const auto again = to_message(parse<X>(each), "r-1");
        if (again != m) return testing::AssertionFailure() << m << "\nbecame\n" << again;
        if (class_of(again) != schema<X>::name) return testing::AssertionFailure() << "is a " << class_of(again);
    }
    return testing::AssertionSuccess();
}

TEST(fedbiomed, every_class_comes_back) {
    EXPECT_TRUE(comes_back<ping_request>(a_ping_request));
    EXPECT_TRUE(comes_back<ping_reply>(a_ping_reply));
    EXPECT_TRUE(comes_back<search_request>(a_search_request));
    EXPECT_TRUE(comes_back<search_reply>(a_search_reply));
    EXPECT_TRUE(comes_back<list_request>(a_list_request));
    EXPECT_TRUE(comes_back<list_reply>(a_list_reply));
    EXPECT_TRUE(comes_back<error_message>(an_error_message));
    EXPECT_TRUE(comes_back<error_message>(with(an_error_message, "errnum", nullptr)));
    EXPECT_TRUE(comes_back<overlay_message>(an_overlay_message));
}

TEST(fedbiomed, parse_fills_the_members) {
    EXPECT_EQ(parse<ping_request>(a_ping_request).request_id, "q");

    const auto pong = parse<ping_reply>(a_ping_reply);
    EXPECT_EQ(std::tie(pong.request_id, pong.node_id, pong.node_name), std::tuple("q", "n", "N"));

    const auto search = parse<search_request>(a_search_request);
    EXPECT_EQ(search.tags, (std::vector<std::string>{"mri", "brain"}));
    EXPECT_EQ(search.request_id, "q");

    const auto found = parse<search_reply>(a_search_reply);
    ASSERT_EQ(found.databases.size(), 1U);
    EXPECT_EQ(found.databases[0].at("name"), "a");
    EXPECT_EQ(std::tie(found.request_id, found.node_id, found.node_name, found.count), std::tuple("q", "n", "N", 1));

    EXPECT_EQ(parse<list_request>(a_list_request).request_id, "q");

    const auto list = parse<list_reply>(a_list_reply);
    EXPECT_TRUE(list.databases.empty());
    EXPECT_EQ(std::tie(list.request_id, list.node_id, list.node_name, list.count, list.success),
              std::tuple("q", "n", "N", -1, false));

    const auto failed = parse<error_message>(an_error_message);
    EXPECT_EQ(std::tie(failed.request_id, failed.node_id, failed.node_name, failed.extra_msg, failed.errnum),
              std::tuple("q", "n", "N", "no", "FB628"));
    EXPECT_EQ(parse<error_message>(with(an_error_message, "errnum", nullptr)).errnum, std::nullopt);

    const auto overlay = parse<overlay_message>(an_overlay_message);
    EXPECT_EQ(std::tie(overlay.node_id, overlay.dest_node_id, overlay.setup), std::tuple("n", "m", true));
    EXPECT_EQ(std::tie(overlay.overlay, overlay.salt, overlay.nonce), std::tuple(bytes{1}, bytes{2}, bytes{3}));
}

TEST(fedbiomed, binaries_are_shared) {
    overlay_message x;
    x.overlay = bytes::own(ferry_test::pattern(5000));
    const auto* const data = x.overlay.data();
    const auto m = to_message(x, "r-1");
    EXPECT_EQ(m["overlay"].get_binary().data(), data);
    EXPECT_EQ(parse<overlay_message>(m).overlay.data(), data);
}

TEST(fedbiomed, what_is_empty_keeps_its_type) {
    const auto found = to_message(search_reply{}, "");
    EXPECT_TRUE(found["databases"].is_array());
    EXPECT_EQ(found["request_id"], "");
    EXPECT_TRUE(to_message(search_request{}, "")["tags"].is_array());
    EXPECT_TRUE(to_message(overlay_message{}, "")["salt"].is_binary());
    EXPECT_TRUE(to_message(error_message{}, "").contains("errnum"));
    EXPECT_TRUE(to_message(error_message{}, "")["errnum"].is_null());
}

TEST(fedbiomed, parses_what_python_writes) {
    // tests/peers/wire.py: dumps(make("SearchReply", "r-1", request_id="q", databases=[{"name": "a"}], node_id="n",
    //                                 node_name="N", count=1)), and the same of ErrorMessage and OverlayMessage.
    EXPECT_EQ(
        to_message(parse<search_reply>(msgpack_format.decode(from_hex(
                       "88b070726f746f636f6c5f76657273696f6ea137ad726573656172636865725f6964a3722d31b05f5f747970655f"
                       "6d6573736167655f5f82a66d6f64756c65b866656462696f6d65642e636f6d6d6f6e2e6d657373616765a5636c61"
                       "7373ab5365617263685265706c79aa726571756573745f6964a171a96461746162617365739181a46e616d65a161"
                       "a76e6f64655f6964a16ea96e6f64655f6e616d65a14ea5636f756e7401"))),
                   "r-1"),
        a_search_reply);
    EXPECT_EQ(
        to_message(parse<error_message>(msgpack_format.decode(from_hex(
                       "88b070726f746f636f6c5f76657273696f6ea137ad726573656172636865725f6964a3722d31b05f5f747970655f"
                       "6d6573736167655f5f82a66d6f64756c65b866656462696f6d65642e636f6d6d6f6e2e6d657373616765a5636c61"
                       "7373ac4572726f724d657373616765aa726571756573745f6964a171a76e6f64655f6964a16ea96e6f64655f6e61"
                       "6d65a14ea965787472615f6d7367a26e6fa66572726e756dc0"))),
                   "r-1"),
        with(an_error_message, "errnum", nullptr));
    EXPECT_EQ(
        to_message(parse<overlay_message>(msgpack_format.decode(from_hex(
                       "89b070726f746f636f6c5f76657273696f6ea137ad726573656172636865725f6964a3722d31b05f5f747970655f"
                       "6d6573736167655f5f82a66d6f64756c65b866656462696f6d65642e636f6d6d6f6e2e6d657373616765a5636c61"
                       "7373ae4f7665726c61794d657373616765a76e6f64655f6964a16eac646573745f6e6f64655f6964a16da76f7665"
                       "726c6179c40101a57365747570c3a473616c74c40102a56e6f6e6365c40103"))),
                   "r-1"),
        an_overlay_message);
}

TEST(fedbiomed, a_class_of_the_users_takes_part) {
    const train_reply x{bytes{1, 2}, {true, false}, 7, {{"step", 1.5}}, "q"};
    const auto m = of_class("TrainReply", {{"params", bytes{1, 2}},
                                           {"rounds", {true, false}},
                                           {"sample_size", 7},
                                           {"state", {{"step", 1.5}}},
                                           {"request_id", "q"}});
    EXPECT_EQ(to_message(x, "r-1"), m);
    EXPECT_TRUE(comes_back<train_reply>(m));
    EXPECT_TRUE(comes_back<train_reply>(with(with(m, "state", nullptr), "sample_size", nullptr)));
    EXPECT_TRUE(fails(
        [&] {
            parse<train_reply>(with(m, "rounds", {true, 0}));
        },
        errc::protocol_error, "TrainReply: rounds[1] must be a bool, is an integer"));
    EXPECT_TRUE(fails([&] { parse<train_reply>(with(m, "sample_size", "7")); }, errc::protocol_error,
                      "TrainReply: sample_size must be an integer below 2^63 or nil, is a string"));
}

// --- what is refused -------------------------------------------------------------------------------------------------------

TEST(fedbiomed, each_field_must_be_there_and_no_other) {
    const auto check = []<class X>(const message& m, X) {
        const std::string name = class_of(m);
        for (const auto& each : m.items()) {
            const auto& key = each.key();
            const auto text = "fedbiomed: " + name + ": " + key;
            EXPECT_TRUE(fails([&] { parse<X>(without(m, key.c_str())); }, errc::protocol_error, text)) << key;
            EXPECT_TRUE(fails([&] { parse<X>(with(m, key.c_str(), 1.5)); }, errc::protocol_error, text)) << key;
            if (key == "errnum") continue;
            EXPECT_TRUE(fails([&] { parse<X>(with(m, key.c_str(), nullptr)); }, errc::protocol_error, text)) << key;
        }
        EXPECT_TRUE(fails([&] { parse<X>(with(m, "extra", 1)); }, errc::protocol_error,
                          "fedbiomed: " + name + ": extra is no field of this class"));
    };
    check(a_ping_request, ping_request{});
    check(a_ping_reply, ping_reply{});
    check(a_search_request, search_request{});
    check(a_search_reply, search_reply{});
    check(a_list_request, list_request{});
    check(a_list_reply, list_reply{});
    check(an_error_message, error_message{});
    check(an_overlay_message, overlay_message{});
    EXPECT_TRUE(fails([] { parse<overlay_message>(with(an_overlay_message, "request_id", "q")); }, errc::protocol_error,
                      "OverlayMessage: request_id is no field"));
}

struct refusal {
    std::function<void()> parse;
    const char* text;
};

template <class X>
refusal refused(message m, const char* text) {
    return {[m = std::move(m)] { parse<X>(m); }, text};
}

TEST(fedbiomed, says_what_it_refuses_and_what_it_expected) {
    const auto typed = [](const message& type) { return with(a_ping_request, "__type_message__", type); };
    const auto beyond = std::uint64_t{std::numeric_limits<std::int64_t>::max()} + 1;
    const std::vector<refusal> refusals{
        refused<ping_request>(nullptr, "PingRequest: the message must be a map, is nil"),
        refused<ping_request>(message::array({1}), "PingRequest: the message must be a map, is an array"),
        refused<ping_request>(message::object(), "PingRequest: __type_message__ must be a map with module and class"),
        refused<ping_request>(typed("PingRequest"), "__type_message__ must be a map"),
        refused<ping_request>(typed({{"class", "PingRequest"}}), "__type_message__ must be a map with module"),
        refused<ping_request>(typed({{"module", "m"}}), "__type_message__ must be a map with module and class"),
        refused<ping_request>(typed({{"module", "m"}, {"class", 1}}), "__type_message__ must be a map"),
        refused<ping_request>(a_ping_reply, "PingRequest: __type_message__ must name this class, names PingReply"),
        refused<ping_request>(with(a_ping_request, "protocol_version", "6"),
                              "PingRequest: protocol_version must be \"7\", is \"6\""),
        refused<ping_request>(with(a_ping_request, "protocol_version", 7),
                              "PingRequest: protocol_version must be a string, is an integer"),
        refused<ping_request>(without(a_ping_request, "protocol_version"), "PingRequest: protocol_version is missing"),
        refused<ping_request>(with(a_ping_request, "researcher_id", nullptr),
                              "PingRequest: researcher_id must be a string, is nil"),
        refused<ping_request>(with(a_ping_request, "request_id", bytes{1}),
                              "PingRequest: request_id must be a string, is a binary"),
        refused<ping_reply>(without(a_ping_reply, "node_name"), "PingReply: node_name is missing; it must be a string"),
        refused<search_request>(with(a_search_request, "tags", "mri"),
                                "SearchRequest: tags must be an array, is a string"),
        refused<search_request>(with(a_search_request, "tags", {"mri", 1}),
                                "SearchRequest: tags[1] must be a string, is an integer"),
        refused<search_request>(with(a_search_request, "tags", {{"__type__", "tuple"}, {"value", {"mri"}}}),
                                "SearchRequest: tags must be an array, is a tuple"),
        refused<search_reply>(with(a_search_reply, "count", true),
                              "SearchReply: count must be an integer below 2^63, is a bool"),
        refused<search_reply>(with(a_search_reply, "count", 1.0), "SearchReply: count must be an integer"),
        refused<search_reply>(with(a_search_reply, "count", beyond), "2^63, is an integer of 2^63 or more"),
        refused<list_reply>(with(a_list_reply, "success", 1), "ListReply: success must be a bool, is an integer"),
        refused<list_reply>(with(a_list_reply, "databases", message::object()),
                            "ListReply: databases must be an array, is a map"),
        refused<error_message>(with(an_error_message, "errnum", 628),
                               "ErrorMessage: errnum must be a string or nil, is an integer"),
        refused<overlay_message>(with(an_overlay_message, "salt", "salt"),
                                 "OverlayMessage: salt must be a binary, is a string"),
        refused<overlay_message>(with(an_overlay_message, "salt", message::binary(bytes{1}, 5)),
                                 "OverlayMessage: salt must be a binary, is an extension"),
    };
    for (const auto& each : refusals) EXPECT_TRUE(fails(each.parse, errc::protocol_error, each.text));
}

TEST(fedbiomed, the_module_is_not_read) {
    message m = a_ping_request;
    m["__type_message__"]["module"] = nullptr;
    EXPECT_EQ(parse<ping_request>(m).request_id, "q");
}

TEST(fedbiomed, integers_at_their_edges) {
    for (const auto count : {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
        EXPECT_EQ(parse<search_reply>(through_msgpack(with(a_search_reply, "count", count))).count, count);
    }
}

// --- classes that are not here ---------------------------------------------------------------------------------------------

TEST(fedbiomed, an_unknown_class_passes_untouched) {
    // tests/peers/wire.py: dumps of a TrainRequest with an np.ndarray, an integer of 65 bits, None, a Vector, and a map with
    // an integer key and a tuple.
    const auto run = from_hex(
        "8ab070726f746f636f6c5f76657273696f6ea137ad726573656172636865725f6964a3722d31b05f5f747970655f6d6573736167655f5f"
        "82a66d"
        "6f64756c65b866656462696f6d65642e636f6d6d6f6e2e6d657373616765a5636c617373ac547261696e52657175657374aa7265717565"
        "73745f"
        "6964a171a8747261696e696e67c3a6706172616d7382a85f5f747970655f5faa6e702e6e646172726179a576616c756593c4080000803f"
        "000000"
        "40a7666c6f617433329102a47365656482a85f5f747970655f5fa3696e74a576616c7565c40a00010000000000000000a86175785f7661"
        "7273c0"
        "a5737461746582a85f5f747970655f5fa6566563746f72a576616c756581a161cb3ff8000000000000a6726f756e6473810182a85f5f74"
        "797065"
        "5f5fa57475706c65a576616c7565920203");
    const auto m = msgpack_format.decode(run);
    EXPECT_EQ(class_of(m), "TrainRequest");
    EXPECT_EQ(through_msgpack(m), m);
    EXPECT_EQ(msgpack_format.encode(m).size(), run.size());
    for (const auto& [key, value] : m.items()) {
        if (key == "__type_message__") continue;  // its keys come in another order
        const auto written = msgpack_format.encode(message{{key, value}}).flatten().slice(1);
        EXPECT_NE(run.view().find(written.view()), std::string_view::npos) << key;
    }
    EXPECT_EQ(m["state"], (message{{"__type__", "Vector"}, {"value", {{"a", 1.5}}}}));
    EXPECT_EQ(m["seed"]["value"].get<bytes>(), (bytes{0, 1, 0, 0, 0, 0, 0, 0, 0, 0}));
    EXPECT_TRUE(m["training"].is_boolean());
    EXPECT_TRUE(m["aux_vars"].is_null());
}

TEST(fedbiomed, what_names_no_class_is_of_none) {
    for (const message& m :
         {message(), message("PingRequest"), message::array({1}), message::object(),
          message{{"__type_message__", "PingRequest"}}, message{{"__type_message__", {{"class", "PingRequest"}}}},
          message{{"__type_message__", {{"module", "m"}, {"class", nullptr}}}}}) {
        EXPECT_EQ(class_of(m), "") << m;
    }
}

// --- replies and failures --------------------------------------------------------------------------------------------------

TEST(fedbiomed, a_reply_has_the_ids_of_its_request) {
    const auto m = reply_to(a_search_request, search_reply{{{{"name", "a"}}}, 1, "N", "n", "another id"});
    EXPECT_EQ(m, a_search_reply);
}

TEST(fedbiomed, a_request_without_ids_cannot_be_answered) {
    for (const char* key : {"request_id", "researcher_id"}) {
        EXPECT_TRUE(fails([&] { reply_to(without(a_ping_request, key), ping_reply{}); }, errc::protocol_error, key));
        EXPECT_TRUE(fails([&] { reply_to(with(a_ping_request, key, 1), ping_reply{}); }, errc::protocol_error, key));
    }
    EXPECT_TRUE(fails([&] { reply_to(nullptr, ping_reply{}); }, errc::protocol_error, "request_id"));
}

template <class X>
concept can_reply = requires(const message& m, X x) {
    reply_to(m, x);
};
static_assert(can_reply<ping_reply> && can_reply<train_reply>);
static_assert(!can_reply<overlay_message>);
static_assert(!can_reply<std::string>);

TEST(fedbiomed, misuse_is_the_originals_communication_error) {
    EXPECT_EQ(errnum(errc::not_started), "FB628");
    EXPECT_EQ(errnum(errc::invalid_argument), "FB628");
    for (int code = 0; code <= static_cast<int>(errc::deadline_exceeded); ++code) {
        const auto each = static_cast<errc>(code);
        if (each == errc::not_started || each == errc::invalid_argument) continue;
        EXPECT_EQ(errnum(each), std::nullopt) << to_string(each);
    }
}

TEST(fedbiomed, a_failed_task_is_answered_by_an_error_message) {
    const auto task = of_class("TrainRequest", {{"request_id", "q"}, {"anything", 1}});
    EXPECT_EQ(failure_of(task, "n", "N", "no", "FB628"), an_error_message);
    EXPECT_EQ(failure_of(task, "n", "N", "no"), with(an_error_message, "errnum", nullptr));
    EXPECT_EQ(failure_of(task, "n", "N", ferry::error(errc::invalid_argument, "no")), an_error_message);
    EXPECT_EQ(failure_of(task, "n", "N", ferry::error(errc::expired, "no")), with(an_error_message, "errnum", nullptr));
    EXPECT_EQ(failure_of(task, "n", "N", std::runtime_error("no")), with(an_error_message, "errnum", nullptr));
    EXPECT_TRUE(fails([] { failure_of(message::object(), "n", "N", "no"); }, errc::protocol_error, "request_id"));
}

}  // namespace
