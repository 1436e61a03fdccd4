// expect: the agent store needs `update\(.*\)`, with done\(
#include <ferry/grpc_server.hpp>

#include <cstdint>
#include <functional>
#include <string>

struct own_store {
    using policy_category = ferry::agent_store_tag;
    void acquire(const std::string&, auto&&) {}
    void append(const std::string&, ferry::epoch, const ferry::task_record&, auto&&) {}
    void update(const std::string&, ferry::epoch, const ferry::task_record&,
                std::function<void(ferry::acquired_journal)>) {}
    void settle(const std::string&, ferry::epoch, std::uint64_t, auto&&) {}
};

ferry::basic_grpc_server<own_store> server({});
