// layer 2
// Says what is wrong with a pack of policies: one error a mistake, the first one where the next would follow from it.
// Each function is true where it has nothing to say, and else fails to compile, with the policy's name in what surrounds it.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/chunk.hpp>
#include <ferry/identity.hpp>
#include <ferry/message.hpp>
#include <ferry/policy.hpp>
#include <ferry/retry.hpp>
#include <ferry/serializer.hpp>

#include <concepts>

namespace ferry::detail {

/// One policy a category.
template <class... Ps>
consteval bool check_pack() {
    if constexpr (!all_policies<Ps...>) {
        static_assert(all_policies<Ps...>,
                      "ferry: each template argument of a server or client must be a policy: "
                      "a type with `using policy_category = ferry::..._tag;`");
    } else if constexpr (count_of<serializer_tag, Ps...> > 1) {
        static_assert(count_of<serializer_tag, Ps...> <= 1, "ferry: more than one serializer was given");
    } else if constexpr (count_of<agent_store_tag, Ps...> > 1) {
        static_assert(count_of<agent_store_tag, Ps...> <= 1, "ferry: more than one agent store was given");
    } else if constexpr (count_of<retry_tag, Ps...> > 1) {
        static_assert(count_of<retry_tag, Ps...> <= 1, "ferry: more than one retry policy was given");
    } else if constexpr (count_of<chunk_size_tag, Ps...> > 1) {
        static_assert(count_of<chunk_size_tag, Ps...> <= 1, "ferry: more than one chunk size was given");
    } else if constexpr (count_of<identity_tag, Ps...> > 1) {
        static_assert(count_of<identity_tag, Ps...> <= 1, "ferry: more than one identity policy was given");
    } else if constexpr (count_of<observer_tag, Ps...> > 0) {
        static_assert(count_of<observer_tag, Ps...> == 0, "ferry: observers are not there yet");
    } else {
        return true;
    }
    return false;
}

/// The same, of which a client has fewer.
template <class... Ps>
consteval bool check_client_pack() {
    if constexpr (!check_pack<Ps...>()) {
        return false;
    } else if constexpr (count_of<agent_store_tag, Ps...> > 0) {
        static_assert(count_of<agent_store_tag, Ps...> == 0, "ferry: a client has no agent store");
    } else if constexpr (count_of<identity_tag, Ps...> > 0) {
        static_assert(count_of<identity_tag, Ps...> == 0,
                      "ferry: a client has no identity policy: its own identity is in client_options");
    } else {
        return true;
    }
    return false;
}

template <class M>
consteval bool check_message() {
    if constexpr (!std::movable<M>) {
        static_assert(std::movable<M>, "ferry: the serializer's message_type must be movable");
    } else if constexpr (!provides::request_id<M>) {
        static_assert(provides::request_id<M>,
                      "ferry: message_traits of the serializer's message_type needs `request_id(m)`, a string");
    } else if constexpr (!provides::node_id<M>) {
        static_assert(provides::node_id<M>,
                      "ferry: message_traits of the serializer's message_type needs `node_id(m)`, a string");
    } else if constexpr (!provides::set_request_id<M>) {
        static_assert(provides::set_request_id<M>,
                      "ferry: message_traits of the serializer's message_type needs `set_request_id(m, id)`");
    } else if constexpr (!provides::set_node_id<M>) {
        static_assert(provides::set_node_id<M>,
                      "ferry: message_traits of the serializer's message_type needs `set_node_id(m, id)`");
    } else {
        return true;
    }
    return false;
}

template <class S>
consteval bool check_serializer() {
    if constexpr (!provides::message_type<S>) {
        static_assert(provides::message_type<S>,
                      "ferry: the serializer needs `message_type`, what users send and receive");
    } else if constexpr (!message_type<typename S::message_type>) {
        return check_message<typename S::message_type>();
    } else if constexpr (!provides::name<S>) {
        static_assert(provides::name<S>, "ferry: the serializer needs `name`, a static string");
    } else if constexpr (!provides::encode<S>) {
        static_assert(provides::encode<S>, "ferry: the serializer needs `payload encode(message_type) const`");
    } else if constexpr (!provides::decode<S>) {
        static_assert(provides::decode<S>, "ferry: the serializer needs `message_type decode(const bytes&) const`");
    } else {
        static_assert(serializer<S>);
        return true;
    }
    return false;
}

template <class S>
consteval bool check_agent_store() {
    if constexpr (!provides::acquire<S>) {
        static_assert(provides::acquire<S>,
                      "ferry: the agent store needs `acquire(node, done)`, with done(acquired_journal)");
    } else if constexpr (!provides::append<S>) {
        static_assert(provides::append<S>,
                      "ferry: the agent store needs `append(node, epoch, task_record, done)`, with done(store_status)");
    } else if constexpr (!provides::update<S>) {
        static_assert(provides::update<S>,
                      "ferry: the agent store needs `update(node, epoch, task_record, done)`, with done(store_status)");
    } else if constexpr (!provides::settle<S>) {
        static_assert(provides::settle<S>,
                      "ferry: the agent store needs `settle(node, epoch, order, done)`, with done(store_status)");
    } else {
        static_assert(agent_store<S>);
        return true;
    }
    return false;
}

template <class P>
consteval bool check_retry_policy() {
    if constexpr (!provides::next<P>) {
        static_assert(provides::next<P>,
                      "ferry: the retry policy needs "
                      "`std::optional<std::chrono::milliseconds> next(const failed_attempt&)`");
    } else {
        static_assert(retry_policy<P>);
        return true;
    }
    return false;
}

template <class P>
consteval bool check_chunk_size() {
    if constexpr (!provides::value<P>) {
        static_assert(provides::value<P>, "ferry: the chunk size needs `static constexpr std::uint32_t value`");
    } else if constexpr (!provides::value_in_range<P>) {
        static_assert(provides::value_in_range<P>, "ferry: the chunk size must be from 1 to 100 MiB - 64 bytes");
    } else {
        static_assert(chunk_size_policy<P>);
        return true;
    }
    return false;
}

template <class P>
consteval bool check_identity() {
    if constexpr (!provides::admits<P>) {
        static_assert(provides::admits<P>,
                      "ferry: the identity needs `bool admits(const std::string& node, const peer_info&) const`");
    } else if constexpr (!provides::needs_certificates<P>) {
        static_assert(provides::needs_certificates<P>,
                      "ferry: the identity needs `static constexpr bool needs_certificates`");
    } else {
        static_assert(identity_policy<P>);
        return true;
    }
    return false;
}

/// What a server or client keeps a policy by.
template <class P>
consteval bool check_movable() {
    static_assert(std::move_constructible<P>, "ferry: a policy must be movable");
    return std::move_constructible<P>;
}

/// A client has a serializer and a retry policy for each researcher.
template <class P>
consteval bool check_copyable() {
    static_assert(std::copy_constructible<P>, "ferry: a client copies its policies: they must be copyable");
    return std::copy_constructible<P>;
}

/// Whether each of the policy objects that a constructor was given is one of those `Used`.
template <class... Used>
struct check_given {
    template <class P>
    static constexpr bool is_used = (std::same_as<P, Used> || ...);

    template <class... Given>
    static void check() noexcept {
        static_assert((is_used<Given> && ...),
                      "ferry: the constructor was given an object that is no policy of this server or client");
    }
};

}  // namespace ferry::detail
