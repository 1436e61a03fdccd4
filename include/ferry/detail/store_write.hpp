// layer 3
// The core's wishes of a store, as calls of that store.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/effect_buffer.hpp>
#include <ferry/dispatch_events.hpp>

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

/// For the sink of a core that is locked. A store that completes inline is written to at once, and its completion enters
/// `stored`; for another one, the wish is kept until the core is unlocked.
template <class Store, class Write, class Later>
void write_or_keep(Store& store, Write&& wish, effect_buffer<Later>& kept, effect_buffer<events::store_done>& stored) {
    if constexpr (store_completes_inline<Store>) {
        write_to(store, wish, [&](store_status status) {
            stored.push(events::store_done{wish.key, std::move(status)});
        });
    } else {
        kept.push(std::forward<Write>(wish));
    }
}

}  // namespace ferry::detail
