// What every serializer must hold to, as a typed suite of GoogleTest:
//
//     #include <ferry/conformance/serializer.hpp>
//     namespace ferry::conformance {
//     INSTANTIATE_TYPED_TEST_SUITE_P(cbor, serializer_suite, cbor_serializer);
//     }
//
// Include only what you instantiate: GoogleTest fails a suite that is there and never instantiated.
//
// For a message type of the user's own `samples_of` is specialised too. It doesn't look at the format itself, and leaves
// memory that is touched but not used to the sanitizers: build it with them.
#pragma once

#include <ferry/conformance/received_run.hpp>
#include <ferry/conformance/serializer_probe.hpp>
#include <ferry/error.hpp>
#include <ferry/message.hpp>
#include <ferry/payload.hpp>
#include <ferry/serializer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <latch>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace ferry::conformance {

/// Runs over one serializer. Uses its `model_of`, and the `samples_of` its message type.
template <class Serializer>
class serializer_suite : public testing::Test, protected serializer_probe<Serializer> {};

TYPED_TEST_SUITE_P(serializer_suite);

TYPED_TEST_P(serializer_suite, its_name_can_be_printed) {
    const std::string_view name = TypeParam::name;
    EXPECT_FALSE(name.empty());
    for (const char c : name) EXPECT_TRUE(c > ' ' && c <= '~') << "a character of code " << int{c};
}

TYPED_TEST_P(serializer_suite, what_is_encoded_comes_back_equal) {
    for (const auto& samples : {this->all(), this->large()}) {
        for (const auto& [name, value] : samples) {
            SCOPED_TRACE(name);
            EXPECT_TRUE(this->equal(this->decoded(this->encoded(value)), value));
        }
    }
}

TYPED_TEST_P(serializer_suite, what_can_not_be_carried_is_refused) {
    for (const auto& [name, value] : this->awkward()) {
        SCOPED_TRACE(name);
        try {
            EXPECT_TRUE(this->equal(this->decoded(this->encoded(value)), value)) << "it comes back as another";
        } catch (const error& e) {
            EXPECT_TRUE(e.code() == errc::encode_failed || e.code() == errc::too_large)
                << to_string(e.code()) << ": " << e.what();
            EXPECT_STRNE(e.what(), "") << "the error has no text";
        }
    }
}

// Or, where the model says otherwise, each of them can be decoded.
TYPED_TEST_P(serializer_suite, a_message_has_one_encoding) {
    const TypeParam second = this->another();
    const auto again = this->all();
    std::vector<bytes> first;
    first.reserve(again.size());
    for (const auto& each : again) first.push_back(this->encoded(each.value));
    for (std::size_t i = 0; i < again.size(); ++i) {
        SCOPED_TRACE(again[i].name);
        const auto& value = again[i].value;
        EXPECT_TRUE(this->is_encoding(this->encoded(value), first[i], value)) << "at the second time";
        EXPECT_TRUE(this->is_encoding(this->encoded(second, value), first[i], value))
            << "by another serializer of the type";
        EXPECT_TRUE(this->equal(second.decode(first[i]), value)) << "by another serializer of the type";
    }
}

TYPED_TEST_P(serializer_suite, ids_survive) {
    using traits = message_traits<typename TypeParam::message_type>;
    int carried = 0;
    for (const auto& [name, value] : this->all()) {
        for (const std::string& id : {std::string("1"), std::string("a b/\"c\"\n"),
                                      std::string("\xc3\xa9\xf0\x9f\x9a\xb2"), std::string(300, 'n')}) {
            auto m = value;
            try {
                traits::set_request_id(m, "request " + id);
                traits::set_node_id(m, "node " + id);
            } catch (const error&) {
                continue;  // not every message has ids
            }
            SCOPED_TRACE(name);
            const auto back = this->decoded(this->encoded(m));
            EXPECT_EQ(std::string(traits::request_id(back)), "request " + id);
            EXPECT_EQ(std::string(traits::node_id(back)), "node " + id);
            ++carried;
        }
    }
    EXPECT_GT(carried, 0) << "no sample can have ids";
}

// --- what is no message ------------------------------------------------------------------------------------------------

TYPED_TEST_P(serializer_suite, an_empty_payload_is_refused) { EXPECT_TRUE(this->refuses(bytes())); }

TYPED_TEST_P(serializer_suite, a_message_that_is_cut_off_is_refused) {
    std::mt19937 random(1);
    for (const auto& [name, value] : this->enclosed()) {
        SCOPED_TRACE(name);
        const auto whole = this->encoded(value);
        for (const auto size : this->cuts(whole.size(), random)) {
            ASSERT_TRUE(this->refuses(whole.slice(0, size)))
                << "the first " << size << " of " << whole.size() << " bytes";
        }
    }
}

TYPED_TEST_P(serializer_suite, bytes_behind_a_message_are_refused) {
    for (const auto& [name, value] : this->enclosed()) {
        SCOPED_TRACE(name);
        const std::string whole(this->encoded(value).view());
        for (const std::string& more : {std::string(1, '\0'), std::string("\xff"), std::string("x"),
                                        std::string(100, '\0'), std::string("\xc0\xf6 null"), whole}) {
            ASSERT_TRUE(this->refuses(bytes::copy(whole + more))) << more.size() << " more bytes";
        }
    }
}

