// JSON read by simdjson; everything else is json_serializer's. Needs simdjson (the CMake target ferry::simdjson).
#pragma once

#include <ferry/error.hpp>
#include <ferry/message.hpp>
#include <ferry/serializer/json.hpp>

#include <simdjson.h>

#include <cstddef>
#include <string>
#include <string_view>

namespace ferry {

/// Reads JSON by simdjson. Each thread keeps a parser's memory, of at most 16 times `kept_bytes`.
struct simdjson_parser {
    /// A longer text is read by a parser that is made for it and let go again.
    static constexpr std::size_t kept_bytes = 256 * 1024;

    /// Tells `reader` what is in `run`. Returns what is wrong with it, or nothing; what the reader refuses it says itself.
    template <class Reader>
    std::string parse(const bytes& run, Reader& reader) const {
        if (run.size() > simdjson::SIMDJSON_MAXSIZE_BYTES) return json_parser{}.parse(run, reader);
        if (run.size() > kept_bytes) {
            simdjson::dom::parser once;
            return parse(once, run, reader);
        }
        return parse(kept(), run, reader);
    }

private:
    /// One for all readers.
    static simdjson::dom::parser& kept() {
        static thread_local simdjson::dom::parser own;
        return own;
    }

    template <class Reader>
    static std::string parse(simdjson::dom::parser& parser, const bytes& run, Reader& reader) {
        simdjson::dom::element root;
        // Deep enough for 512 levels, each in a map that says that it's to be taken as it is.
        if (parser.max_depth() < max_depth || parser.capacity() < run.size()) {
            if (const auto problem = parser.allocate(run.size(), max_depth)) return simdjson::error_message(problem);
        }
        const auto text = run.view();
        if (const auto problem = parser.parse(text.data(), text.size()).get(root))
            return simdjson::error_message(problem);
        return walk(root, reader) ? std::string() : std::string(detail::json_refused_text);
    }

    template <class Reader>
    static bool walk(const simdjson::dom::element& value, Reader& to) {
        using kind = simdjson::dom::element_type;
        switch (value.type()) {
            case kind::NULL_VALUE: return to.null();
            case kind::BOOL: return to.boolean(bool(value));
            case kind::INT64:
                return std::int64_t(value) < 0 ? to.integer(value)
                                               : to.unsigned_integer(std::uint64_t(std::int64_t(value)));
            case kind::UINT64: return to.unsigned_integer(value);
            case kind::DOUBLE: return to.floating(value);
            case kind::STRING: return to.text(std::string_view(value));
            case kind::ARRAY: {
                const simdjson::dom::array items(value);
                if (!to.begin_array(items.size())) return false;
                for (const auto item : items) {
                    if (!walk(item, to)) return false;
                }
                return to.end_array();
            }
            case kind::OBJECT: {
                const simdjson::dom::object members(value);
                if (!to.begin_map(members.size())) return false;
                for (const auto member : members) {
                    if (!to.key(member.key) || !walk(member.value, to)) return false;
                }
                return to.end_map();
            }
        }
        return false;
    }

    static constexpr std::size_t max_depth = 1100;
};

/// `json_serializer` with simdjson for a parser. The same on the wire.
template <class Message = message>
using simdjson_serializer = json_serializer<Message, simdjson_parser>;

}  // namespace ferry
