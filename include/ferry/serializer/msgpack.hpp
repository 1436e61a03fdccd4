// The default serializer: messages as msgpack. Binaries of 1 KiB and more are not copied on the way out, and those of a
// decoded message are slices of the received run.
//
// What a `message` can't say directly travels as follows: an extension is a binary with the extension's type as subtype;
// a map with keys that are not strings is {"__type__": "ferry.map", "value": [[key, value], ...]} and becomes the same
// msgpack map again. A float stays a float64, with every bit of it. A string key that occurs twice in a map is an error;
// a list of pairs keeps both.
#pragma once

#include <ferry/detail/message_builder.hpp>
#include <ferry/detail/payload_builder.hpp>
#include <ferry/detail/struct_reader.hpp>
#include <ferry/detail/value_writer.hpp>
#include <ferry/error.hpp>
#include <ferry/message.hpp>
#include <ferry/serializer.hpp>

#include <msgpack/null_visitor.hpp>
#include <msgpack/pack.hpp>
#include <msgpack/parse.hpp>
#include <msgpack/unpack.hpp>

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace ferry {

namespace detail {

/// A template, as what uses msgpack-cxx is compiled only where it is used.
template <class Builder>
class basic_msgpack_writer {
public:
    static constexpr std::string_view format = "msgpack";
    static constexpr bool takes_any_key = true;
    static constexpr bool has_tags = false;

    explicit basic_msgpack_writer(Builder& out) : out_(out), packer_(out) {}

    void null() { packer_.pack_nil(); }
    void boolean(bool v) { v ? packer_.pack_true() : packer_.pack_false(); }
    void integer(std::int64_t v) { packer_.pack_int64(v); }
    void unsigned_integer(std::uint64_t v) { packer_.pack_uint64(v); }

    // msgpack-cxx makes an integer of a float that has the value of one, and 0 of -0.0.
    void floating(double v) {
        const auto bits = std::bit_cast<std::uint64_t>(v);
        char out[9] = {static_cast<char>(0xcb)};
        for (int i = 0; i < 8; ++i) out[i + 1] = static_cast<char>(bits >> (56 - 8 * i));
        out_.write(out, sizeof out);
    }

    /// With an owner, who keeps the characters as they are, long texts are referred to.
    void text(std::string_view v, const std::shared_ptr<const void>& owner = nullptr) {
        packer_.pack_str(checked(v.size(), "a string"));
        body(std::span(reinterpret_cast<const std::uint8_t*>(v.data()), v.size()), owner);
    }
    void binary(std::span<const std::uint8_t> v, const std::shared_ptr<const void>& owner) {
        packer_.pack_bin(checked(v.size(), "a binary"));
        body(v, owner);
    }
    void binary(const bytes& v, std::optional<std::uint64_t> subtype) {
        const auto size = checked(v.size(), "a binary");
        if (subtype) {
            if (*subtype > 255)
                throw error(errc::encode_failed,
                            "msgpack: a binary's subtype must be from 0 to 255, the byte that is the type");
            packer_.pack_ext(size, static_cast<std::int8_t>(*subtype));
        } else {
            packer_.pack_bin(size);
        }
        out_.append(v);
    }

    void begin_array(std::size_t size) { packer_.pack_array(checked(size, "an array")); }
    void end_array() {}
    void begin_map(std::size_t size, std::string_view) { packer_.pack_map(checked(size, "a map")); }
    void key(std::string_view v) { text(v); }
    void end_map() {}

private:
    static std::uint32_t checked(std::size_t size, const char* what) {
        if (size > std::numeric_limits<std::uint32_t>::max()) {
            throw error(errc::too_large, std::string("msgpack: ") + what + " of " + std::to_string(size) +
                                             " is beyond the format's 2^32-1: split it into several");
        }
        return static_cast<std::uint32_t>(size);
    }

    void body(std::span<const std::uint8_t> v, const std::shared_ptr<const void>& owner) {
        if (owner && v.size() >= Builder::by_reference_from) return out_.append(bytes::borrow(v, owner));
        out_.write(reinterpret_cast<const char*>(v.data()), v.size());
    }

    Builder& out_;
    msgpack::packer<Builder> packer_;
};

using msgpack_writer = basic_msgpack_writer<payload_builder>;

/// The events of msgpack-cxx's parser, for what builds a message. Binaries become slices of `source`.
template <class Builder>
class msgpack_events : public msgpack::null_visitor {
public:
    msgpack_events(const bytes& source, Builder& to) : source_(source), to_(to) {}

    bool visit_nil() { return to_.null(); }
    bool visit_boolean(bool v) { return to_.boolean(v); }
    bool visit_positive_integer(std::uint64_t v) { return to_.unsigned_integer(v); }
    bool visit_negative_integer(std::int64_t v) { return to_.integer(v); }
    bool visit_float32(float v) { return to_.floating(static_cast<double>(v)); }
    bool visit_float64(double v) { return to_.floating(v); }
    bool visit_str(const char* v, std::uint32_t size) { return to_.text(std::string_view(v, size)); }
    bool visit_bin(const char* v, std::uint32_t size) { return to_.binary(slice(v, size), std::nullopt); }
    bool visit_ext(const char* v, std::uint32_t size) {
        return to_.binary(slice(v + 1, size - 1), static_cast<std::uint8_t>(*v));
    }
    bool start_array(std::uint32_t size) { return to_.begin_array(std::min(size, believed_size)); }
    bool end_array() { return to_.end_array(); }
    bool start_map(std::uint32_t size) { return to_.begin_map(std::min(size, believed_size)); }
    bool start_map_key() { return to_.begin_key(); }
    bool end_map_key() { return to_.end_key(); }
    bool end_map() { return to_.end_map(); }
    void parse_error(std::size_t, std::size_t at) { to_.fail("not msgpack at byte " + std::to_string(at)); }
    void insufficient_bytes(std::size_t, std::size_t at) { to_.fail("ends too early, at byte " + std::to_string(at)); }

private:
    static constexpr std::uint32_t believed_size = 1024;  // of an array, before its values have come

    bytes slice(const char* v, std::uint32_t size) const {
        return source_.slice(static_cast<std::size_t>(reinterpret_cast<const std::uint8_t*>(v) - source_.data()), size);
    }

    const bytes& source_;
    Builder& to_;
};

/// Takes any message, down to 512 levels: what goes through it is whole, and no size in it is a mere claim.
class msgpack_check : public msgpack::null_visitor {
public:
    bool fail(std::string why) { return problem_ = std::move(why), false; }
    const std::string& problem() const noexcept { return problem_; }

    bool null() { return true; }
    bool boolean(bool) { return true; }
    bool integer(std::int64_t) { return true; }
    bool unsigned_integer(std::uint64_t) { return true; }
    bool floating(double) { return true; }
    bool text(std::string_view) { return true; }
    bool binary(const bytes&, std::optional<std::uint64_t>) { return true; }
    bool begin_array(std::size_t) { return open(); }
    bool end_array() { return close(); }
    bool begin_map(std::size_t) { return open(); }
    bool begin_key() { return true; }
    bool end_key() { return true; }
    bool end_map() { return close(); }

private:
    bool open() { return ++depth_ <= max_message_depth || fail("nested deeper than 512 levels"); }
    bool close() { return --depth_, true; }

    std::size_t depth_ = 0;
    std::string problem_;
};

/// msgpack-cxx's packer, for members of the type `bytes`, which it hands on without a copy.
template <class Builder>
class basic_msgpack_packer : public msgpack::packer<Builder> {
public:
    explicit basic_msgpack_packer(Builder& out) : msgpack::packer<Builder>(out), writer_(out) {}

    void binary(const bytes& v) { writer_.binary(v, std::nullopt); }

private:
    basic_msgpack_writer<Builder> writer_;
};

using msgpack_packer = basic_msgpack_packer<payload_builder>;

template <class T>
concept knows_msgpack = requires(const T& in, T& out, msgpack_packer& to, const msgpack::object& from) {
    in.msgpack_pack(to);
    out.msgpack_unpack(from);
};

}  // namespace detail

}  // namespace ferry

