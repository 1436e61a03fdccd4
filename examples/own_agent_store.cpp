// An agent store of one's own: the memory store, with a line in a log for whatever it is asked to do and what came of it.
// Whether a store is sound is tried by ferry/conformance/agent_store.hpp.
#include <ferry/ferry.hpp>

#include <chrono>
#include <iostream>
#include <sstream>
#include <syncstream>
#include <utility>

// readme: store
struct logged_store {
    using policy_category = ferry::agent_store_tag;
    std::ostream* log;
    ferry::memory_agent_store journals{};

    template <class Done>
    void acquire(const std::string& node, Done done) {
        journals.acquire(node, logged("acquire", node, std::move(done)));
    }
    template <class Done>
    void append(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done done) {
        journals.append(node, owner, task, logged("append", node, std::move(done)));
    }
    template <class Done>
    void update(const std::string& node, ferry::epoch owner, const ferry::task_record& task, Done done) {
        journals.update(node, owner, task, logged("update", node, std::move(done)));
    }
    template <class Done>
    void settle(const std::string& node, ferry::epoch owner, std::uint64_t order, Done done) {
        journals.settle(node, owner, order, logged("settle", node, std::move(done)));
    }

    static const auto& status_of(const ferry::store_status& s) { return s; }
    static const auto& status_of(const ferry::acquired_journal& j) { return j.status; }
    template <class Done>
    auto logged(const char* what, const std::string& node, Done done) const {
        return [log = log, what, node, done = std::move(done)](auto result) {
            std::osyncstream(*log) << what << " " << node << ": " << to_string(status_of(result).code) << "\n";
            done(std::move(result));
        };
    }
};
// readme: end

int main() {
    std::ostringstream log;
    const ferry::server_options options{.port = 0, .ssl = ferry::plain_text{}, .wait_for_first_node = false};
    ferry::basic_grpc_server<logged_store> server(options, logged_store{&log});
    server.start();
    ferry::grpc_client node({.node_id = "node-1", .researchers = {{"localhost", server.port(), ferry::plain_text{}}}},
                            [](const ferry::task&) {});
    node.start();
    server.wait_for_nodes(1, std::chrono::seconds(10));
    const auto how = server.send({{"round", 1}}, "node-1").wait();
    server.stop();
    std::cout << log.str();
    return how.kind == ferry::outcome_kind::taken && log.str().ends_with("settle node-1: ok\n") ? 0 : 1;
}
