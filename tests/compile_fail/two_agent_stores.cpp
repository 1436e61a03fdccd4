// expect: more than one agent store was given
#include <ferry/grpc_server.hpp>

struct own_store : ferry::memory_agent_store {};

ferry::basic_grpc_server<own_store, ferry::memory_agent_store> server({});
