// expect: the agent store needs `acquire\(node, done\)`
// note: own_store
#include <ferry/grpc_server.hpp>

#include <cstdint>
#include <string>

struct own_store {
    using policy_category = ferry::agent_store_tag;
    void append(const std::string&, ferry::epoch, const ferry::task_record&, auto&&) {}
    void update(const std::string&, ferry::epoch, const ferry::task_record&, auto&&) {}
    void settle(const std::string&, ferry::epoch, std::uint64_t, auto&&) {}
};

ferry::basic_grpc_server<own_store> server({});
