// layer 1
// Between a JSON parser and what builds a message: turns the maps by which ferry says what JSON can't (see serializer/json.hpp)
// back into what they stand for. A parser calls the same functions as it would for a `message_builder`.
//
// Such a map begins with "__type__". One that has it later, or has not just the members it should, is refused, so that
// nothing is ever taken for what it isn't.
#pragma once

#include <ferry/detail/base64.hpp>
#include <ferry/detail/json_writer.hpp>
#include <ferry/detail/shared_block.hpp>
#include <ferry/detail/value_writer.hpp>
#include <ferry/payload.hpp>

#include <bit>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::detail {

/// What is told where the reader stops the parser: the reader says why, if it can.
inline constexpr std::string_view json_refused_text = "it was refused";

template <class Builder>
class json_reader {
public:
    explicit json_reader(Builder& to) : to_(to) {}

    bool null() { return settle() && to_.null(); }
    bool boolean(bool v) { return settle() && to_.boolean(v); }
    bool integer(std::int64_t v) { return settle() && to_.integer(v); }
    bool floating(double v) { return settle() && to_.floating(v); }
    bool unsigned_integer(std::uint64_t v) {
        if (expects_ != part::subtype) return settle() && to_.unsigned_integer(v);
        subtype_ = v;
        expects_ = part::value_key;
        return true;
    }

    bool text(std::string_view v) {
        if (expects_ != part::plain) {
            if (expects_ == part::type && is_json_tag(v)) return begin_tag(v);
            if (expects_ == part::value && tag_ != json_literal_tag) return value(v);
            if (expects_ == part::late_type && is_json_tag(v)) {
                return fail("the key \"__type__\" of a \"" + std::string(v) + "\" must come first in its map");
            }
            if (!settle()) return false;
        }
        return to_.text(v);
    }

    bool begin_array(std::size_t items) { return settle() && to_.begin_array(items); }
    bool end_array() { return to_.end_array(); }

    bool begin_map(std::size_t items) {
        if (expects_ == part::value && tag_ == json_literal_tag) {
            expects_ = part::plain;
            return open(items, true);
        }
        if (!settle()) return false;
        items_ = items;
        expects_ = part::first_key;
        return true;
    }

    bool key(std::string_view v) {
        switch (expects_) {
            case part::value_key: return v == "value" ? expect(part::value) : malformed();
            case part::subtype_key: return v == "subtype" ? expect(part::subtype) : malformed();
            case part::first_key:
                if (v == type_key) return expect(part::type);
                break;
            default: break;
        }
        if (!settle()) return false;
        if (v == type_key && !in_literal()) expects_ = part::late_type;
        return to_.key(v);
    }

    bool end_map() {
        if (expects_ == part::end) return expect(part::plain);
        if (!settle()) return false;
        if (in_literal()) {
            expects_ = part::end;  // of the map around it
            literals_.pop_back();
        }
        --depth_;
        return to_.end_map();
    }

private:
    enum class part { plain, first_key, type, late_type, subtype_key, subtype, value_key, value, end };

    bool expect(part next) {
        expects_ = next;
        return true;
    }
    bool fail(std::string why) { return to_.fail(std::move(why)); }
    bool malformed() {
        return fail("a map with the \"__type__\" \"" + std::string(tag_) + "\" must hold just " +
                    (tag_ == json_ext_tag ? "a \"subtype\" and " : "") + "a \"value\"");
    }

    bool in_literal() const { return !literals_.empty() && literals_.back() == depth_; }

    bool open(std::size_t items, bool literal) {
        ++depth_;
        if (literal) literals_.push_back(depth_);
        return to_.begin_map(items);
    }

    /// What was held back is passed on: it begins an ordinary map.
    bool settle() { return expects_ == part::plain || pass_on(); }
    bool pass_on() {
        switch (std::exchange(expects_, part::plain)) {
            case part::plain:
            case part::late_type: return true;
            case part::first_key: return open(items_, false);
            case part::type: return open(items_, false) && to_.key(type_key);
            default: return malformed();
        }
    }

    bool begin_tag(std::string_view type) {
        for (const auto tag : {json_bytes_tag, json_ext_tag, json_float_tag, json_literal_tag}) {
            if (tag == type) tag_ = tag;
        }
        subtype_.reset();
        return expect(tag_ == json_ext_tag ? part::subtype_key : part::value_key);
    }

    bool value(std::string_view v) {
        expects_ = part::end;
        if (tag_ == json_float_tag) return floating_value(v);
        const auto size = from_base64_size(v);
        if (size == 0 && v.empty()) return to_.binary(bytes(), subtype_);
        auto [block, data] = shared_block::allocate(size + 3);  // room for what is no base64 after all
        if (!from_base64(v, data)) return fail("the \"value\" of a \"" + std::string(tag_) + "\" is not base64");
        return to_.binary(bytes(std::move(block), data, size), subtype_);
    }

    bool floating_value(std::string_view v) {
        using limits = std::numeric_limits<double>;
        if (v == "inf") return to_.floating(limits::infinity());
        if (v == "-inf") return to_.floating(-limits::infinity());
        if (v == "nan") return to_.floating(limits::quiet_NaN());
        std::uint64_t bits = 0;
        if (v.starts_with("nan:") && v.size() == 20) {
            const auto [end, problem] = std::from_chars(v.data() + 4, v.data() + 20, bits, 16);
            const auto number = std::bit_cast<double>(bits);
            if (problem == std::errc() && end == v.data() + 20 && std::isnan(number)) return to_.floating(number);
        }
        return fail("the \"value\" of a \"ferry.float\" must be \"inf\", \"-inf\", \"nan\" or \"nan:\" and 16 digits");
    }

    Builder& to_;
    part expects_ = part::plain;
    std::string_view tag_;
    std::optional<std::uint64_t> subtype_;
    std::size_t items_ = 0;
    std::size_t depth_ = 0;              // of the maps that are open
    std::vector<std::size_t> literals_;  // the depths of those that are to be taken as they are
};

}  // namespace ferry::detail
