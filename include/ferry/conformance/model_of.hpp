// How the conformance suites get at a model: one template to specialise for models that can't be made from nothing, that
// keep what they know outside of their objects, or that document something they can't do. The suites themselves are beside
// this header, one a concept, for GoogleTest.
#pragma once

#include <chrono>

namespace ferry::conformance {

/// Makes the models that a suite tries out. Each test has a `model_of` of its own, which outlives the models it makes: a
/// place for a temporary folder or a connection.
///
/// | expression         | for         | meaning                                                                          |
/// |--------------------|-------------|----------------------------------------------------------------------------------|
/// | `make()`           | all         | a model, returned by value; called at least once a test                          |
/// | `patience`         | stores      | how long a `done` may take before it counts as never called; 30 s without it     |
/// | `carries(sample)`  | serializers | false for a `sample` that the model says it can't carry; true without it         |
/// | `has_one_encoding` | serializers | false where a message is encoded otherwise each time, as with a nonce: encodings |
/// |                    |             | are then compared by what they decode to; true without it                        |
///
/// Only `make` must be there; the others are static. Stores that servers share are made by name: see shared_agent_store.hpp.
template <class Model>
struct model_of {
    Model make() const { return Model{}; }
};

namespace detail {

template <class Model>
constexpr std::chrono::milliseconds patience_of() {
    if constexpr (requires { model_of<Model>::patience; }) return model_of<Model>::patience;
    return std::chrono::seconds(30);
}

template <class Model>
constexpr bool has_one_encoding() {
    if constexpr (requires { model_of<Model>::has_one_encoding; }) return model_of<Model>::has_one_encoding;
    return true;
}

}  // namespace detail

}  // namespace ferry::conformance
