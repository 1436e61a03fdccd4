// Messages as JSON text, for peers and logs that people read. Every message comes back as it was: integers of 64 bits, each
// bit of a float64, binaries. A text must be UTF-8. Keys come sorted; one that occurs twice in a map is an error. A float is
// as short as can be and never looks like an integer; an integer beyond 64 bits is refused. What JSON has no word for:
//
//     {"__type__": "bytes", "value": "<base64>"}                      a binary
//     {"__type__": "ferry.ext", "subtype": 5, "value": "<base64>"}    a binary with a subtype
//     {"__type__": "ferry.float", "value": "inf"}                     or "-inf", "nan", or "nan:" and 16 hexadecimal digits
//     {"__type__": "ferry.map", "value": [[key, value], ...]}         a map with keys that are not texts, as in a `message`
//     {"__type__": "ferry.literal", "value": {...}}                   a map that looks like one of the others and is none
//
// "__type__" comes first in them. One that has it later, or other members, is refused.
#pragma once

#include <ferry/detail/json_reader.hpp>
#include <ferry/detail/json_scanner.hpp>
#include <ferry/detail/json_writer.hpp>
#include <ferry/detail/message_builder.hpp>
#include <ferry/detail/struct_reader.hpp>
#include <ferry/detail/utf8.hpp>
#include <ferry/detail/value_writer.hpp>
#include <ferry/error.hpp>
#include <ferry/message.hpp>
#include <ferry/serializer.hpp>

#include <nlohmann/json.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry {

/// A binary in an `nlohmann::json`, for a struct's own `to_json`. Copies.
template <std::same_as<nlohmann::json> Json>
void to_json(Json& j, const bytes& value) {
    j = Json::binary(std::vector<std::uint8_t>(value.begin(), value.end()));
}
template <std::same_as<nlohmann::json> Json>
void from_json(const Json& j, bytes& value) {
    value = bytes::copy(j.get_binary());
}

namespace detail {

/// The events of nlohmann's parser, for one of ferry's readers.
template <class Reader>
class nlohmann_events {
public:
    explicit nlohmann_events(Reader& to) : to_(to) {}

    bool null() { return to_.null(); }
    bool boolean(bool v) { return to_.boolean(v); }
    bool number_integer(std::int64_t v) { return v < 0 ? to_.integer(v) : to_.unsigned_integer(0); }  // it was -0
    bool number_unsigned(std::uint64_t v) { return to_.unsigned_integer(v); }
    bool number_float(double v, const std::string& digits) {
        constexpr double below_2_to_63 = 9.2e18;  // an integer that comes as a float is not below it
        if (std::abs(v) < below_2_to_63 || digits.find_first_of(".eE") != std::string::npos) return to_.floating(v);
        problem = "the integer " + detail::utf8_text(digits, detail::quoted_bytes) + " is beyond 64 bits";
        return false;
    }
    bool string(std::string& v) { return to_.text(v); }
    bool binary(nlohmann::json::binary_t&) { return false; }  // JSON has none
    bool start_object(std::size_t) { return to_.begin_map(0); }
    bool key(std::string& v) { return to_.key(v); }
    bool end_object() { return to_.end_map(); }
    bool start_array(std::size_t) { return to_.begin_array(0); }
    bool end_array() { return to_.end_array(); }
    bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& e) {
        problem = e.what();
        return false;
    }

    std::string problem;

private:
    Reader& to_;
};

template <class T>
concept knows_nlohmann = requires(nlohmann::json& j, const nlohmann::json& c, T& out, const T& in) {
    nlohmann::adl_serializer<T>::to_json(j, in);
    nlohmann::adl_serializer<T>::from_json(c, out);
};

}  // namespace detail

/// Reads JSON by ferry's own scanner. The default; `simdjson_parser` is a little faster.
struct json_parser {
    /// Tells `reader` what is in `run`. Returns what is wrong with it, or nothing; what the reader refuses it says itself, too.
    template <class Reader>
    std::string parse(const bytes& run, Reader& reader) const {
        return detail::json_scanner<Reader>(run.view(), reader).scan();
    }
};

/// Reads JSON by nlohmann's parser: slower, and the same.
struct nlohmann_parser {
    /// As `json_parser` does.
    template <class Reader>
    std::string parse(const bytes& run, Reader& reader) const {
        detail::nlohmann_events events(reader);
        const auto text = run.view();
        if (const auto nul = text.find('\0'); nul != text.npos) {  // which ends the text for nlohmann
            return "byte " + std::to_string(nul) + " is 0";
        }
        const bool good = nlohmann::json::sax_parse(text.data(), text.data() + text.size(), &events);
        if (!good && events.problem.empty()) return std::string(detail::json_refused_text);
        return std::move(events.problem);
    }
};

/// Messages as JSON: a `message`, a struct with `message_traits<T>::fields`, or one with nlohmann's `to_json` and `from_json`
/// (which goes through an `nlohmann::json`). Stateless; safe to use from several threads.
template <class Message = message, class Parser = json_parser>
struct json_serializer {
    using policy_category = serializer_tag;
    using message_type = Message;

    static constexpr std::string_view name = "json";

    payload encode(const Message& m) const {
        static_assert(detail::readable<Message> || detail::knows_nlohmann<Message>,
                      "ferry: json_serializer<T> needs T's fields in ferry::message_traits<T>, or nlohmann's to_json "
                      "and from_json");
        detail::json_writer out;
        try {
            if constexpr (std::same_as<Message, message>) {
                detail::message_walk<message, detail::json_writer>(out).write(m);
            } else if constexpr (has_fields<Message>) {
                detail::struct_walk<detail::json_writer>(out, nullptr).write(m);
            } else if constexpr (detail::knows_nlohmann<Message>) {
                const nlohmann::json tree = m;
                detail::message_walk<nlohmann::json, detail::json_writer>(out).write(tree);
            }
        } catch (const error&) {
            throw;
        } catch (const std::exception& e) {
            throw error(errc::encode_failed, std::string("json: ") + e.what());
        }
        return out.finish();
    }

    Message decode(const bytes& run) const {
        if constexpr (detail::readable<Message>) {
            return detail::read_as<Message>([&](auto& to) { read(run, to); });
        } else if constexpr (detail::knows_nlohmann<Message>) {
            detail::message_builder<nlohmann::json> built;
            read(run, built);
            try {
                return built.take().template get<Message>();
            } catch (const error&) {
                throw;
            } catch (const std::exception& e) {
                throw error(errc::decode_failed, std::string("json: ") + e.what());
            }
        } else {
            return Message{};  // encode says what is missing
        }
    }

private:
    template <class Builder>
    void read(const bytes& run, Builder& to) const {
        if (run.empty()) throw error(errc::decode_failed, "json: an empty payload is no message");
        if (run.view().starts_with("\xef\xbb\xbf")) {
            throw error(errc::decode_failed, "json: begins with a byte order mark, which is no part of JSON");
        }
        detail::json_reader<Builder> reader(to);
        const std::string wrong = parser_.parse(run, reader);
        const std::string& why = to.problem().empty() ? wrong : to.problem();
        if (!why.empty()) throw error(errc::decode_failed, "json: " + why);
    }

    [[no_unique_address]] Parser parser_;
};

}  // namespace ferry