// How msgpack-cxx handles `ferry::bytes` in structs that are packed its way.

template <>
struct msgpack::adaptor::pack<ferry::bytes> {
    template <class Stream>
    msgpack::packer<Stream>& operator()(msgpack::packer<Stream>& to, const ferry::bytes& v) const {
        if constexpr (std::same_as<Stream, ferry::detail::payload_builder>) {
            // The only packer that ferry has for it.
            static_cast<ferry::detail::basic_msgpack_packer<Stream>&>(to).binary(v);
        } else {
            to.pack_bin(static_cast<std::uint32_t>(v.size()));
            to.pack_bin_body(reinterpret_cast<const char*>(v.data()), static_cast<std::uint32_t>(v.size()));
        }
        return to;
    }
};

template <>
struct msgpack::adaptor::convert<ferry::bytes> {
    const msgpack::object& operator()(const msgpack::object& from, ferry::bytes& v) const {
        if (from.type != msgpack::type::BIN) throw msgpack::type_error();
        v = ferry::bytes::copy(std::string_view(from.via.bin.ptr, from.via.bin.size));
        return from;
    }
};

namespace ferry {

/// Messages as msgpack: a `message`, a struct with `message_traits<T>::fields`, or one with MSGPACK_DEFINE_MAP. Of a struct's
/// fields, texts and binaries of 1 KiB and more are not copied on the way out: the struct lives until the last of them has
/// gone. By MSGPACK_DEFINE_MAP only members of the type `bytes` are not copied, and fields that are missing stay as they
/// are. Stateless; safe to use from several threads.
template <class Message = message>
struct msgpack_serializer {
    using policy_category = serializer_tag;
    using message_type = Message;

