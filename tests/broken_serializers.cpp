#include <ferry/conformance/serializer.hpp>
#include <ferry/serializer/msgpack.hpp>

#include "broken_models.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

using ferry::bytes;
using ferry::errc;
using ferry::error;
using ferry::message;
using ferry::payload;

/// What the broken ones are made of.
struct sound_serializer {
    using policy_category = ferry::serializer_tag;
    using message_type = message;
    static constexpr std::string_view name = "msgpack";
    static constexpr auto fails_in = ferry_test::nothing;

    payload encode(message m) const { return format.encode(std::move(m)); }
    message decode(const bytes& run) const { return format.decode(run); }

    [[no_unique_address]] ferry::msgpack_serializer<> format;
};

/// Calls `change` for each value in `m`, the inner ones first.
template <class Change>
void for_each_value(message& m, Change&& change) {
    if (m.is_structured()) {
        for (auto& each : m) for_each_value(each, change);
    }
    change(m);
}

// --- what comes back ---------------------------------------------------------------------------------------------------

struct has_no_name : sound_serializer {
    static constexpr std::string_view name = "";
    static constexpr auto fails_in = "its_name_can_be_printed";
};

struct rounds_floats : sound_serializer {
    static constexpr auto fails_in = "what_is_encoded_comes_back_equal";

    payload encode(message m) const {
        for_each_value(m, [](message& v) {
            if (!v.is_number_float() || !(v.get<double>() > 1e-30 && v.get<double>() < 1e30)) return;
            v = static_cast<double>(static_cast<float>(v.get<double>()));
        });
        return format.encode(std::move(m));
    }
};

struct forgets_the_sign_of_zero : sound_serializer {
    static constexpr auto fails_in = "what_is_encoded_comes_back_equal";

    payload encode(message m) const {
        for_each_value(m, [](message& v) {
            if (v.is_number_float() && v == 0.0) v = 0.0;
        });
        return format.encode(std::move(m));
    }
};

struct knows_one_nan : sound_serializer {
    static constexpr auto fails_in = "what_is_encoded_comes_back_equal";

    payload encode(message m) const {
        for_each_value(m, [](message& v) {
            if (v.is_number_float() && std::isnan(v.get<double>())) v = std::numeric_limits<double>::quiet_NaN();
        });
        return format.encode(std::move(m));
    }
};

struct makes_integers_of_floats : sound_serializer {
    static constexpr auto fails_in = "what_is_encoded_comes_back_equal";

    message decode(const bytes& run) const {
        auto m = format.decode(run);
        for_each_value(m, [](message& v) {
            if (v.is_number_float() && v == 1.0) v = 1;
        });
        return m;
    }
};

struct forgets_subtypes : sound_serializer {
    static constexpr auto fails_in = "what_is_encoded_comes_back_equal";

    message decode(const bytes& run) const {
        auto m = format.decode(run);
        for_each_value(m, [](message& v) {
            if (v.is_binary()) v.get_binary().clear_subtype();
        });
        return m;
    }
};

struct cuts_keys_to_64_kib : sound_serializer {
    static constexpr auto fails_in = "what_is_encoded_comes_back_equal";

    payload encode(message m) const {
        for_each_value(m, [](message& v) {
            if (!v.is_object()) return;
            message cut = message::object();
            for (const auto& [key, value] : v.items()) cut[key.substr(0, 0xffff)] = value;
            v = std::move(cut);
        });
        return format.encode(std::move(m));
    }
};

/// It has three bytes for a length.
struct cuts_binaries_to_16_mib : sound_serializer {
    static constexpr auto fails_in = "what_is_encoded_comes_back_equal";

    payload encode(message m) const {
        for_each_value(m, [](message& v) {
            if (!v.is_binary() || v.get_binary().size() <= 0xffffff) return;
            bytes& binary = v.get_binary();
            binary = binary.slice(0, binary.size() & 0xffffff);
        });
        return format.encode(std::move(m));
    }
};

struct refuses_without_a_word : sound_serializer {
    static constexpr auto fails_in = "what_can_not_be_carried_is_refused";

    payload encode(message m) const {
        try {
            return format.encode(std::move(m));
        } catch (const error& e) {
            throw error(e.code(), "");
        }
    }
};

