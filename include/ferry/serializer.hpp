// A serializer turns a message into a payload and one run of memory back into a message.
// The concept and its contract only; the models live in serializer/.
#pragma once

#include <ferry/message.hpp>
#include <ferry/payload.hpp>
#include <ferry/policy.hpp>

#include <concepts>
#include <string_view>
#include <utility>

namespace ferry {

/// What the concepts ask for, one by one.
namespace provides {

template <class S>
concept message_type = requires {
    typename S::message_type;
};

template <class S>
concept name = requires {
    { S::name } -> std::convertible_to<std::string_view>;
};

template <class S>
concept encode = requires(const S& s, typename S::message_type m) {
    { s.encode(std::move(m)) } -> std::same_as<payload>;
};

template <class S>
concept decode = requires(const S& s, const bytes& run) {
    { s.decode(run) } -> std::same_as<typename S::message_type>;
};

}  // namespace provides

/// A format for messages of the type `S::message_type`.
///
/// | expression                    | meaning                                                                          |
/// |-------------------------------|----------------------------------------------------------------------------------|
/// | `S::message_type`             | what users send and receive; `message_traits` knows it                           |
/// | `S::name`                     | its name, a `std::string_view` or what becomes one: printable ASCII, no blanks   |
/// | `s.encode(std::move(m))`      | the message as a `payload`; large binaries stay where they are, kept alive by it |
/// | `s.decode(run)`               | the message in exactly all of `run` (a `const bytes&`); binaries may be slices   |
///
/// Both are const, may run on several threads at once and may take their time. They throw `error{encode_failed}`,
/// `error{decode_failed}` or `error{too_large}`, and nothing else, with a text that says where the fault is. A run that is empty, is
/// cut off anywhere or goes on behind its message is refused: a format whose messages don't tell their end puts a length in front.
template <class S>
concept serializer = policy_of<S, serializer_tag> && message_type<typename S::message_type> && provides::name<S> &&
    provides::encode<S> && provides::decode<S>;

}  // namespace ferry
