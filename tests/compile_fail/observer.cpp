// expect: observers are not there yet
#include <ferry/grpc_server.hpp>

struct own_observer {
    using policy_category = ferry::observer_tag;
};

ferry::basic_grpc_server<own_observer> server({});
