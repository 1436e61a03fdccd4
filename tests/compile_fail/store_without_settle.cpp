// expect: the agent store needs `settle\(node, epoch, order, done\)`
// note: own_store
#include <ferry/grpc_server.hpp>

#include <string>

struct own_store {
    using policy_category = ferry::agent_store_tag;
    void acquire(const std::string&, auto&&) {}
    void append(const std::string&, ferry::epoch, const ferry::task_record&, auto&&) {}
    void update(const std::string&, ferry::epoch, const ferry::task_record&, auto&&) {}
};

ferry::basic_grpc_server<own_store> server({});
