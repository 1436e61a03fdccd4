// layer 3
// Holds a step's effects until the core is unlocked. The memory is kept by the thread between steps; steps may nest.
#pragma once

#include <cstddef>
#include <utility>
#include <variant>
#include <vector>

namespace ferry::detail {

template <class Effect>
class effect_buffer {
public:
    effect_buffer() {
        if (auto* kept = spare()) effects_.swap(*kept);
    }
    effect_buffer(const effect_buffer&) = delete;
    effect_buffer& operator=(const effect_buffer&) = delete;
    ~effect_buffer() {
        effects_.clear();
        if (auto* kept = spare(); kept && effects_.capacity() > kept->capacity()) effects_.swap(*kept);
    }

    template <class E>
    void push(E&& effect) {
        effects_.emplace_back(std::forward<E>(effect));
    }

    auto begin() { return effects_.begin(); }
    auto end() { return effects_.end(); }

    /// Hands each to `take`, in order, and those that it pushes.
    template <class Take>
    void drain(Take&& take) {
        for (std::size_t i = 0; i < effects_.size(); ++i) {
            Effect each = std::move(effects_[i]);
            take(std::move(each));
        }
        effects_.clear();
    }

    /// For variants: hands each effect to `perform`, in order.
    template <class Perform>
    void perform(Perform&& perform) {
        for (auto& each : effects_) visit(each, perform, std::make_index_sequence<std::variant_size_v<Effect>>());
    }

private:
    // As std::visit does, whose table of so many alternatives takes compilers several times as long.
    template <class Perform, std::size_t... Indices>
    static void visit(Effect& each, Perform& perform, std::index_sequence<Indices...>) {
        const auto perform_if = [&](auto* effect) {
            if (effect) perform(std::move(*effect));
            return effect != nullptr;
        };
        static_cast<void>((... || perform_if(std::get_if<Indices>(&each))));
    }

    /// None where the thread is ending: who steps then may be an object of static storage.
    static std::vector<Effect>* spare() {
        static thread_local bool is_gone = false;
        struct memory {
            std::vector<Effect> kept;
            ~memory() { is_gone = true; }
        };
        if (is_gone) return nullptr;
        static thread_local memory own;
        return &own.kept;
    }

    std::vector<Effect> effects_;
};

}  // namespace ferry::detail
