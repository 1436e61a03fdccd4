// layer 1
// Fills a struct, by its fields, from the values that a format's reader finds; the counterpart of `message_builder`, with the
// same functions. A refusal says where: "tensors[2].shape must be an array, is a text".
#pragma once

#include <ferry/detail/field_target.hpp>
#include <ferry/detail/message_builder.hpp>
#include <ferry/detail/utf8.hpp>
#include <ferry/fields.hpp>
#include <ferry/message.hpp>
#include <ferry/payload.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry::detail {

/// Knows no struct, so that its code serves all of them. `Message` is always `message`: what uses it is compiled only where it
/// is used.
template <class Message = message>
class field_reader {
public:
    explicit field_reader(field_place root) : next_(root) {}

    const std::string& problem() const noexcept { return problem_; }

    /// The first reason stays. Returns false.
    bool fail(std::string why) {
        if (problem_.empty()) problem_ = std::move(why);
        return false;
    }

    bool null() {
        if (in_message_) return pass_on(&builder::null);
        if (!find_place()) return false;
        return next_.target->null(next_.at) || refuse("null");
    }
    bool boolean(bool v) { return scalar("a bool", &field_target::boolean, &builder::boolean, v); }
    bool integer(std::int64_t v) { return scalar("an integer", &field_target::integer, &builder::integer, v); }
    bool unsigned_integer(std::uint64_t v) {
        return scalar("an integer", &field_target::unsigned_integer, &builder::unsigned_integer, v);
    }
    bool floating(double v) { return scalar("a float", &field_target::floating, &builder::floating, v); }
    bool text(std::string_view v) {
        if (in_key_) return key(v);
        return scalar("a text", &field_target::text, &builder::text, v);
    }
    bool binary(bytes v, std::optional<std::uint64_t> subtype) {
        if (!enter()) return in_message_ ? pass_on(&builder::binary, std::move(v), subtype) : false;
        if (subtype && next_.target != &ignored) return refuse("an extension");
        return next_.target->binary(next_.at, std::move(v)) || refuse("a binary");
    }

    bool begin_array(std::size_t items) {
        if (!enter()) return in_message_ ? pass_on(&builder::begin_array, items) : false;
        return next_.target->begin_array(next_.at, items) ? open(false) : refuse("an array");
    }
    bool begin_map(std::size_t items) {
        if (!enter()) return in_message_ ? pass_on(&builder::begin_map, items) : false;
        return next_.target->begin_map(next_.at) ? open(true) : refuse("a map");
    }
    bool end_array() { return in_message_ ? pass_on(&builder::end_array) : close(); }
    bool end_map() { return in_message_ ? pass_on(&builder::end_map) : close(); }

    bool key(std::string_view v) {
        if (in_message_) return inner_->key(v) || fail(where() + ": " + inner_->problem());
        in_key_ = false;
        frame& in = stack_.back();
        next_ = in.place.target->member(in.place.at, v, in.seen);
        in.key = v;
        return next_.target || twice(v);
    }
    bool begin_key() {
        if (in_message_) return inner_->begin_key();
        if (is_passed_over()) {
            next_ = stack_.back().place;
        } else {
            in_key_ = true;
        }
        return true;
    }
    bool end_key() { return !in_message_ || inner_->end_key(); }

private:
    using builder = message_builder<Message>;

    struct frame {
        field_place place;
        bool map = false;
        std::size_t items = 0;  // of an array
        std::string_view key;   // of a map
        seen_fields seen{};
    };

    /// The innermost is at its back. The first few take no memory of their own.
    class frames {
    public:
        frames() = default;
        frames(const frames&) = delete;
        frames& operator=(const frames&) = delete;

        bool empty() const noexcept { return size_ == 0; }
        std::size_t size() const noexcept { return size_; }
        frame& operator[](std::size_t i) { return i < near_.size() ? near_[i] : far_[i - near_.size()]; }
        const frame& operator[](std::size_t i) const { return i < near_.size() ? near_[i] : far_[i - near_.size()]; }
        frame& back() { return *back_; }
        const frame& back() const { return *back_; }

