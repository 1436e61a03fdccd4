// layer 1
// Builds a message, in its place, from the values that a format's reader finds, one call each. What is refused says why in
// `problem()`.
//
// A map whose keys are not all text becomes {"__type__": "ferry.map", "value": [[key, value], ...]}. A key that may be anything
// is announced by `begin_key` and closed by `end_key`; for one that is known to be text, `key` alone will do.
#pragma once

#include <ferry/detail/utf8.hpp>
#include <ferry/detail/value_writer.hpp>
#include <ferry/message.hpp>
#include <ferry/payload.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace ferry::detail {

template <class Json>
class message_builder {
public:
    Json take() { return std::move(root_); }
    bool complete() const noexcept { return complete_; }
    const std::string& problem() const noexcept { return problem_; }

    /// The first reason stays. Returns false.
    bool fail(std::string why) {
        if (problem_.empty()) problem_ = std::move(why);
        return false;
    }

    bool null() { return put(nullptr); }
    bool boolean(bool v) { return put(v); }
    bool integer(std::int64_t v) { return put(v); }
    bool unsigned_integer(std::uint64_t v) { return put(v); }
    bool floating(double v) { return put(v); }
    bool text(std::string_view v) { return in_key() ? key(v) : put(std::string(v)); }
    bool binary(bytes v, std::optional<std::uint64_t> subtype) {
        if constexpr (std::is_base_of_v<bytes, typename Json::binary_t>) {
            return put(subtype ? Json::binary(std::move(v), *subtype) : Json::binary(std::move(v)));
        } else {
            typename Json::binary_t::container_type copy(v.begin(), v.end());
            return put(subtype ? Json::binary(std::move(copy), *subtype) : Json::binary(std::move(copy)));
        }
    }

    /// Room is made for so many items; a size that is only claimed is the caller's to doubt.
    bool begin_array(std::size_t items) {
        if (!open(Json::value_t::array)) return false;
        top().array = &top().at->template get_ref<array_t&>();
        top().array->reserve(items);
        return true;
    }
    bool end_array() { return close(); }
    bool begin_map(std::size_t) {
        if (!open(Json::value_t::object)) return false;
        top().map = &top().at->template get_ref<object_t&>();
        return true;
    }
    bool end_map() { return close(); }

    bool key(std::string_view v) {
        frame& in = top();
        in.expects_key = false;
        if (!in.map) {
            in.slot = &add_pair(in, std::string(v))[1];
            return true;
        }
        const auto before = in.map->size();
        const auto at = in.map->try_emplace(in.map->end(), std::string(v));  // ferry writes keys in their order
        in.slot = &at->second;
        return in.map->size() > before ||
               fail("the key \"" + utf8_text(at->first, quoted_bytes) + "\" occurs twice in a map");
    }
    bool begin_key() {
        top().expects_key = true;
        return true;
    }
    bool end_key() {
        frame& in = top();
        if (in.pairs && in.slot == &in.pairs->back()[0]) in.slot = &in.pairs->back()[1];
        return true;
    }

private:
    static constexpr std::size_t usual_depth = 8;

    using array_t = typename Json::array_t;
    using object_t = typename Json::object_t;

    /// An array or map that is not complete yet, in its final place: what is around it doesn't change meanwhile.
    struct frame {
        Json* at;
        array_t* array = nullptr;
        object_t* map = nullptr;
        array_t* pairs = nullptr;  // in place of `map`, once a key was no text
        Json* slot = nullptr;      // of a map: for the next value
        bool expects_key = false;
    };

    frame& top() { return stack_.back(); }
    bool in_key() const { return !stack_.empty() && stack_.back().expects_key; }

    /// Puts a value where it belongs, and says where that is.
    template <class V>
    Json& place(V&& v) {
        if (stack_.empty()) return root_ = Json(std::forward<V>(v));
        frame& in = top();
        if (in.array) return in.array->emplace_back(std::forward<V>(v));
        if (in.expects_key) begin_odd_key(in);
        return *in.slot = Json(std::forward<V>(v));
    }

    template <class V>
    bool put(V&& v) {
        complete_ = stack_.empty();
        place(std::forward<V>(v));
        return true;
    }

    bool open(typename Json::value_t kind) {
        if (stack_.size() >= max_message_depth) return fail("nested deeper than 512 levels");
        if (stack_.empty()) stack_.reserve(usual_depth);
        stack_.push_back({&place(Json(kind))});
        return true;
    }

    bool close() {
        stack_.pop_back();
        complete_ = stack_.empty();
        return true;
    }

    void begin_odd_key(frame& in) {
        in.expects_key = false;
        if (in.map) to_pairs(in);
        in.slot = &add_pair(in, nullptr)[0];
    }

    static Json& add_pair(frame& in, Json key) {
        Json& pair = in.pairs->emplace_back(Json::array());
        pair.push_back(std::move(key));
        pair.push_back(nullptr);
        return pair;
    }

    static void to_pairs(frame& in) {
        object_t before = std::move(*in.map);
        in.map = nullptr;
        *in.at = Json{{type_key, pairs_tag}, {"value", Json::array()}};
        in.pairs = &(*in.at)["value"].template get_ref<array_t&>();
        for (auto& [key, value] : before) add_pair(in, key)[1] = std::move(value);
    }

    Json root_;
    std::vector<frame> stack_;
    std::string problem_;
    bool complete_ = false;
};

}  // namespace ferry::detail
