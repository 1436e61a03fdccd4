// layer 3
// The server's agent store, as the core's world sees it: it is asked for what the core's effects want, and what it answers
// comes back as events. It may answer on any thread, at once or later, and outlive the server with an answer.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/detail/store_write.hpp>
#include <ferry/dispatch_events.hpp>
#include <ferry/error.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ferry::detail {

/// `Host` is who has the core: `post_event(event)`, `owned_node(id)` as the core has it, `log()`. It is called without a lock.
template <class Store, class Host>
class server_store {
    using host = std::weak_ptr<Host>;
    static constexpr bool shared = shared_agent_store<Store>;

public:
    explicit server_store(Store store) : store_(std::move(store)) {}

    /// For what completes inline.
    Store& model() noexcept { return store_; }

    /// Asks for what there is from before, once. False where that takes longer than to the deadline; throws
    /// `error{store_failed}` where it can't be had.
    bool recall(std::chrono::steady_clock::time_point deadline, const host& to) requires lasting_agent_store<Store> {
        if (!known_.valid()) {  // a start that failed may be followed by another one
            const auto told = std::make_shared<std::promise<store_status>>();
            known_ = told->get_future().share();
            ask_for_nodes(told, to);
        }
        const auto came = known_;
        if (came.wait_until(deadline) != std::future_status::ready) return false;
        if (const auto status = came.get(); status.code != errc::ok) {
            throw error(errc::store_failed, "start: the store can't tell whom it knows: " + status.text);
        }
        return true;
    }

    /// Others may have what was this server's. That is not waited for for ever: they get it in any case, later.
    void leave() {
        if constexpr (shared) {
            if (!listening_.exchange(false)) return;
            const auto left = std::make_shared<std::promise<void>>();
            store_.leave([left](const store_status&) { left->set_value(); });
            left->get_future().wait_for(longest_leave);
        }
    }

    // --- effects --------------------------------------------------------------------------------------------------------

    void perform(const effects::acquire_journal& e, const host& to) {
        store_.acquire(e.node, [to, node = e.node](acquired_journal journal) {
            if (const auto core = to.lock()) core->post_event(events::journal_acquired{node, std::move(journal)});
        });
    }
    template <class Wish, class What>
    void perform(const kept_write<Wish, What>& e, const host& to) {
        write_to(store_, e.wish(), stored(e.key, to));
    }
    void perform(const effects::post_task& e, const host& to) requires shared {
        write_to(store_, e, stored(e.key, to));
    }
    void perform(const effects::withdraw_posted& e, const host& to) requires shared {
        write_to(store_, e, stored(e.key, to));
    }
    void perform(const effects::end_task& e, const host& to) requires shared { write_to(store_, e, stored(e.key, to)); }
    void perform(const effects::fetch_tasks& e, const host& to) requires shared {
        store_.fetch(e.node, e.owner, e.after, [to, e](acquired_journal journal) {
            const auto core = to.lock();
            if (core) core->post_event(events::tasks_fetched{e.node, e.owner, std::move(journal)});
        });
    }
    void perform(const effects::fetch_ends& e, const host& to) requires shared {
        store_.ends(e.after, [to](arrived_ends ends) {
            if (const auto core = to.lock()) core->post_event(events::ends_fetched{std::move(ends)});
        });
    }
    void perform(const effects::acknowledge_end& e, const host& to) requires shared { acknowledge(e.place, to); }
    /// One at a time, and the newest status: the last that others are told is the one that lasts.
    void perform(effects::announce_node e, const host& to) requires shared {
        {
            const std::lock_guard lock(announcing_mutex_);
            to_announce_.push_back(std::move(e.what.id));
            if (std::exchange(announcing_, true)) return;
        }
        while (const auto node = next_to_announce(to)) {
            store_.announce(node->first, node->second, [to, id = node->second.id](const store_status& status) {
                const auto core = to.lock();
                if (core && status.code != errc::ok) core->post_event(events::announcement_failed{id});
            });
        }
    }

private:
    /// Where that fails it is done again when the store is back, or when another one succeeds.
    void acknowledge(std::uint64_t place, const host& to) {
        store_.acknowledge(place, [this, place, to](const store_status& status) {
            const auto core = to.lock();  // which has this store
            if (!core) return;
            if (status.code == errc::ok) return acknowledge_again(to);
            {
                const std::lock_guard lock(unacknowledged_mutex_);
                unacknowledged_.push_back(place);
                if (unacknowledged_.size() > 1) return;
            }
            core->log().warn("the store could not note that an end was dealt with, and is told again: " + status.text);
        });
    }
    void acknowledge_again(const host& to) {
        std::vector<std::uint64_t> again;
        {
            const std::lock_guard lock(unacknowledged_mutex_);
            again.swap(unacknowledged_);
        }
        for (const auto each : again) acknowledge(each, to);
    }

    static constexpr auto longest_leave = std::chrono::seconds(2);

    static auto stored(task_key key, const host& to) {
        return [to, key](store_status status) {
            if (const auto core = to.lock()) core->post_event(events::store_done{key, std::move(status)});
        };
    }

    void ask_for_nodes(const std::shared_ptr<std::promise<store_status>>& told, const host& to) {
        if constexpr (shared) {
            listening_ = true;
            const auto take = [this, to](store_note note) {
                const auto core = to.lock();  // which has this store
                if (!core) return;
                if (note.what == store_note::kind::back) acknowledge_again(to);
                to_event(std::move(note), [&](auto&& event) { core->post_event(std::move(event)); });
            };
            store_.listen(take, [to, told](seen_nodes known) {
                if (const auto core = to.lock()) {
                    for (auto& each : known.nodes) core->post_event(events::node_seen{std::move(each)});
                    core->post_event(events::ends_waiting{});
                }
                told->set_value(std::move(known.status));
            });
        } else {
            store_.nodes([to, told](known_nodes known) {
                const auto core = to.lock();
                if (core && known.status.code == errc::ok) core->post_event(events::nodes_known{std::move(known.ids)});
                told->set_value(std::move(known.status));
            });
        }
    }

    /// Nothing where there is none: then the next one begins anew.
    std::optional<std::pair<epoch, seen_node>> next_to_announce(const host& to) {
        while (true) {
            std::string id;
            {
                const std::lock_guard lock(announcing_mutex_);
                announcing_ = !to_announce_.empty();
                if (!announcing_) return std::nullopt;
                id = std::move(to_announce_.front());
                to_announce_.pop_front();
            }
            const auto core = to.lock();
            if (!core) continue;
            if (auto node = core->owned_node(id)) return node;
        }
    }

    [[no_unique_address]] Store store_;
    std::mutex announcing_mutex_;
    std::deque<std::string> to_announce_;  // nodes
    bool announcing_ = false;
    std::shared_future<store_status> known_;  // what the store knows of nodes
    std::atomic<bool> listening_{false};
    std::mutex unacknowledged_mutex_;
    std::vector<std::uint64_t> unacknowledged_;  // places of ends
};

}  // namespace ferry::detail
