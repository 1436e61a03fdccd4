// The message classes of Fed-BioMed's transport (messaging protocol version "7") as plain structs: to a message and back,
// as strictly as the original reads them. Other classes (TrainRequest, ...) stay dynamic messages, which pass untouched.
// The values inside that msgpack has no type for are in fedbiomed/array.hpp, big_integer.hpp and values.hpp.
#pragma once

#include <ferry/detail/strict_field.hpp>
#include <ferry/detail/tagged_value.hpp>
#include <ferry/error.hpp>
#include <ferry/message.hpp>
#include <ferry/payload.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace ferry::fedbiomed {

inline constexpr std::string_view protocol_version = "7";
inline constexpr std::string_view message_module = "fedbiomed.common.message";

// --- the classes -----------------------------------------------------------------------------------------------------------
// What a message says comes first, the ids last. The server fills in an empty `request_id` of what it sends by `request`;
// a node's client fills in an empty `request_id` and `node_id` of a reply.

/// A researcher asks whether a node is there.
struct ping_request {
    std::string request_id{};
};

/// The node is there.
struct ping_reply {
    std::string node_name{};
    std::string node_id{};
    std::string request_id{};
};

/// A researcher looks for data sets that carry all of these tags.
struct search_request {
    std::vector<std::string> tags{};
    std::string request_id{};
};

/// The data sets that a node has found.
struct search_reply {
    std::vector<message> databases{};
    std::int64_t count = 0;
    std::string node_name{};
    std::string node_id{};
    std::string request_id{};
};

/// A researcher asks for all data sets of a node.
struct list_request {
    std::string request_id{};
};

/// All data sets of a node.
struct list_reply {
    std::vector<message> databases{};
    std::int64_t count = 0;
    bool success = true;
    std::string node_name{};
    std::string node_id{};
    std::string request_id{};
};

/// A node could not do what it was asked for.
struct error_message {
    std::string extra_msg{};              ///< what went wrong
    std::optional<std::string> errnum{};  ///< the original's code, such as "FB628"
    std::string node_name{};
    std::string node_id{};
    std::string request_id{};
};

/// Something that one node tells another by way of the server, which can't read it.
struct overlay_message {
    bytes overlay{};  ///< encrypted
    bytes salt{};
    bytes nonce{};
    bool setup = false;  ///< part of setting up the channel between the two
    std::string dest_node_id{};
    std::string node_id{};  ///< of the sender
};

// --- how a class looks on the wire -----------------------------------------------------------------------------------------

/// A member and its key on the wire.
template <class X, class T>
struct field {
    std::string_view key;
    T X::*member;
};
template <class X, class T>
field(std::string_view, T X::*) -> field<X, T>;

/// A class's name on the wire, and its fields beside `protocol_version`, `researcher_id` and `__type_message__`. Specialise
/// it and a class of your own takes part. A field is a `std::string`, `bool`, `std::int64_t`, `bytes`, `message` (any
/// value), or a `std::vector` or `std::optional` (nil on the wire where it is empty) of those.
template <class X>
struct schema;

template <std::same_as<ping_request> X>
struct schema<X> {
    static constexpr std::string_view name = "PingRequest";
    static constexpr std::tuple fields{field{"request_id", &X::request_id}};
};

template <std::same_as<ping_reply> X>
struct schema<X> {
    static constexpr std::string_view name = "PingReply";
    static constexpr std::tuple fields{
        field{"request_id", &X::request_id},
        field{"node_id", &X::node_id},
        field{"node_name", &X::node_name},
    };
};

template <std::same_as<search_request> X>
struct schema<X> {
    static constexpr std::string_view name = "SearchRequest";
    static constexpr std::tuple fields{
        field{"request_id", &X::request_id},
        field{"tags", &X::tags},
    };
};

template <std::same_as<search_reply> X>
struct schema<X> {
    static constexpr std::string_view name = "SearchReply";
    static constexpr std::tuple fields{
        field{"request_id", &X::request_id}, field{"databases", &X::databases}, field{"node_id", &X::node_id},
        field{"node_name", &X::node_name},   field{"count", &X::count},
    };
};

template <std::same_as<list_request> X>
struct schema<X> {
    static constexpr std::string_view name = "ListRequest";
    static constexpr std::tuple fields{field{"request_id", &X::request_id}};
};

template <std::same_as<list_reply> X>
struct schema<X> {
    static constexpr std::string_view name = "ListReply";
    static constexpr std::tuple fields{
        field{"request_id", &X::request_id}, field{"success", &X::success},     field{"databases", &X::databases},
        field{"node_id", &X::node_id},       field{"node_name", &X::node_name}, field{"count", &X::count},
    };
};

template <std::same_as<error_message> X>
struct schema<X> {
    static constexpr std::string_view name = "ErrorMessage";
    static constexpr std::tuple fields{
        field{"request_id", &X::request_id}, field{"node_id", &X::node_id}, field{"node_name", &X::node_name},
        field{"extra_msg", &X::extra_msg},   field{"errnum", &X::errnum},
    };
};

template <std::same_as<overlay_message> X>
struct schema<X> {
    static constexpr std::string_view name = "OverlayMessage";
    static constexpr std::tuple fields{
        field{"node_id", &X::node_id}, field{"dest_node_id", &X::dest_node_id},
        field{"overlay", &X::overlay}, field{"setup", &X::setup},
        field{"salt", &X::salt},       field{"nonce", &X::nonce},
    };
};