TYPED_TEST_P(serializer_suite, damaged_messages_throw_nothing_but_the_two_errors) {
    std::mt19937 random(2);
    const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
    for (const auto& [name, value] : this->all()) {
        SCOPED_TRACE(name);
        const std::string whole(this->encoded(value).view());
        for (int round = 0; round < 60 && !whole.empty(); ++round) {
            std::string damaged = whole;
            for (std::size_t flips = 1 + below(3); flips > 0; --flips) {
                char& where =
                    damaged[below(2) == 0 ? below(whole.size()) : below(std::min<std::size_t>(whole.size(), 16))];
                where = below(2) == 0 ? static_cast<char>(below(256)) : static_cast<char>(where ^ (1 << below(8)));
            }
            if (below(4) == 0) damaged.erase(below(whole.size()), 1 + below(8));
            ASSERT_TRUE(this->bears(bytes::copy(damaged))) << "round " << round;
        }
    }
}

TYPED_TEST_P(serializer_suite, arbitrary_bytes_throw_nothing_but_the_two_errors) {
    std::mt19937 random(3);
    for (int round = 0; round < 5000; ++round) {
        std::string run(1 + random() % 40, '\0');
        for (char& each : run) each = static_cast<char>(random() & 255);
        ASSERT_TRUE(this->bears(bytes::copy(run))) << "round " << round;
    }
}

// --- nothing is left behind, and nothing is lost -------------------------------------------------------------------------

TYPED_TEST_P(serializer_suite, an_error_leaves_no_trace) {
    for (const auto& [name, value] : this->enclosed()) {
        SCOPED_TRACE(name);
        const auto whole = this->encoded(value);
        for (const auto size : {whole.size() / 2, whole.size() - 1}) {
            (void)this->bears(whole.slice(0, size));
            EXPECT_TRUE(this->equal(this->decoded(whole), value)) << "decoded after an error";
            EXPECT_TRUE(this->is_encoding(this->encoded(value), whole, value)) << "encoded after an error";
        }
    }
    const auto before = this->all();
    for (const auto& hard : this->awkward()) {
        SCOPED_TRACE(hard.name);
        const auto& [name, value] = before.back();
        const auto whole = this->encoded(value);
        try {
            (void)this->format().encode(hard.value);
        } catch (const error&) {
        }
        EXPECT_TRUE(this->equal(this->decoded(whole), value)) << name << ", decoded afterwards";
        EXPECT_TRUE(this->is_encoding(this->encoded(value), whole, value)) << name << ", encoded afterwards";
    }
}

TYPED_TEST_P(serializer_suite, a_decoded_message_outlives_the_run) {
    const auto all = this->all();
    std::vector<received_run> runs;
    std::vector<std::optional<typename TypeParam::message_type>> kept(all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
        runs.emplace_back(this->encoded(all[i].value));
        kept[i].emplace(this->format().decode(runs[i].take()));
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
        EXPECT_TRUE(this->equal(*kept[i], all[i].value)) << all[i].name << ": a binary changed while it was in use";
        kept[i].reset();
        EXPECT_TRUE(runs[i].is_released()) << all[i].name << ": the run is kept, though its message is gone";
    }
}

TYPED_TEST_P(serializer_suite, a_payload_outlives_its_message) {
    const auto all = this->all();
    std::vector<bytes> expected;
    expected.reserve(all.size());
    for (const auto& each : all) expected.push_back(bytes::copy(this->encoded(each.value).view()));
    std::vector<payload> kept;
    std::vector<received_runs> binaries(all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
        auto m = std::make_unique<typename TypeParam::message_type>(all[i].value);
        binaries[i].replace_binaries(*m);
        kept.push_back(this->format().encode(std::move(*m)));
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
        EXPECT_TRUE(this->is_encoding(kept[i].flatten(), expected[i], all[i].value)) << all[i].name;
        kept[i] = {};
        EXPECT_TRUE(binaries[i].are_released()) << all[i].name << ": a binary is kept, though its payload is gone";
    }
}

TYPED_TEST_P(serializer_suite, concurrent_calls_agree_with_single_ones) {
    constexpr std::size_t threads = 4;
    const auto all = this->all();
    std::vector<bytes> expected;
    expected.reserve(all.size());
    for (const auto& each : all) expected.push_back(this->encoded(each.value));
    std::vector<std::string> wrong(threads);
    std::latch start(threads);
    {
        std::vector<std::jthread> workers;
        for (std::size_t worker = 0; worker < threads; ++worker) {
            workers.emplace_back([&, worker] {
                start.arrive_and_wait();
                for (std::size_t step = 0; step < 2 * all.size(); ++step) {
                    const auto i = (step + worker * all.size() / threads) % all.size();
                    try {
                        if (!this->is_encoding(this->encoded(all[i].value), expected[i], all[i].value)) {
                            wrong[worker] += all[i].name + " encoded\n";
                        }
                        if (!this->equal(this->format().decode(expected[i]), all[i].value)) {
                            wrong[worker] += all[i].name + " decoded\n";
                        }
                    } catch (const std::exception& e) {
                        wrong[worker] += all[i].name + ": " + e.what() + "\n";
                    }
                }
            });
        }
    }
    for (const auto& each : wrong) EXPECT_EQ(each, "");
}

REGISTER_TYPED_TEST_SUITE_P(serializer_suite, its_name_can_be_printed, what_is_encoded_comes_back_equal,
                            what_can_not_be_carried_is_refused, a_message_has_one_encoding, ids_survive,
                            an_empty_payload_is_refused, a_message_that_is_cut_off_is_refused,
                            bytes_behind_a_message_are_refused, damaged_messages_throw_nothing_but_the_two_errors,
                            arbitrary_bytes_throw_nothing_but_the_two_errors, an_error_leaves_no_trace,
                            a_decoded_message_outlives_the_run, a_payload_outlives_its_message,
                            concurrent_calls_agree_with_single_ones);

}  // namespace ferry::conformance