struct cuts_subtypes_to_a_byte : sound_serializer {
    static constexpr auto fails_in = "what_can_not_be_carried_is_refused";

    payload encode(message m) const {
        for_each_value(m, [](message& v) {
            if (v.is_binary() && v.get_binary().has_subtype())
                v.get_binary().set_subtype(v.get_binary().subtype() & 255);
        });
        return format.encode(std::move(m));
    }
};

struct forgets_ids : sound_serializer {
    static constexpr auto fails_in = "ids_survive";

    payload encode(message m) const {
        if (m.is_object() && m.size() > 1) m.erase("node_id");
        return format.encode(std::move(m));
    }
};

/// Puts something else before each message.
template <class Stamp>
struct stamped : sound_serializer {
    payload encode(message m) const {
        payload out(bytes{stamp()});
        const auto whole = format.encode(std::move(m));
        for (const auto& run : whole.runs()) out.append(run);
        return out;
    }
    message decode(const bytes& run) const {
        if (run.empty()) throw error(errc::decode_failed, "there is no stamp");
        return format.decode(run.slice(1));
    }

    Stamp stamp;
};

struct message_count {
    mutable std::atomic<std::uint8_t> count{0};
    message_count() = default;
    message_count(message_count&&) noexcept {}
    std::uint8_t operator()() const { return ++count; }
};

struct counts_its_messages : stamped<message_count> {
    static constexpr auto fails_in = "a_message_has_one_encoding";
};

struct object_number {
    static std::uint8_t next() {
        static std::uint8_t last = 0;
        return ++last;
    }
    std::uint8_t own = next();
    std::uint8_t operator()() const { return own; }
};

struct numbers_its_objects : stamped<object_number> {
    static constexpr auto fails_in = "a_message_has_one_encoding";
};

// --- that say that a message has many encodings --------------------------------------------------------------------------

struct stamps_its_messages : stamped<message_count> {};

/// Only the one that has encoded it can decode it.
struct seals_with_a_key_of_its_own : stamped<object_number> {
    static constexpr auto fails_in = "a_message_has_one_encoding";

    message decode(const bytes& run) const {
        if (!run.empty() && run[0] != stamp()) throw error(errc::decode_failed, "sealed by another");
        return stamped::decode(run);
    }
};

/// In a buffer of its own, one a thread, which the next message overwrites.
struct stamps_in_one_buffer : stamped<message_count> {
    static constexpr auto fails_in = "a_payload_outlives_its_message";

    payload encode(message m) const {
        thread_local std::vector<char> buffer(std::size_t{32} << 20);
        const auto whole = stamped::encode(std::move(m)).flatten();
        if (whole.size() > buffer.size()) throw error(errc::too_large, "it does not fit");
        std::copy(whole.begin(), whole.end(), buffer.begin());
        return bytes::borrow_static({buffer.data(), whole.size()});
    }
};

struct stamps_on_one_thread : stamped<message_count> {
    static constexpr auto fails_in = "concurrent_calls_agree_with_single_ones";

    payload encode(message m) const {
        if (std::this_thread::get_id() != home) m = "too much at a time";
        return stamped::encode(std::move(m));
    }

    std::thread::id home = std::this_thread::get_id();
};

// --- what is no message ------------------------------------------------------------------------------------------------

struct takes_nothing_for_a_message : sound_serializer {
    static constexpr auto fails_in = "an_empty_payload_is_refused";

    message decode(const bytes& run) const { return run.empty() ? message() : format.decode(run); }
};

struct takes_what_is_cut_off : sound_serializer {
    static constexpr auto fails_in = "a_message_that_is_cut_off_is_refused";

    message decode(const bytes& run) const {
        try {
            return format.decode(run);
        } catch (const error& e) {
            if (std::string_view(e.what()).find("too early") == std::string_view::npos) throw;
            return "as far as it came";
        }
    }
};

/// Only where nearly all of it is there.
struct takes_what_lacks_a_byte : sound_serializer {
    static constexpr auto fails_in = "a_message_that_is_cut_off_is_refused";

