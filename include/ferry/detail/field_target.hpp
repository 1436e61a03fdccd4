// layer 1
// What a field takes: for each type of field, the functions by which a value is put into an object of that type. They are
// reached through one table a type, so that a reader of any format can fill any struct.
#pragma once

#include <ferry/fields.hpp>
#include <ferry/message.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <array>
#include <bitset>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace ferry::detail {

using seen_fields = std::bitset<128>;

class field_target;

/// A place for a value. Without a target there is no such place.
struct field_place {
    const field_target* target = nullptr;
    void* at = nullptr;
};

/// Refuses everything; the targets below take what they can. A false, or no place, means: refused.
class field_target {
public:
    virtual std::string wanted() const = 0;
    /// False where a value that is not null goes elsewhere: `resolve` and `is_message` say where.
    bool is_direct() const noexcept { return direct_; }
    virtual field_place resolve(void* at) const { return {this, at}; }
    virtual bool is_message() const { return false; }

    virtual bool null(void*) const { return false; }
    virtual bool boolean(void*, bool) const { return false; }
    virtual bool integer(void*, std::int64_t) const { return false; }
    virtual bool unsigned_integer(void*, std::uint64_t) const { return false; }
    virtual bool floating(void*, double) const { return false; }
    virtual bool text(void*, std::string_view) const { return false; }
    virtual bool binary(void*, bytes&&) const { return false; }

    virtual bool begin_array(void*, std::size_t) const { return false; }
    virtual field_place item(void*, std::size_t) const { return {}; }
    virtual bool begin_map(void*) const { return false; }
    /// `key` becomes the same text in memory that stays, where more than a key can be wrong there.
    virtual field_place member(void*, std::string_view& key, seen_fields&) const {
        return static_cast<void>(key), field_place{};
    }
    /// At the end of an array or map: whether all has come, and what hasn't.
    virtual bool is_whole(std::size_t, const seen_fields&) const { return true; }
    virtual std::string missing(std::size_t, const seen_fields&) const { return {}; }

protected:
    constexpr explicit field_target(bool direct = true) : direct_(direct) {}
    ~field_target() = default;

private:
    bool direct_;
};

template <class T>
class target_of;

template <class T>
field_place place_of(T& object) {
    static constexpr target_of<T> target;
    return {&target, &object};
}

/// Takes anything and forgets it.
class ignoring_target final : public field_target {
public:
    std::string wanted() const override { return "anything"; }
    bool null(void*) const override { return true; }
    bool boolean(void*, bool) const override { return true; }
    bool integer(void*, std::int64_t) const override { return true; }
    bool unsigned_integer(void*, std::uint64_t) const override { return true; }
    bool floating(void*, double) const override { return true; }
    bool text(void*, std::string_view) const override { return true; }
    bool binary(void*, bytes&&) const override { return true; }
    bool begin_array(void*, std::size_t) const override { return true; }
    field_place item(void*, std::size_t) const override { return {this, nullptr}; }
    bool begin_map(void*) const override { return true; }
    field_place member(void*, std::string_view&, seen_fields&) const override { return {this, nullptr}; }
};

inline constexpr ignoring_target ignored;

/// A type that can't be a field; writing it says so.
template <class T>
class target_of final : public field_target {
public:
    std::string wanted() const override { return "nothing"; }
};

template <>
class target_of<bool> final : public field_target {
public:
    std::string wanted() const override { return "a bool"; }
    bool boolean(void* at, bool v) const override { return *static_cast<bool*>(at) = v, true; }
};

template <std::integral T>
class target_of<T> final : public field_target {
    using limits = std::numeric_limits<T>;

public:
    std::string wanted() const override {
        return "an integer from " + std::to_string(limits::min()) + " to " + std::to_string(limits::max());
    }
    bool integer(void* at, std::int64_t v) const override {
        if (v >= 0) return unsigned_integer(at, static_cast<std::uint64_t>(v));
        if (!limits::is_signed || v < static_cast<std::int64_t>(limits::min())) return false;
        return *static_cast<T*>(at) = static_cast<T>(v), true;
    }
    bool unsigned_integer(void* at, std::uint64_t v) const override {
        if (v > static_cast<std::uint64_t>(limits::max())) return false;
        return *static_cast<T*>(at) = static_cast<T>(v), true;
    }
};

/// Takes each number of the type that lies beneath, named or not.
template <class T>
    requires std::is_enum_v<T>
class target_of<T> final : public field_target {
    using number = std::underlying_type_t<T>;

public:
    std::string wanted() const override { return target_of<number>().wanted(); }
    bool integer(void* at, std::int64_t v) const override {
        number n{};
        return target_of<number>().integer(&n, v) && put(at, n);
    }
    bool unsigned_integer(void* at, std::uint64_t v) const override {
        number n{};
        return target_of<number>().unsigned_integer(&n, v) && put(at, n);
    }

    bool boolean(void* at, bool v) const override {
        if constexpr (std::is_same_v<number, bool>) return put(at, v);
        return false;
    }

private:
    static bool put(void* at, number n) { return *static_cast<T*>(at) = static_cast<T>(n), true; }
};

/// An integer is taken where it has just that value.
template <std::floating_point T>
class target_of<T> final : public field_target {
public:
    std::string wanted() const override { return sizeof(T) < 8 ? "a number that a float can hold" : "a number"; }
    bool floating(void* at, double v) const override {
        const auto narrow = static_cast<T>(v);
        if (std::isinf(narrow) && !std::isinf(v)) return false;
        return *static_cast<T*>(at) = narrow, true;
    }
    bool integer(void* at, std::int64_t v) const override {
        constexpr auto exact = std::int64_t{1} << std::numeric_limits<T>::digits;
        return v >= -exact && v <= exact && floating(at, static_cast<double>(v));
    }
    bool unsigned_integer(void* at, std::uint64_t v) const override {
        return std::in_range<std::int64_t>(v) && integer(at, static_cast<std::int64_t>(v));
    }
};