/// True for a struct that has a `schema`.
template <class X>
concept message_class = requires {
    { schema<X>::name } -> std::convertible_to<std::string_view>;
    std::tuple_size<std::remove_cvref_t<decltype(schema<X>::fields)>>::value;
};

// --- to a message and back -------------------------------------------------------------------------------------------------

/// The class that a message says it is of, be it known here or not; empty where it names none.
template <std::same_as<message> M = message>
std::string class_of(const std::type_identity_t<M>& m) {
    if (!m.is_object()) return {};
    const auto type = m.find("__type_message__");
    if (type == m.end() || !type->is_object() || !type->contains("module")) return {};
    const auto name = type->find("class");
    return name != type->end() && name->is_string() ? name->template get<std::string>() : std::string();
}

/// The message for a struct, with `protocol_version`, `researcher_id` and `__type_message__` filled in. Binaries are
/// shared, not copied.
template <message_class X, std::same_as<message> M = message>
M to_message(X x, const std::string& researcher_id) {
    M m = M::object();
    m["protocol_version"] = protocol_version;
    m["researcher_id"] = researcher_id;
    m["__type_message__"] = {{"module", message_module}, {"class", schema<X>::name}};
    const auto write = [&]<class T>(const field<X, T>& each) {
        m[std::string(each.key)] = detail::wire_form<T>::write(std::move(x.*each.member));
    };
    std::apply([&](const auto&... each) { (write(each), ...); }, schema<X>::fields);
    return m;
}

namespace detail {

/// Refuses what is not of this class, not of this protocol, or from nobody.
void check_head(const std::same_as<message> auto& m, const std::string& name) {
    if (!m.is_object()) refuse(name + ": the message must be a map, is " + kind_of(m));
    const auto is = class_of(m);
    if (is.empty()) refuse(name + ": __type_message__ must be a map with module and class");
    if (is != name) refuse(name + ": __type_message__ must name this class, names " + is);
    const auto text_at = [&](const char* key) {
        const auto found = m.find(key);
        if (found == m.end()) refuse(name + ": " + key + " is missing");
        return read_field<std::string>(*found, name + ": " + key);
    };
    if (const auto version = text_at("protocol_version"); version != protocol_version) {
        refuse(name + ": protocol_version must be \"" + std::string(protocol_version) + "\", is \"" + version + "\"");
    }
    text_at("researcher_id");
}

inline bool is_of_head(std::string_view key) {
    return key == "protocol_version" || key == "researcher_id" || key == "__type_message__";
}

}  // namespace detail

/// The struct for a message of its class, read as strictly as the original does. Throws `error{protocol_error}` for another
/// class or protocol version, an unknown key, a missing field or a wrong type; the text names class, key and what was
/// expected. Binaries are shared with the message.
template <message_class X, std::same_as<message> M = message>
X parse(const std::type_identity_t<M>& m) {
    const std::string name(schema<X>::name);
    detail::check_head(m, name);
    X x{};
    const auto read = [&]<class T>(const field<X, T>& each) {
        const std::string where = name + ": " + std::string(each.key);
        const auto found = m.find(each.key);
        if (found == m.end()) detail::refuse(where + " is missing; it must be " + detail::wire_form<T>::wanted());
        x.*each.member = detail::read_field<T>(*found, where);
    };
    std::apply([&](const auto&... each) { (read(each), ...); }, schema<X>::fields);
    const auto unknown = std::ranges::find_if(m.template get_ref<const message::object_t&>(), [](const auto& entry) {
        const auto is_key = [&](const auto&... each) { return (... || (each.key == entry.first)); };
        return !std::apply(is_key, schema<X>::fields) && !detail::is_of_head(entry.first);
    });
    if (unknown != m.template get_ref<const message::object_t&>().end()) {
        detail::refuse(name + ": " + unknown->first + " is no field of this class");
    }
    return x;
}

/// The message that answers `request`: its `request_id` and `researcher_id` are those of the request. Throws
/// `error{protocol_error}` where the request lacks one of the two.
template <message_class X, std::same_as<message> M = message>
    requires requires(X x) { x.request_id = std::string(); }
M reply_to(const std::type_identity_t<M>& request, X answer) {
    const auto text_at = [&](const char* key) {
        if (!request.is_object() || !request.contains(key)) {
            detail::refuse("a request without " + std::string(key) + " can't be answered");
        }
        return detail::read_field<std::string>(request[key], std::string("the request's ") + key);
    };
    answer.request_id = text_at("request_id");
    return to_message(std::move(answer), text_at("researcher_id"));
}

// --- failures --------------------------------------------------------------------------------------------------------------

/// The original's code for a failure of ferry's: "FB628", its communication error, or none.
inline std::optional<std::string> errnum(errc code) {
    if (code == errc::not_started || code == errc::invalid_argument) return "FB628";
    return std::nullopt;
}

/// The ErrorMessage that answers `task` where its work has failed. Throws as `reply_to` does.
template <std::same_as<message> M = message>
M failure_of(const std::type_identity_t<M>& task, std::string node_id, std::string node_name, std::string text,
             std::optional<std::string> number = {}) {
    return reply_to(task, error_message{std::move(text), std::move(number), std::move(node_name), std::move(node_id)});
}

/// The same for an exception: its text, and the `errnum` of a `ferry::error`.
template <std::same_as<message> M = message>
M failure_of(const std::type_identity_t<M>& task, std::string node_id, std::string node_name,
             const std::exception& why) {
    const auto* known = dynamic_cast<const error*>(&why);
    return failure_of(task, std::move(node_id), std::move(node_name), why.what(),
                      known ? errnum(known->code()) : std::nullopt);
}

}  // namespace ferry::fedbiomed