    static constexpr std::string_view name = "msgpack";

    payload encode(std::conditional_t<has_fields<Message>, Message, const Message&> m) const {
        detail::payload_builder out;
        detail::msgpack_writer writer(out);
        if constexpr (std::same_as<Message, message>) {
            detail::message_walk<message, detail::msgpack_writer>(writer).write(m);
        } else if constexpr (has_fields<Message>) {
            const auto kept = std::make_shared<const Message>(std::move(m));
            detail::struct_walk<detail::msgpack_writer>(writer, kept).write(*kept);
        } else {
            static_assert(detail::knows_msgpack<Message>,
                          "ferry: msgpack_serializer<T> needs T's fields in ferry::message_traits<T>, or "
                          "MSGPACK_DEFINE_MAP in T");
            if constexpr (detail::knows_msgpack<Message>) packed(m, out);
        }
        return out.finish();
    }

    Message decode(const bytes& run) const {
        if constexpr (detail::readable<Message>) {
            return detail::read_as<Message>([&](auto& to) { read(run, to); });
        } else if constexpr (detail::knows_msgpack<Message>) {
            detail::msgpack_check whole;
            read(run, whole);
            return converted(run);
        } else {
            return Message{};  // encode says what is missing
        }
    }

private:
    [[noreturn]] static void refuse(const std::string& why) { throw error(errc::decode_failed, "msgpack: " + why); }

    template <class Builder>
    static void read(const bytes& run, Builder& to) {
        if (run.empty()) refuse("an empty payload is no message");
        detail::msgpack_events<Builder> events(run, to);
        std::size_t at = 0;
        bool whole = false;
        try {
            whole = msgpack::parse(reinterpret_cast<const char*>(run.data()), run.size(), at, events);
        } catch (const std::exception& e) {
            refuse(e.what());
        }
        if (!whole) refuse(to.problem());
        if (at != run.size()) {
            refuse(std::to_string(run.size() - at) + " bytes follow the message, which ends at byte " +
                   std::to_string(at));
        }
    }

    static void packed(const Message& m, detail::payload_builder& out) {
        detail::msgpack_packer packer(out);
        try {
            m.msgpack_pack(static_cast<msgpack::packer<detail::payload_builder>&>(packer));
        } catch (const error&) {
            throw;
        } catch (const std::exception& e) {
            throw error(errc::encode_failed, std::string("msgpack: ") + e.what());
        }
    }

    static Message converted(const bytes& run) {
        const auto by_reference = [](msgpack::type::object_type, std::size_t, void*) { return true; };
        try {
            const auto tree = msgpack::unpack(reinterpret_cast<const char*>(run.data()), run.size(), by_reference);
            return tree.get().template as<Message>();
        } catch (const std::exception& e) {
            refuse(e.what());
        }
    }
};

}  // namespace ferry
