// How policies are told apart: a policy names its category by one alias, and a pack of policies in any order is resolved
// into one model per category. This header names no policy.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <tuple>
#include <type_traits>
#include <utility>

namespace ferry {

struct serializer_tag;   ///< how a message becomes bytes
struct agent_store_tag;  ///< where tasks are kept
struct retry_tag;        ///< when a failed delivery is tried again
struct chunk_size_tag;   ///< the largest payload part in one gRPC message
struct identity_tag;     ///< who a peer is allowed to be
struct observer_tag;     ///< who is told what happens; reserved: no server takes one yet

/// True for a type that says its category: `using policy_category = ferry::retry_tag;`.
template <class P>
concept policy = requires {
    typename P::policy_category;
};

/// True where P is a policy of the category Tag.
template <class P, class Tag>
concept policy_of = policy<P> && std::is_same_v<typename P::policy_category, Tag>;

namespace detail {

template <class P>
consteval bool is_known_category() {
    if constexpr (policy<P>) {
        using category = typename P::policy_category;
        return std::is_same_v<category, serializer_tag> || std::is_same_v<category, agent_store_tag> ||
               std::is_same_v<category, retry_tag> || std::is_same_v<category, chunk_size_tag> ||
               std::is_same_v<category, identity_tag> || std::is_same_v<category, observer_tag>;
    } else {
        return false;
    }
}

template <class Tag, class... Ps>
inline constexpr std::size_t count_of = (std::size_t{0} + ... + std::size_t{policy_of<Ps, Tag>});

template <class Tag, class Default, class... Ps>
struct select {
    using type = Default;
};

template <class Tag, class Default, class P, class... Ps>
struct select<Tag, Default, P, Ps...>
    : std::conditional_t<policy_of<P, Tag>, std::type_identity<P>, select<Tag, Default, Ps...>> {};

}  // namespace detail

/// True where every type of the pack is a policy of a category that ferry knows.
template <class... Ps>
inline constexpr bool all_policies = (detail::is_known_category<Ps>() && ...);

/// True where no category occurs twice in the pack.
template <class... Ps>
inline constexpr bool one_of_each_category =
    detail::count_of<serializer_tag, Ps...> <= 1 && detail::count_of<agent_store_tag, Ps...> <= 1 &&
    detail::count_of<retry_tag, Ps...> <= 1 && detail::count_of<chunk_size_tag, Ps...> <= 1 &&
    detail::count_of<identity_tag, Ps...> <= 1 && detail::count_of<observer_tag, Ps...> <= 1;

/// The pack's policy of category Tag, or Default where the pack has none. The order of the pack doesn't matter.
template <class Tag, class Default, class... Ps>
using select_policy = typename detail::select<Tag, Default, Ps...>::type;

namespace detail {

/// Stands in for the implementation where a pack is wrong, so that the one `static_assert` is all that the compiler says.
struct no_implementation {
    template <class... Any>
    explicit no_implementation(Any&&...) {}
    struct task {};
};

}  // namespace detail

/// Moves the policy of type P out of a tuple of policy objects, or makes a P where the tuple has none.
template <class P, class... Given>
P take_policy(std::tuple<Given...>& given) {
    constexpr auto times = (std::size_t{0} + ... + std::size_t{std::is_same_v<P, Given>});
    if constexpr (times == 1) {
        return std::move(std::get<P>(given));
    } else if constexpr (times == 0 && std::is_default_constructible_v<P>) {
        return P{};
    } else {
        static_assert(times <= 1, "ferry: the constructor was given two objects of one policy");
        static_assert(times >= 1, "ferry: a policy without a default constructor must be handed to the constructor");
        std::abort();  // never compiled; so that nothing follows from the above
    }
}

}  // namespace ferry
