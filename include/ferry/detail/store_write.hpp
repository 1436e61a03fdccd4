// layer 3
// The core's wishes of a store, as calls of that store.
#pragma once

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

}  // namespace ferry::detail