    message decode(const bytes& run) const {
        try {
            return format.decode(run);
        } catch (const error&) {
            if (run.empty()) throw;
            return format.decode(bytes::copy(std::string(run.view()) + '\x01'));
        }
    }
};

struct lets_bytes_follow : sound_serializer {
    static constexpr auto fails_in = "bytes_behind_a_message_are_refused";

    message decode(const bytes& run) const {
        try {
            return format.decode(run);
        } catch (const error& e) {
            const std::string_view text = e.what();
            constexpr std::string_view before = "ends at byte ";
            const auto at = text.find(before);
            if (at == std::string_view::npos) throw;
            return format.decode(run.slice(0, std::stoul(std::string(text.substr(at + before.size())))));
        }
    }
};

struct lets_a_zero_follow : sound_serializer {
    static constexpr auto fails_in = "bytes_behind_a_message_are_refused";

    message decode(const bytes& run) const {
        try {
            return format.decode(run);
        } catch (const error&) {
            if (run.empty() || run.back() != 0) throw;
            return format.decode(run.slice(0, run.size() - 1));
        }
    }
};

struct throws_what_is_not_ferrys : sound_serializer {
    static constexpr auto fails_in = "damaged_messages_throw_nothing_but_the_two_errors";

    message decode(const bytes& run) const {
        try {
            return format.decode(run);
        } catch (const error& e) {
            if (std::string_view(e.what()).find("not msgpack") == std::string_view::npos) throw;
            throw std::runtime_error(e.what());
        }
    }
};

struct throws_another_code : sound_serializer {
    static constexpr auto fails_in = "arbitrary_bytes_throw_nothing_but_the_two_errors";

    message decode(const bytes& run) const {
        try {
            return format.decode(run);
        } catch (const error& e) {
            if (std::string_view(e.what()).find("not msgpack") == std::string_view::npos) throw;
            throw error(errc::protocol_error, e.what());
        }
    }
};

struct gives_no_reason : sound_serializer {
    static constexpr auto fails_in = "a_message_that_is_cut_off_is_refused";

    message decode(const bytes& run) const {
        try {
            return format.decode(run);
        } catch (const error& e) {
            throw error(e.code(), "");
        }
    }
};

// --- what stays behind ---------------------------------------------------------------------------------------------------

struct needs_a_call_to_recover : sound_serializer {
    static constexpr auto fails_in = "an_error_leaves_no_trace";

    needs_a_call_to_recover() = default;
    needs_a_call_to_recover(needs_a_call_to_recover&&) noexcept {}

    message decode(const bytes& run) const {
        if (confused.exchange(false)) throw error(errc::decode_failed, "still busy with the last one");
        try {
            return format.decode(run);
        } catch (...) {
            confused = true;
            throw;
        }
    }

    mutable std::atomic<bool> confused{false};
};

struct keeps_the_last_run : sound_serializer {
    static constexpr auto fails_in = "a_decoded_message_outlives_the_run";

    keeps_the_last_run() = default;
    keeps_the_last_run(keeps_the_last_run&&) noexcept {}

    message decode(const bytes& run) const {
        const std::lock_guard lock(mutex);
        last = run;
        return format.decode(run);
    }

    mutable std::mutex mutex;
    mutable bytes last;
};

/// The binaries of what it decodes don't keep the run alive.
struct shows_memory_of_the_run : sound_serializer {
    static constexpr auto fails_in = "a_decoded_message_outlives_the_run";

    message decode(const bytes& run) const {
        auto m = format.decode(run);
        for_each_value(m, [](message& v) {
            if (!v.is_binary()) return;
            bytes& binary = v.get_binary();
            binary = bytes::borrow_static(binary.view());
        });
        return m;
    }
};

/// The payload doesn't keep the message's large binaries alive.
struct shows_memory_of_the_message : sound_serializer {
    static constexpr auto fails_in = "a_payload_outlives_its_message";

    payload encode(message m) const {
        std::set<const std::uint8_t*> binaries;
        for_each_value(m, [&](const message& v) {
            if (v.is_binary()) binaries.insert(v.get_binary().data());
        });
        payload out;
        const auto whole = format.encode(std::move(m));
        for (const auto& run : whole.runs()) {
            out.append(binaries.contains(run.data()) ? bytes::borrow_static(run.view()) : run);
        }
        return out;
    }
};

