// layer 3
// The core's wishes of a store, as calls of that store: at once, or once the core is unlocked.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/effect_buffer.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace ferry::detail {

template <class Store, class Done>
void write_to(Store& store, const effects::append_task& e, Done&& done) {
    store.append(e.node, e.owner, e.task, std::forward<Done>(done));
}
template <class Store, class Done>
void write_to(Store& store, const effects::update_task& e, Done&& done) {
    store.update(e.node, e.owner, e.task, std::forward<Done>(done));
}
template <class Store, class Done>
void write_to(Store& store, const effects::settle_task& e, Done&& done) {
    store.settle(e.node, e.owner, e.order, std::forward<Done>(done));
}

// Of a store that several servers share.

template <class Store, class Done>
void write_to(Store& store, const effects::post_task& e, Done&& done) {
    store.post(e.node, e.task, std::forward<Done>(done));
}
template <class Store, class Done>
void write_to(Store& store, const effects::withdraw_posted& e, Done&& done) {
    store.withdraw(e.node, e.id, std::forward<Done>(done));
}
template <class Store, class Done>
void write_to(Store& store, const effects::end_task& e, Done&& done) {
    store.end(e.node, e.owner, e.order, e.end, std::forward<Done>(done));
}

/// A wish with copies of what it refers to.
template <class Wish, class What>
struct kept_write {
    task_key key;
    std::string node;
    epoch owner;
    What what;

    Wish wish() const { return {key, node, owner, what}; }
};
using kept_append = kept_write<effects::append_task, task_record>;
using kept_update = kept_write<effects::update_task, task_record>;
using kept_settle = kept_write<effects::settle_task, std::uint64_t>;

inline kept_append keep(const effects::append_task& e) { return {e.key, e.node, e.owner, e.task}; }
inline kept_update keep(const effects::update_task& e) { return {e.key, e.node, e.owner, e.task}; }
inline kept_settle keep(const effects::settle_task& e) { return {e.key, e.node, e.owner, e.order}; }

/// What the store has told without having been asked, as an event for `take(event)`. That a journal is another server's shows
/// where it is fetched: a note may be late, and mean an earlier time at which it was this server's.
template <class Take>
void to_event(store_note&& note, Take&& take) {
    switch (note.what) {
        case store_note::kind::tasks:
        case store_note::kind::lost: return take(events::tasks_waiting{note.node});
        case store_note::kind::ends: return take(events::ends_waiting{});
        case store_note::kind::free: return take(events::journal_free{note.node});
        case store_note::kind::seen: return take(events::node_seen{{std::move(note.node), note.status, note.since}});
        case store_note::kind::gone: return take(events::task_gone{note.id});
        case store_note::kind::back: return take(events::store_back{});
    }
}

/// A write that was completed inline. Nearly all are `ok`, of which the store says nothing.
struct completed_write {
    task_key key;
    std::unique_ptr<store_status> said;

    completed_write(task_key of, store_status&& status) : key(of) {
        const bool is_plain = status.code == errc::ok && status.text.empty() && !status.content;
        if (!is_plain) said = std::make_unique<store_status>(std::move(status));
    }
    events::store_done event() && { return {key, said ? std::move(*said) : store_status{}}; }
};

/// For the sink of a core that is locked. A store that completes inline is written to at once, and its completion enters
/// `completed`; for another one, the wish is kept until the core is unlocked.
template <class Store, class Wish, class Later>
void write_or_keep(Store& store, const Wish& wish, effect_buffer<Later>& kept,
                   effect_buffer<completed_write>& completed) {
    if constexpr (store_completes_inline<Store>) {
        write_to(store, wish,
                 [&](store_status status) { completed.push(completed_write(wish.key, std::move(status))); });
    } else {
        kept.push(keep(wish));
    }
}

}  // namespace ferry::detail
