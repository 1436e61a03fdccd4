// expect: the agent store needs `settle\(.*\)`, with done\(
#include <ferry/grpc_server.hpp>

#include <cstdint>
#include <functional>
#include <string>

struct own_store {
    using policy_category = ferry::agent_store_tag;
    void acquire(const std::string&, auto&&) {}
    void append(const std::string&, ferry::epoch, const ferry::task_record&, auto&&) {}
    void update(const std::string&, ferry::epoch, const ferry::task_record&, auto&&) {}
    void settle(const std::string&, ferry::epoch, std::uint64_t, std::function<void(std::string)>) {}
};

ferry::basic_grpc_server<own_store> server({});