/// Encodes into a buffer of its own, one a thread, which the next message overwrites.
struct encodes_into_one_buffer : sound_serializer {
    static constexpr auto fails_in = "a_payload_outlives_its_message";

    payload encode(message m) const {
        thread_local std::vector<char> buffer(std::size_t{32} << 20);
        const auto whole = format.encode(std::move(m)).flatten();
        if (whole.size() > buffer.size()) throw error(errc::too_large, "it does not fit");
        std::copy(whole.begin(), whole.end(), buffer.begin());
        return bytes::borrow_static({buffer.data(), whole.size()});
    }
};

struct belongs_to_a_thread : sound_serializer {
    static constexpr auto fails_in = "concurrent_calls_agree_with_single_ones";

    payload encode(message m) const {
        if (std::this_thread::get_id() != home) m = "too much at a time";
        return format.encode(std::move(m));
    }

    std::thread::id home = std::this_thread::get_id();
};

}  // namespace

namespace ferry::conformance {

/// Of those that stamp.
template <class Serializer>
    requires std::same_as<Serializer, stamps_its_messages> || std::same_as<Serializer, seals_with_a_key_of_its_own> ||
        std::same_as<Serializer, stamps_in_one_buffer> || std::same_as<Serializer, stamps_on_one_thread>
struct model_of<Serializer> {
    static constexpr bool has_one_encoding = false;
    static Serializer make() { return {}; }
};

using ferry_test::meant_for;

INSTANTIATE_TYPED_TEST_SUITE_P(sound_serializer, serializer_suite, sound_serializer, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(has_no_name, serializer_suite, has_no_name, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(rounds_floats, serializer_suite, rounds_floats, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_the_sign_of_zero, serializer_suite, forgets_the_sign_of_zero, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(knows_one_nan, serializer_suite, knows_one_nan, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(makes_integers_of_floats, serializer_suite, makes_integers_of_floats, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_subtypes, serializer_suite, forgets_subtypes, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(cuts_keys_to_64_kib, serializer_suite, cuts_keys_to_64_kib, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(cuts_binaries_to_16_mib, serializer_suite, cuts_binaries_to_16_mib, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(refuses_without_a_word, serializer_suite, refuses_without_a_word, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(cuts_subtypes_to_a_byte, serializer_suite, cuts_subtypes_to_a_byte, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(forgets_ids, serializer_suite, forgets_ids, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(counts_its_messages, serializer_suite, counts_its_messages, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(numbers_its_objects, serializer_suite, numbers_its_objects, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(stamps_its_messages, serializer_suite, stamps_its_messages, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(seals_with_a_key_of_its_own, serializer_suite, seals_with_a_key_of_its_own, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(stamps_in_one_buffer, serializer_suite, stamps_in_one_buffer, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(stamps_on_one_thread, serializer_suite, stamps_on_one_thread, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(takes_nothing_for_a_message, serializer_suite, takes_nothing_for_a_message, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(takes_what_is_cut_off, serializer_suite, takes_what_is_cut_off, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(takes_what_lacks_a_byte, serializer_suite, takes_what_lacks_a_byte, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(lets_bytes_follow, serializer_suite, lets_bytes_follow, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(lets_a_zero_follow, serializer_suite, lets_a_zero_follow, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(throws_what_is_not_ferrys, serializer_suite, throws_what_is_not_ferrys, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(throws_another_code, serializer_suite, throws_another_code, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(gives_no_reason, serializer_suite, gives_no_reason, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(needs_a_call_to_recover, serializer_suite, needs_a_call_to_recover, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(keeps_the_last_run, serializer_suite, keeps_the_last_run, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(shows_memory_of_the_run, serializer_suite, shows_memory_of_the_run, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(shows_memory_of_the_message, serializer_suite, shows_memory_of_the_message, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(encodes_into_one_buffer, serializer_suite, encodes_into_one_buffer, meant_for);
INSTANTIATE_TYPED_TEST_SUITE_P(belongs_to_a_thread, serializer_suite, belongs_to_a_thread, meant_for);

}  // namespace ferry::conformance
