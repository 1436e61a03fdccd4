// layer 0
// Values by id, of which none is ever taken out. A lookup touches two places in memory, a slot and the value: where there are
// many thousands, each touch is a wait, and a node-based map needs several.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace ferry::detail {

/// Values, and their ids, stay where they are.
template <class Value>
class id_table {
public:
    using entry = std::pair<const std::string, Value>;

    Value* find(std::string_view id) noexcept {
        entry* const found = lookup(id, hash_of(id));
        return found ? &found->second : nullptr;
    }
    const Value* find(std::string_view id) const noexcept {
        const entry* const found = lookup(id, hash_of(id));
        return found ? &found->second : nullptr;
    }

    /// The one that is there, or a new one.
    entry& add(std::string_view id) {
        const auto hash = hash_of(id);
        if (entry* const found = lookup(id, hash)) return *found;
        if ((entries_.size() + 1) * 4 > slots_.size() * 3) grow();
        entry& added = entries_.emplace_back(std::piecewise_construct, std::tuple(id), std::tuple());
        put({hash, &added});
        return added;
    }

    std::size_t size() const noexcept { return entries_.size(); }

    /// In the order in which they were added.
    auto begin() { return entries_.begin(); }
    auto end() { return entries_.end(); }
    auto begin() const { return entries_.begin(); }
    auto end() const { return entries_.end(); }

private:
    struct slot {
        std::size_t hash = 0;
        entry* at = nullptr;
    };

    static std::size_t hash_of(std::string_view id) noexcept { return std::hash<std::string_view>()(id); }

    entry* lookup(std::string_view id, std::size_t hash) const noexcept {
        if (slots_.empty()) return nullptr;
        const auto mask = slots_.size() - 1;
        for (auto i = hash & mask; slots_[i].at; i = (i + 1) & mask) {
            if (slots_[i].hash == hash && slots_[i].at->first == id) return slots_[i].at;
        }
        return nullptr;
    }

    void put(slot s) {
        const auto mask = slots_.size() - 1;
        auto i = s.hash & mask;
        while (slots_[i].at) i = (i + 1) & mask;
        slots_[i] = s;
    }

    void grow() {
        auto before = std::exchange(slots_, std::vector<slot>(slots_.empty() ? 16 : slots_.size() * 2));
        for (const auto& each : before) {
            if (each.at) put(each);
        }
    }

    std::deque<entry> entries_;
    std::vector<slot> slots_;  // a power of two, at most three quarters of them taken
};

}  // namespace ferry::detail