        void push(field_place place, bool map) {
            back_ = size_ < near_.size() ? &near_[size_] : &far_.emplace_back();
            *back_ = {place, map, 0, {}, {}};
            ++size_;
        }
        void pop() {
            if (size_-- > near_.size()) far_.pop_back();
            if (size_ > 0) back_ = &(*this)[size_ - 1];
        }

    private:
        std::array<frame, 2> near_;
        std::vector<frame> far_;
        frame* back_ = nullptr;
        std::size_t size_ = 0;
    };

    bool is_passed_over() const { return stack_.back().place.target == &ignored; }

    /// Where the value that comes goes, null or not. False where there is no such place.
    bool find_place() {
        if (in_key_) return fail("the keys of " + where(stack_.size() - 1) + " must be texts");
        if (!stack_.empty() && !stack_.back().map) {
            frame& in = stack_.back();
            next_ = in.place.target->item(in.place.at, in.items++);
            if (!next_.target) {
                return fail(where(stack_.size() - 1) + " must be " + in.place.target->wanted() + ", has more");
            }
        }
        return true;
    }

    /// The same for a value that is not null. False too where a message begins, or goes on, at that place.
    bool enter() {
        if (in_message_ || !find_place()) return false;
        return next_.target->is_direct() || enter_elsewhere();
    }
    bool enter_elsewhere() {
        next_ = next_.target->resolve(next_.at);
        in_message_ = next_.target->is_message();
        if (in_message_) inner_.emplace();
        return !in_message_;
    }

    template <class ToField, class ToMessage, class V>
    bool scalar(const char* what, ToField to_field, ToMessage to_message, V v) {
        if (!enter()) return in_message_ ? pass_on(to_message, v) : false;
        return (next_.target->*to_field)(next_.at, v) || refuse(what);
    }
    template <class... Arguments, class... Given>
    bool pass_on(bool (builder::*event)(Arguments...), Given&&... given) {
        if (!((*inner_).*event)(std::forward<Given>(given)...)) return fail(where() + ": " + inner_->problem());
        if (!inner_->complete()) return true;
        *static_cast<Message*>(next_.at) = inner_->take();
        in_message_ = false;
        return true;
    }

    bool open(bool map) {
        if (stack_.size() >= max_message_depth) return fail("nested deeper than 512 levels");
        stack_.push(next_, map);
        return true;
    }

    bool close() {
        const frame& ended = stack_.back();
        if (!ended.place.target->is_whole(ended.items, ended.seen)) return lacks();
        stack_.pop();
        return true;
    }

    bool twice(std::string_view key) {
        return fail("the key \"" + utf8_text(key, quoted_bytes) + "\" occurs twice in " + where(stack_.size() - 1));
    }
    bool lacks() {
        const frame& ended = stack_.back();
        return fail(where(stack_.size() - 1) + " has " + ended.place.target->missing(ended.items, ended.seen));
    }
    bool refuse(const char* found) { return fail(where() + " must be " + next_.target->wanted() + ", is " + found); }

    /// The path to the value that the first `depth` frames lead to; to the one that has just come without it.
    std::string where(std::size_t depth) const {
        std::string path;
        for (std::size_t i = 0; i < depth; ++i) {
            const frame& in = stack_[i];
            if (in.map) {
                path.append(path.empty() ? "" : ".").append(utf8_text(in.key, quoted_bytes));
            } else {
                path.append("[").append(std::to_string(in.items - 1)).append("]");
            }
        }
        return path.empty() ? "the message" : path;
    }
    std::string where() const { return where(stack_.size()); }

    field_place next_;
    frames stack_;
    std::optional<builder> inner_;  // where a message is read, or was
    bool in_message_ = false;
    bool in_key_ = false;  // never both
    std::string problem_;
};

/// A message, or a struct with fields: what ferry reads by itself, in any format.
template <class T>
concept readable = std::same_as<T, message> || has_fields<T>;

/// What `read` finds: it gets the reader to tell.
template <readable Message, class Read>
Message read_as(Read&& read) {
    if constexpr (std::same_as<Message, message>) {
        message_builder<message> built;
        read(built);
        return built.take();
    } else {
        Message m{};
        field_reader<> filled(place_of(m));
        read(filled);
        return m;
    }
}

}  // namespace ferry::detail