template <>
class target_of<std::string> final : public field_target {
public:
    std::string wanted() const override { return "a text"; }
    bool text(void* at, std::string_view v) const override { return static_cast<std::string*>(at)->assign(v), true; }
};

template <>
class target_of<bytes> final : public field_target {
public:
    std::string wanted() const override { return "a binary"; }
    bool binary(void* at, bytes&& v) const override { return *static_cast<bytes*>(at) = std::move(v), true; }
};

template <binary_field T>
class target_of<T> final : public field_target {
public:
    std::string wanted() const override { return "a binary"; }
    bool binary(void* at, bytes&& v) const override {
        auto& to = *static_cast<T*>(at);
        to.resize(v.size());
        if (!v.empty()) std::memcpy(to.data(), v.data(), v.size());
        return true;
    }
};

/// A message is built by a builder of its own.
template <>
class target_of<message> final : public field_target {
public:
    constexpr target_of() : field_target(false) {}
    std::string wanted() const override { return "a value"; }
    bool is_message() const override { return true; }
    bool null(void* at) const override { return *static_cast<message*>(at) = nullptr, true; }
};

template <optional_field T>
class target_of<T> final : public field_target {
public:
    constexpr target_of() : field_target(false) {}
    std::string wanted() const override {
        static constexpr target_of<typename T::value_type> inner;
        return inner.wanted() + " or null";
    }
    bool null(void* at) const override { return static_cast<T*>(at)->reset(), true; }
    field_place resolve(void* at) const override {
        const auto inner = place_of(static_cast<T*>(at)->emplace());
        return inner.target->resolve(inner.at);
    }
};

template <list_field T>
class target_of<T> final : public field_target {
    static constexpr bool grows = requires(T & list) { list.emplace_back(); };

public:
    std::string wanted() const override {
        if constexpr (grows) return "an array";
        return "an array of " + std::to_string(std::tuple_size_v<fixed>) + " items";
    }
    bool begin_array(void* at, std::size_t items) const override {
        if constexpr (grows) {
            auto& list = *static_cast<T*>(at);
            list.clear();
            list.reserve(std::min(items, reserved_bytes / sizeof(typename T::value_type)));
        }
        return true;
    }
    field_place item(void* at, std::size_t index) const override {
        auto& list = *static_cast<T*>(at);
        if constexpr (grows) {
            return place_of(list.emplace_back());
        } else {
            return index < list.size() ? place_of(list[index]) : field_place{};
        }
    }
    bool is_whole(std::size_t count, const seen_fields&) const override { return count >= std::tuple_size_v<fixed>; }
    std::string missing(std::size_t count, const seen_fields&) const override {
        return "only " + std::to_string(count) + " items";
    }

private:
    static constexpr std::size_t reserved_bytes = 1
                                                  << 20;  // at once: items of a few bytes may be claimed for large ones
    using fixed = std::conditional_t<grows, std::array<int, 0>, T>;
};

template <map_field T>
class target_of<T> final : public field_target {
public:
    std::string wanted() const override { return "a map"; }
    bool begin_map(void* at) const override { return static_cast<T*>(at)->clear(), true; }
    field_place member(void* at, std::string_view& key, seen_fields&) const override {
        const auto [found, inserted] = static_cast<T*>(at)->try_emplace(std::string(key));
        key = found->first;
        return inserted ? place_of(found->second) : field_place{};
    }
};

template <has_fields T>
class target_of<T> final : public field_target {
    static constexpr auto& list = message_traits<T>::fields;
    static constexpr std::size_t count = std::tuple_size_v<std::remove_cvref_t<decltype(list)>>;

public:
    std::string wanted() const override { return "a map"; }
    bool begin_map(void*) const override { return true; }

    field_place member(void* at, std::string_view& key, seen_fields& seen) const override {
        static_assert(names_differ(list), "ferry: two fields of a struct have the same name");
        field_place place{&ignored, nullptr};
        for_each([&](std::size_t index, const auto& field) {
            // The lengths of names are constants: compilers compare such bytes in place.
            if (field.name.size() != key.size() || std::memcmp(field.name.data(), key.data(), key.size()) != 0)
                return false;
            place = seen[index] ? field_place{} : place_of(static_cast<T*>(at)->*(field.member));
            seen[index] = true;
            key = field.name;
            return true;
        });
        return place;
    }

    bool is_whole(std::size_t, const seen_fields& seen) const override {
        bool whole = true;  // without a branch: that many fields are tested at once
        for_each([&]<class Of, class Member>(std::size_t index, const named_field<Of, Member>&) {
            whole &= optional_field<Member> || seen[index];
            return false;
        });
        return whole;
    }
    std::string missing(std::size_t, const seen_fields& seen) const override {
        std::string out;
        for_each([&]<class Of, class Member>(std::size_t index, const named_field<Of, Member>& field) {
            if (seen[index] || optional_field<Member>) return false;
            out = "no field \"" + std::string(field.name) + "\"";
            return true;
        });
        return out;
    }

private:
    /// Until `visit` says that it is enough.
    template <class Visit>
    static void for_each(Visit&& visit) {
        [&]<std::size_t... I>(std::index_sequence<I...>) { (visit(I, std::get<I>(list)) || ...); }
        (std::make_index_sequence<count>());
    }
};

}  // namespace ferry::detail
