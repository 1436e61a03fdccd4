// A serializer under test: its samples, and a judgement on what it says to bytes that are no message. The tests themselves
// are in the suite.
#pragma once

#include <ferry/conformance/model_of.hpp>
#include <ferry/conformance/received_run.hpp>
#include <ferry/conformance/samples.hpp>
#include <ferry/error.hpp>
#include <ferry/payload.hpp>
#include <ferry/serializer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <exception>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace ferry::conformance {

/// One serializer, its samples, and what it says to bytes.
template <class Serializer>
class serializer_probe {
    static_assert(serializer<Serializer>, "the suite runs over a serializer: see ferry/serializer.hpp");
    using message_type = typename Serializer::message_type;
    using samples = samples_of<message_type>;
    static_assert(
        requires { samples::all(); }, "specialise ferry::conformance::samples_of for the message type");
    static_assert(std::copyable<message_type>, "the suite copies its samples");

public:
    using sample_type = sample<message_type>;

    const Serializer& format() const { return format_; }
    Serializer another() { return models_.make(); }

    /// What the model says it can carry.
    std::vector<sample_type> all() const {
        std::vector<sample_type> out = carried(samples::all());
        EXPECT_FALSE(out.empty()) << "there are no samples to try";
        return out;
    }
    std::vector<sample_type> awkward() const {
        if constexpr (requires { samples::awkward(); }) return carried(samples::awkward());
        return {};
    }
    std::vector<sample_type> large() const {
        if constexpr (requires { samples::large(); }) return carried(samples::large());
        return {};
    }
    std::vector<sample_type> enclosed() const {
        std::vector<sample_type> out = all();
        if constexpr (requires(message_type m) { samples::enclosed(std::move(m)); }) {
            for (auto& each : out) each.value = samples::enclosed(std::move(each.value));
        }
        return out;
    }

    static bool equal(const message_type& a, const message_type& b) {
        if constexpr (requires { samples::equal(a, b); }) {
            return samples::equal(a, b);
        } else {
            return a == b;
        }
    }

    bytes encoded(const message_type& m) const { return encoded(format_, m); }
    static bytes encoded(const Serializer& with, message_type m) { return with.encode(std::move(m)).flatten(); }

    /// True where these bytes stand for `m`, as `first` do: the same ones, unless the model says that they may be others.
    bool is_encoding(const bytes& run, const bytes& first, const message_type& m) const {
        if constexpr (detail::has_one_encoding<Serializer>()) {
            return run == first;
        } else {
            return equal(format_.decode(run), m);
        }
    }

    /// Decodes a run of exactly this size, so that a sanitizer sees who reads on, and lets it go: binaries that don't keep
    /// it alive read other bytes from then on.
    message_type decoded(const bytes& run) {
        received_run memory(run);
        auto m = format_.decode(memory.take());
        received_.push_back(std::move(memory));
        return m;
    }

    /// Succeeds where `run` is refused as the contract says.
    testing::AssertionResult refuses(const bytes& run) {
        const auto said = says(run);
        if (!said) return testing::AssertionFailure() << "it was taken for a message";
        return judged(*said);
    }

    /// Succeeds where `run` is a message, or is refused as the contract says. A message can be encoded then, or not.
    testing::AssertionResult bears(const bytes& run) {
        const auto said = says(run);
        return said ? judged(*said) : testing::AssertionSuccess();
    }

    /// Where to cut an encoding: everywhere, or at both ends and at places of the seed's choice.
    static std::vector<std::size_t> cuts(std::size_t size, std::mt19937& random) {
        std::vector<std::size_t> out;
        constexpr std::size_t ends = 100;
        for (std::size_t at = 0; at < std::min(size, ends); ++at) out.push_back(at);
        for (std::size_t at = std::max(ends, size - std::min(size, ends)); at < size; ++at) out.push_back(at);
        if (size <= 2 * ends) return out;
        for (int i = 0; i < 50; ++i) out.push_back(std::uniform_int_distribution(ends, size - ends)(random));
        return out;
    }

private:
    struct complaint {
        std::optional<errc> code;  // nothing for an exception that is not ferry's
        std::string text;
    };

    static std::vector<sample_type> carried(std::vector<sample_type> from) {
        if constexpr (requires(const sample_type& s) { model_of<Serializer>::carries(s); }) {
            std::erase_if(from, [](const sample_type& s) { return !model_of<Serializer>::carries(s); });
        }
        return from;
    }

    /// Nothing where `run` was decoded.
    std::optional<complaint> says(const bytes& run) {
        received_run memory(run);
        try {
            auto m = format_.decode(memory.take());
            try {
                (void)format_.encode(std::move(m));
            } catch (const error& e) {
                if (e.code() != errc::encode_failed && e.code() != errc::too_large) throw;
            }
        } catch (const error& e) {
            return complaint{e.code(), e.what()};
        } catch (const std::exception& e) {
            return complaint{{}, e.what()};
        } catch (...) {
            return complaint{{}, "it is no std::exception either"};
        }
        return {};
    }

    static testing::AssertionResult judged(const complaint& said) {
        if (!said.code) return testing::AssertionFailure() << "threw what is no ferry::error: " << said.text;
        if (*said.code != errc::decode_failed && *said.code != errc::too_large) {
            return testing::AssertionFailure() << "threw error{" << to_string(*said.code) << "}: " << said.text;
        }
        if (said.text.empty()) return testing::AssertionFailure() << "the error has no text";
        return testing::AssertionSuccess();
    }

    model_of<Serializer> models_;
    Serializer format_ = models_.make();
    std::vector<received_run> received_;  // not freed before the test ends
};

}  // namespace ferry::conformance
