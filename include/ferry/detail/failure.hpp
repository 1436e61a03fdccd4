// layer 1
// Exceptions of serializers, as reasons and outcomes.
#pragma once

#include <ferry/error.hpp>
#include <ferry/outcome.hpp>

#include <exception>

namespace ferry::detail {

/// The reason of a `ferry::error`; of another exception, `otherwise`.
inline errc reason_of(const std::exception& e, errc otherwise) noexcept {
    const auto* known = dynamic_cast<const error*>(&e);
    return known ? known->code() : otherwise;
}

/// How a delivery ends whose message can't be encoded.
inline outcome encode_failure(const std::exception_ptr& thrown) {
    try {
        std::rethrow_exception(thrown);
    } catch (const std::exception& e) {
        const auto reason = reason_of(e, errc::encode_failed);
        return {reason == errc::too_large ? outcome_kind::too_large : outcome_kind::encode_failed, reason, e.what(), 0};
    } catch (...) {
        return {outcome_kind::encode_failed, errc::encode_failed, "encoding it threw what is no std::exception", 0};
    }
}

}  // namespace ferry::detail
