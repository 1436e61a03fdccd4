// The dynamic message: a JSON-like value whose binaries are shared `bytes`; and the trait through which a type of the
// user's own takes its place. How either becomes bytes is the serializer's business.
#pragma once

#include <ferry/error.hpp>
#include <ferry/payload.hpp>

#include <nlohmann/json.hpp>

#include <concepts>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace ferry {

/// A null, boolean, number, string, binary (`bytes`), array or map with string keys (kept sorted). Copying it copies the
/// tree, but no binary. A binary's subtype is a msgpack extension type.
using message = nlohmann::basic_json<std::map, std::vector, std::string, bool, std::int64_t, std::uint64_t, double,
                                     std::allocator, nlohmann::adl_serializer, bytes>;

/// Makes `m["weights"] = some_bytes` a binary (it would become an array of numbers otherwise). Shares the memory.
template <std::same_as<message> Message>
void to_json(Message& m, const bytes& value) {
    m = Message::binary(value);
}

/// Makes `m.get<bytes>()` work. Shares the memory. Throws nlohmann's type error where the value is no binary.
template <std::same_as<message> Message>
void from_json(const Message& m, bytes& value) {
    value = m.template get_ref<const typename Message::binary_t&>();
}

/// What the transport has to know of a message type: the ids that tie a reply to its request and to its node. Specialise
/// it for a type of your own. The functions that get an id return an empty string where the message has none.
///
/// Two more are used where the trait has them: `class_name(m)` names the message's class, for logs; `destination(m)` is
/// the node to which a server hands a node's message on, unchanged, instead of taking it as a reply (empty: none).
template <class M>
struct message_traits;

namespace detail {

/// A template, so that it is compiled only where it is used.
template <class Json>
struct message_by_keys {
    static std::string request_id(const Json& m) { return text(m, "request_id"); }
    static std::string node_id(const Json& m) { return text(m, "node_id"); }
    static void set_request_id(Json& m, const std::string& id) { set(m, "request_id", id); }
    static void set_node_id(Json& m, const std::string& id) { set(m, "node_id", id); }

    /// Of Fed-BioMed's messages, which hold it beside their fields, with the module that it is in.
    static std::string class_name(const Json& m) {
        const auto type = m.is_object() ? m.find("__type_message__") : m.end();
        return type != m.end() && type->is_object() && type->contains("module") ? text(*type, "class") : std::string();
    }

    /// Only Fed-BioMed's OverlayMessage goes from node to node.
    static std::string destination(const Json& m) {
        return class_name(m) == "OverlayMessage" ? text(m, "dest_node_id") : std::string();
    }

private:
    static std::string text(const Json& m, const char* key) {
        if (!m.is_object()) return {};
        const auto found = m.find(key);
        return found != m.end() && found->is_string() ? found->template get<std::string>() : std::string();
    }

    static void set(Json& m, const char* key, const std::string& id) {
        if (!m.is_object() && !m.is_null()) {
            throw error(errc::invalid_argument,
                        std::string("a message that is a ") + m.type_name() + " can't carry a " + key + ": send a map");
        }
        m[key] = id;
    }
};

}  // namespace detail

template <>
struct message_traits<message> : detail::message_by_keys<message> {};

/// What the concepts ask for, one by one.
namespace provides {

template <class M>
concept request_id = requires(const M& m) {
    { message_traits<M>::request_id(m) } -> std::convertible_to<std::string>;
};

template <class M>
concept node_id = requires(const M& m) {
    { message_traits<M>::node_id(m) } -> std::convertible_to<std::string>;
};

template <class M>
concept set_request_id = requires(M& m, const std::string& id) {
    message_traits<M>::set_request_id(m, id);
};

template <class M>
concept set_node_id = requires(M& m, const std::string& id) {
    message_traits<M>::set_node_id(m, id);
};

}  // namespace provides

/// True for a type that can be sent: movable, and known to `message_traits`.
template <class M>
concept message_type = std::movable<M> && provides::request_id<M> && provides::node_id<M> &&
    provides::set_request_id<M> && provides::set_node_id<M>;

namespace detail {

/// Empty where the message has none.
template <class M>
std::string class_of(const M& m) {
    if constexpr (requires { message_traits<M>::class_name(m); }) return message_traits<M>::class_name(m);
    return {};
}

template <class M>
std::string destination_of(const M& m) {
    if constexpr (requires { message_traits<M>::destination(m); }) return message_traits<M>::destination(m);
    return {};
}

}  // namespace detail

}  // namespace ferry
